"""Every public entry point of every model family gives one number in every mode it may be called in."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from genmod import editing, evaluation, models, random
from genmod.model import LatentModel
from genmod.models.sampling import DiffusionBased
from genmod.nn import MLP, DenoisingMLP
from tests.everywhere.entries import (
    ABSENT,
    ELSEWHERE,
    ENTRIES,
    WITHOUT_A_MODEL,
    Entry,
    Found,
)
from tests.everywhere.families import FAMILIES, Case, case

EQUAL = 1e-6
"""Relative: the same numbers in another order of additions."""
REPLAYED = 1e-4
"""Relative: float32 beside float64 on the same noise."""
PERMUTATION = torch.tensor([3, 0, 4, 1, 2])
ROW = 2
EVALUATION = {name for name, entry in ENTRIES.items() if entry.keyed and entry.rowwise}


# ------------------------------------------------------------------ the table is complete


def _functions(module: ModuleType) -> set[str]:
    found = inspect.getmembers(module, inspect.isfunction)
    return {
        name
        for name, function in found
        if not name.startswith("_") and function.__module__.startswith(module.__name__)
    }


def _methods(kind: type) -> set[str]:
    """The public methods of a kind of models, those of torch's modules left out."""
    return {
        name
        for name, _ in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and name not in dir(nn.Module)
    }


def test_every_public_entry_point_is_in_the_table() -> None:
    public = set().union(*map(_functions, (editing, evaluation, models)))
    kinds = [each for _, each in inspect.getmembers(models, inspect.isclass)]
    for kind in (LatentModel, DiffusionBased, *kinds):
        if issubclass(kind, LatentModel):
            public |= _methods(kind)
    inherited = {"arguments", "from_pretrained", "save_pretrained"}
    tried = {name for entry in ENTRIES.values() for name in entry.names}
    assert public - tried - WITHOUT_A_MODEL - ELSEWHERE.keys() - inherited == set()


# ------------------------------------------------------------------ the modes


@cache
def plain(family: str, entry: str, double: bool) -> Found:
    """The numbers outside of all modes."""
    return ENTRIES[entry](double_case(family) if double else case(family))


@cache
def double_case(family: str) -> Case:
    return case(family).double()


@contextmanager
def float32_noise() -> Iterator[None]:
    """All noise of the package is drawn in float32, and then cast to the type asked for."""
    kinds = random._drawing, random._shifting

    def cast(kind: Callable[..., Tensor], dtype: torch.dtype, device: torch.device) -> random.Draw:
        drawn = kinds[0](kind, torch.float32, device)
        return lambda shape, generator: drawn(shape, generator).to(dtype)

    def shifting(dtype: torch.dtype, device: torch.device) -> random.Draw:
        drawn = kinds[1](torch.float32, device)
        return lambda shape, generator: drawn(shape, generator).to(dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "_drawing", cast)
        patch.setattr(random, "_shifting", shifting)
        yield


def compiled(given: Case, backend: str) -> Case:
    """The same model with each of its networks compiled."""
    model = copy.deepcopy(given.model)
    for part in list(model.modules()):
        if isinstance(part, MLP | DenoisingMLP):
            part.compile(backend=backend)
    return replace(given, model=model)


