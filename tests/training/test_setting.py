"""The value of a setting as plain data: equal values are equal, others differ, whatever the kind."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from genmod.models import HVAE, VAE
from genmod.schedules import LinearLogSNR
from genmod.training.identity import changes, refuse_changes, setting


@dataclass(frozen=True)
class Mine:
    """Settings of a user's own."""

    scale: float
    size: tuple[int, ...] = (1, 2)


class Jitter:
    """A transform of a user's own, neither a dataclass nor registered."""

    def __init__(self, scale: float) -> None:
        self.scale = scale


def power(exponent: float) -> Callable[[float], float]:
    """A function without a name of its own."""
    return lambda x: x**exponent


def plain(value: object) -> dict[str, object]:
    """A setting as a file gives it back."""
    found: dict[str, object] = json.loads(json.dumps({"": setting(value)}))
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, True),
        (0.1, 0.1 + 1e-16),
        (math.inf, -math.inf),
        (torch.float32, torch.float64),
        (torch.zeros(3), torch.zeros(3, dtype=torch.float64)),
        (torch.zeros(30), torch.zeros(30).index_fill(0, torch.tensor(3), 1e-30)),
        ({1, 2}, {1, 3}),
        ((1, (2, 3)), (1, (2, 4))),
        ([{"a": 1}], [{"a": 2}]),
        (Path("a"), Path("b")),
        (b"a", b"b"),
        (VAE, HVAE),
        (torch.sigmoid, torch.tanh),
        (Mine(1.0), Mine(2.0)),
        (Mine(1.0), Mine(1.0, (1, 3))),
        (Jitter(1.0), Jitter(2.0)),
        (LinearLogSNR(2.0, -6.0), LinearLogSNR(2.0, -5.0)),
        (nn.Linear(2, 2), nn.Linear(2, 3)),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        (torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, 2.0)),
    ],
)
def test_other_values_are_other_settings(one: object, other: object) -> None:
    assert changes(plain(one), plain(one)) == []
    assert changes(plain(one), plain(other))


@pytest.mark.parametrize("function", [power(2.0), partial(math.pow, 2.0)])
def test_a_function_that_its_name_does_not_identify_is_refused(function: object) -> None:
    with pytest.raises(ValueError, match=r"genmod\.register, or train without a checkpoint"):
        setting(function)


def test_each_change_is_named_with_both_values() -> None:
    assert changes({"a": 1}, {"b": 2}) == ["b (- in the file, now 2)", "a (1 in the file, now -)"]
    assert changes({"a": math.nan}, {"a": math.nan}) == []
    assert changes({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}) == [
        "a.1.b (2 in the file, now 3)"
    ]
    many = {f"s{number}": number for number in range(9)}
    with pytest.raises(ValueError, match=r"a run made with other settings: s0 .*, and 3 more;"):
        refuse_changes(dict.fromkeys(many, -1), many, "a run", "use them")
