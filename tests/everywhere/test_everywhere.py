"""Every public entry point of every model family gives one number in every mode it may be called in."""

from __future__ import annotations

import copy
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from types import ModuleType

import pytest
import torch
import torch._dynamo
import torch._functorch.config
import torch._inductor.config
from torch import Tensor, nn

from genmod import editing, evaluation, models, random
from genmod.diffusion.noising import NoisingPosterior
from genmod.model import LatentModel
from genmod.models.sampling import DiffusionBased
from genmod.random import streams
from genmod.random.streams import Draw
from genmod.tensors import Shape
from genmod.training import fit
from tests.everywhere.families import FAMILIES, Case, case
from tests.everywhere.found import Found
from tests.everywhere.table import (
    ABSENT,
    ELSEWHERE,
    ENTRIES,
    WITHOUT_A_MODEL,
)

EQUAL = 1e-6
"""Relative: the same numbers in another order of additions."""
REPLAYED = 1e-4
"""Relative: float32 beside float64 on the same noise."""
PERMUTATION = torch.tensor([3, 0, 4, 1, 2])
ROW = 2


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
    public |= _methods(DiffusionBased)
    for _, kind in inspect.getmembers(models, inspect.isclass):
        if issubclass(kind, LatentModel):
            public |= _methods(kind)
    inherited = {"arguments", "from_pretrained", "push_to_hub", "save_pretrained"}
    tried = {name for entry in ENTRIES.values() for name in entry.names}
    assert public - tried - WITHOUT_A_MODEL - ELSEWHERE.keys() - inherited == set()


# ------------------------------------------------------------------ the modes


@pytest.fixture(autouse=True)
def _float32_noise(monkeypatch: pytest.MonkeyPatch, as_users_run: None) -> None:
    """All noise is drawn in float32, and then cast to the type asked for. No checks of shapes: faster."""
    kinds = streams._drawing, streams._shifting

    def in_type(drawn: Draw, dtype: torch.dtype) -> Draw:
        def cast(shape: Shape, generator: torch.Generator | None) -> Tensor:
            return drawn(shape, generator).to(dtype)

        return cast

    def cast(kind: Callable[..., Tensor], dtype: torch.dtype, device: torch.device) -> Draw:
        drawn = kinds[0](kind, torch.float32, device)
        return in_type(drawn, dtype)

    def shifting(dtype: torch.dtype, device: torch.device) -> Draw:
        drawn = kinds[1](torch.float32, device)
        return in_type(drawn, dtype)

    monkeypatch.setattr(streams, "_drawing", cast)
    monkeypatch.setattr(streams, "_shifting", shifting)


@cache
def plain(family: str, name: str, double: bool = False) -> Found:
    """The numbers outside of all modes."""
    return ENTRIES[name](double_case(family) if double else case(family))


@cache
def double_case(family: str) -> Case:
    """A family's case in float64."""
    return case(family).double()


@cache
def compiled(family: str, backend: str) -> Case:
    """A family's case with its networks compiled, once for all entries."""
    torch.compiler.reset()
    return case(family).compiled(backend)


def compare(found: Found, expected: Found, tolerance: float, whole: bool = True) -> None:
    """Require equal numbers, up to a part of the largest in each tensor."""
    pairs = [(name, found.rows[name], right) for name, right in expected.rows.items()]
    if whole:
        pairs += [(name, found.whole[name], right) for name, right in expected.whole.items()]
    assert pairs or not whole
    for name, value, right in pairs:
        assert value.shape == right.shape, name
        known = right[right.isfinite()].abs()
        largest = max(1.0, float(known.max()) if len(known) else 1.0)
        atol = tolerance * largest
        torch.testing.assert_close(value, right, rtol=tolerance, atol=atol, equal_nan=True)


# Float32 adds up in another order where rows come in other batches. These modes are tried in float64, where
# that is far below EQUAL.


def inference_mode(family: str, name: str) -> None:
    """Data and context made in inference mode, too."""
    given = case(family)
    with torch.inference_mode():
        context = None if given.context is None else given.context.clone()
        found = ENTRIES[name](replace(given, x=given.x.clone(), context=context))
    compare(found, plain(family, name), EQUAL)


def float64(family: str, name: str) -> None:
    """Beside float32 on the same noise."""
    compare(plain(family, name), plain(family, name, double=True), REPLAYED)


def pieces(family: str, name: str) -> None:
    """In another order, and two rows at a time."""
    entry = ENTRIES[name]
    found = entry(replace(double_case(family).part(PERMUTATION), batch_size=2))
    back = PERMUTATION.argsort()
    found.rows = {key: value[back] for key, value in found.rows.items()}
    compare(found, plain(family, name, double=True), EQUAL, whole=entry.keyed)


def one_row(family: str, name: str) -> None:
    """A row alone; of what is no row's, that it can be computed."""
    only = slice(ROW, ROW + 1)
    found = ENTRIES[name](double_case(family).part(only))
    rows = plain(family, name, double=True).rows if ENTRIES[name].alone else {}
    compare(found, Found({key: value[only] for key, value in rows.items()}), EQUAL, whole=False)


def training_mode(family: str, name: str) -> None:
    """Evaluation puts the model in evaluation mode, and back."""
    given = case(family)
    model = copy.deepcopy(given.model).train()
    compare(ENTRIES[name](replace(given, model=model)), plain(family, name), EQUAL)
    assert all(part.training for part in model.modules())


