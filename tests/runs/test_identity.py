"""A run is identified by the value of every setting: with a shape or without, however deep."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from genmod.models import HVAE, VAE, Diffusion
from genmod.runs import changes, describe
from genmod.schedules import Cosine, LinearLogSNR


@dataclass(frozen=True)
class Mine:
    """Settings of a user's own."""

    scale: float
    weight: Callable[[Tensor], Tensor]


def sigmoid(x: Tensor) -> Tensor:
    """A function with a name."""
    return x.sigmoid()


def power(exponent: float) -> Callable[[Tensor], Tensor]:
    """A function that encloses a number."""
    return lambda x: x**exponent


def built(make: Callable[[], nn.Module]) -> object:
    """The description of a model whose weights depend on the seed alone, as a file has it."""
    torch.manual_seed(0)
    return json.loads(json.dumps(describe(make())))


BASES: dict[str, Callable[[], nn.Module]] = {
    "vae": lambda: VAE(3, latents=2, width=8),
    "diffusion": lambda: Diffusion(3, schedule=LinearLogSNR(4.0, -5.0), steps=10, width=8),
    "hvae": lambda: HVAE(3, latents=(4, 2), width=8),
}


@pytest.mark.parametrize("base", BASES)
def test_equal_settings_have_one_description(base: str) -> None:
    assert changes(built(BASES[base]), built(BASES[base])) == []


@pytest.mark.parametrize(
    ("base", "other", "named"),
    [
        ("vae", lambda: VAE(3, latents=2, width=8, dropout=0.1), "0.1"),
        ("vae", lambda: VAE(3, bins=5, latents=2, width=8), "bins"),
        ("vae", lambda: VAE(3, bins=5, latents=2, width=8), "5"),
        ("diffusion", lambda: Diffusion(3, schedule=Cosine(), steps=10, width=8), "Cosine"),
        (
            "diffusion",
            lambda: Diffusion(3, schedule=LinearLogSNR(4.5, -5.0), steps=10, width=8),
            "4.5 (there 4.0)",
        ),
        (
            "diffusion",
            lambda: Diffusion(3, schedule=LinearLogSNR(4.0, -5.0), steps=11, width=8),
            "steps 11 (there 10)",
        ),
        ("hvae", lambda: HVAE(3, latents=(4, 2), inference="top-down", width=8), "TopDown"),
    ],
)
def test_a_changed_setting_is_named_with_both_values(
    base: str, other: Callable[[], nn.Module], named: str
) -> None:
    found = changes(built(BASES[base]), built(other))
    assert found
    assert any(named in line for line in found), found


def test_functions_count_by_name_or_by_what_they_do_and_enclose() -> None:
    assert describe(sigmoid) == f"{__name__}.sigmoid"
    assert describe(power(2.0)) == describe(power(2.0))
    assert describe(power(2.0)) != describe(power(3.0))
    assert describe(lambda x: x + 1) != describe(lambda x: x + 2)
    assert describe(partial(sigmoid)) != describe(partial(power, 2.0))
    assert describe(Mine(1.0, power(2.0))) != describe(Mine(1.0, power(3.0)))
    assert describe(nn.Linear(2, 2).forward) != describe(nn.Linear(2, 3).forward)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, True),
        (0.1, 0.1 + 1e-16),
        (torch.float32, torch.float64),
        (torch.zeros(3), torch.zeros(3, dtype=torch.float64)),
        (torch.zeros(30), torch.zeros(30).index_fill(0, torch.tensor(3), 1e-30)),
        ({1, 2}, {1, 3}),
        ((1, (2, 3)), (1, (2, 4))),
        (VAE, HVAE),
        (math.inf, -math.inf),
    ],
)
def test_other_values_have_other_descriptions(one: object, other: object) -> None:
    def plain(value: object) -> object:
        return json.loads(json.dumps(describe(value)))

    assert changes(plain(one), plain(one)) == []
    assert changes(plain(one), plain(other))


def test_circles_and_shared_parts_end() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert describe(loop) == [{"same as": ""}]
    part = nn.Linear(2, 2)
    shared, apart = nn.Sequential(part, part), nn.Sequential(part, nn.Linear(2, 2))
    assert describe(shared) != describe(apart)


def test_a_missing_setting_is_named() -> None:
    assert changes({"a": 1}, {"b": 2}) == ["b 2 (there absent)", "a absent (there 1)"]
    assert changes({"a": math.nan}, {"a": math.nan}) == []