def compare(found: Found, expected: Found, tolerance: float, whole: bool = True) -> None:
    """Require equal numbers, up to a part of the largest in each tensor."""
    pairs = [(name, found.rows[name], right) for name, right in expected.rows.items()]
    if whole:
        pairs += [(name, found.whole[name], right) for name, right in expected.whole.items()]
    assert pairs or not whole
    for name, value, right in pairs:
        largest = right[right.isfinite()].abs().max() if bool(right.isfinite().any()) else 1.0
        torch.testing.assert_close(
            value, right, rtol=tolerance, atol=tolerance * max(1.0, float(largest)),
            equal_nan=True, msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


def inference_mode(entry: Entry, given: Case, expected: Found) -> None:
    """Data and context made in inference mode, too."""
    with torch.inference_mode():
        context = None if given.context is None else given.context.clone()
        found = entry(replace(given, x=given.x.clone(), context=context))
    compare(found, expected, EQUAL)


def float64(entry: Entry, given: Case, expected: Found) -> None:
    with float32_noise():
        single, double = entry(given), entry(given.double())
    assert all(value.dtype is torch.float64 for value in double.rows.values())
    compare(double, single, REPLAYED)


def chunks(entry: Entry, given: Case, expected: Found) -> None:
    found = entry(replace(given, batch_size=2))
    compare(found, expected, EQUAL, whole=entry.keyed)


def shuffled(entry: Entry, given: Case, expected: Found) -> None:
    found = entry(given.part(PERMUTATION))
    back = PERMUTATION.argsort()
    compare(
        Found({name: value[back] for name, value in found.rows.items()}, found.whole),
        expected,
        EQUAL,
    )


def one_row(entry: Entry, given: Case, expected: Found) -> None:
    found = entry(given.part(slice(ROW, ROW + 1)))
    alone = {name: value[ROW : ROW + 1] for name, value in expected.rows.items()}
    compare(found, Found(alone), EQUAL, whole=False)


def training_mode(entry: Entry, given: Case, expected: Found) -> None:
    """Evaluation puts the model in evaluation mode, and back."""
    model = copy.deepcopy(given.model).train()
    compare(entry(replace(given, model=model)), expected, EQUAL)
    assert all(part.training for part in model.modules())


def aot_eager(entry: Entry, given: Case, expected: Found) -> None:
    compare(entry(compiled(given, "aot_eager")), expected, 10 * EQUAL)


def inductor(entry: Entry, given: Case, expected: Found) -> None:
    compare(entry(compiled(given, "inductor")), expected, REPLAYED)


MODES = (inference_mode, float64, chunks, shuffled, one_row, training_mode, aot_eager, inductor)
IN_FLOAT64 = (chunks, shuffled, one_row)
"""Modes in which float32 adds in another order: tried in float64, where that is far below ``EQUAL``."""
COMPILED = ("vae", "conditional diffusion")
"""Families whose compiled networks are tried by default."""


def _meant(entry: str, mode: Callable[..., None]) -> bool:
    """Whether the mode says anything of the entry."""
    if mode in (chunks, shuffled):
        return ENTRIES[entry].rowwise
    if mode is training_mode:
        return entry in EVALUATION - {"sample"}
    return mode not in (aot_eager, inductor) or entry != "save and load"


def _cases() -> Iterator[object]:
    for family in FAMILIES:
        for entry in ENTRIES:
            for mode in MODES:
                if not _meant(entry, mode) or ENTRIES[entry].wants(case(family)) is not None:
                    continue
                slow = mode is inductor or (mode is aot_eager and family not in COMPILED)
                marks = [pytest.mark.slow] if slow else []
                yield pytest.param(
                    family, entry, mode, marks=marks, id=f"{family}, {entry}, {mode.__name__}"
                )


@pytest.mark.parametrize(("family", "entry", "mode"), list(_cases()))
def test_an_entry_point_gives_its_numbers_in_every_mode(
    family: str, entry: str, mode: Callable[[Entry, Case, Found], None]
) -> None:
    double = mode in IN_FLOAT64
    given = double_case(family) if double else case(family)
    mode(ENTRIES[entry], given, plain(family, entry, double))


def _refused() -> Iterator[object]:
    for family in FAMILIES:
        for name, entry in ENTRIES.items():
            reason = entry.wants(case(family))
            if reason not in (None, ABSENT):
                yield pytest.param(family, name, reason, id=f"{family}, {name}")


@pytest.mark.parametrize(("family", "entry", "reason"), list(_refused()))
def test_an_entry_point_that_means_nothing_for_a_family_is_refused(
    family: str, entry: str, reason: str
) -> None:
    """In the project's grammar: what was got, what is expected, and what to do."""
    with pytest.raises(ValueError, match=reason) as caught:
        ENTRIES[entry](case(family))
    assert re.search(r"got .*; expected .*; .", str(caught.value), re.DOTALL)