def aot_eager(family: str, name: str) -> None:
    """Networks compiled by torch.compile without new kernels."""
    with compiling():
        compare(ENTRIES[name](compiled(family, "aot_eager")), plain(family, name), 10 * EQUAL)


def inductor(family: str, name: str) -> None:
    """Networks compiled as torch.compile does by default, with torch's own numbers in dropout."""
    with compiling(), torch._inductor.config.patch(fallback_random=True):
        compare(ENTRIES[name](compiled(family, "inductor")), plain(family, name), REPLAYED)


@contextmanager
def compiling() -> Iterator[None]:
    """A network that is traced too often is an error: it would go back to eager without a word.

    All networks of a family share one limit, and entries that train copies trace each copy anew: up to
    about 100 times in both backends together.
    """
    limits = torch._dynamo.config.patch(recompile_limit=256, fail_on_recompile_limit_hit=True)
    # A divergence takes several backward passes through one forward pass. Compiled networks that give
    # their buffers away after one raise an error of torch's, which names this setting.
    kept = torch._functorch.config.patch(donated_buffer=False)
    with limits, kept, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


MODES = (inference_mode, float64, pieces, one_row, training_mode, aot_eager, inductor)
COMPILED = {"vae": ("elbo", "fit"), "conditional diffusion": ("sample",)}
"""The entry points that are tried with compiled networks by default, of two families."""
SLOW = (
    "vae of reals",
    "conditional vae",
    "conditional hierarchy",
    "conditional very deep hierarchy",
    "vae under a vampprior",
    "learned variance",
    "conditional latent diffusion",
)
"""Families tried by default in inference mode alone: their parts are in others."""
PARTLY = ("flows", "full covariance and mixture", "ladder", "learned encoder", "very deep")
"""Families tried by default in inference mode and in pieces: others have their networks in every mode."""


def _meant(name: str, mode: Callable[[str, str], None]) -> bool:
    """Whether the mode applies to the entry."""
    entry = ENTRIES[name]
    if mode is pieces:
        return entry.rowwise
    if mode is training_mode:
        return entry.keyed and entry.rowwise and name != "sample"
    return mode not in (aot_eager, inductor) or name != "save and load"


def _slow(family: str, name: str, mode: Callable[[str, str], None]) -> bool:
    if mode is aot_eager:
        return name not in COMPILED.get(family, ())
    if family in PARTLY and mode is not pieces:
        return mode is not inference_mode
    return mode is inductor or (family in SLOW and mode is not inference_mode)


def _cases() -> Iterator[object]:
    for family in FAMILIES:
        for name, entry in ENTRIES.items():
            if entry.wants(case(family)) is not None:
                continue
            for mode in MODES:
                if not _meant(name, mode):
                    continue
                marks = [pytest.mark.slow] if _slow(family, name, mode) else []
                told = f"{family}, {name}, {mode.__name__}"
                yield pytest.param(family, name, mode, marks=marks, id=told)


@pytest.mark.parametrize(("family", "name", "mode"), list(_cases()))
def test_an_entry_point_gives_its_numbers_in_every_mode(
    family: str, name: str, mode: Callable[[str, str], None]
) -> None:
    mode(family, name)


def _refused() -> Iterator[object]:
    for family in FAMILIES:
        for name, entry in ENTRIES.items():
            reason = entry.wants(case(family))
            if reason not in (None, ABSENT):
                yield pytest.param(family, name, reason, id=f"{family}, {name}")


@pytest.mark.parametrize(("family", "entry", "reason"), list(_refused()))
def test_an_entry_point_without_a_meaning_for_a_family_is_refused(
    family: str, entry: str, reason: str
) -> None:
    """In the project's grammar: what was got, what is expected, and what to do."""
    with pytest.raises(ValueError, match=reason) as caught:
        ENTRIES[entry](case(family))
    assert re.search(r"got .*; expected .*; .", str(caught.value), re.DOTALL)


def test_a_model_made_in_inference_mode_is_not_trained() -> None:
    with torch.inference_mode():
        model = FAMILIES["vae of reals"]()
        with pytest.raises(ValueError, match=r"made in torch.inference_mode.*expected.*outside"):
            fit(model, case("vae of reals").x, steps=1, progress=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_data_made_in_inference_mode_are_data_like_others(family: str) -> None:
    """Autograd would refuse them: a bound has its gradient, and a model is trained on them."""
    given = case(family)
    with torch.inference_mode():
        context = None if given.context is None else given.context.clone()
        x, seen = given.x.clone(), torch.ones_like(given.x, dtype=torch.bool)
    assert x.is_inference()
    made = replace(given, model=given.copied(), x=x, context=context)
    with random.keyed(0, ids=given.ids):
        made.model.elbo(x, context=context, observed=seen).value.sum().backward()
    assert any(parameter.grad is not None for parameter in made.model.parameters())
    with torch.no_grad():
        compare(ENTRIES["fit"](made), plain(family, "fit"), EQUAL)


def test_data_on_a_double_diffusion_are_noised_in_float64() -> None:
    """Not in the default type, which the fixed encoder by itself would give integers."""
    given = double_case("diffusion")
    q = given.model.posterior(given.x)
    assert isinstance(q, NoisingPosterior)
    assert q.x.dtype is torch.float64
