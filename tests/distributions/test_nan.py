"""Integers are never drawn from NaN: rounding and comparing would turn it into a plausible value."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod.checks import trusted
from genmod.distributions import (
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
)
from genmod.distributions.base import Factorized
from genmod.distributions.discretized_normal import DiscretizedNormal
from genmod.distributions.mixtures import DiscretizedMixture
from genmod.spec import Bins

NONE = torch.zeros(3, 2)
BINS = Bins(5)
LAWS: dict[str, Callable[[Tensor], Factorized]] = {
    "Bernoulli": Bernoulli,
    "Categorical": lambda x: Categorical(torch.stack([x, NONE], -1)),
    "logistic, location": lambda x: DiscretizedLogistic(x, NONE, BINS),
    "logistic, scale": lambda x: DiscretizedLogistic(NONE, x, BINS),
    "normal, location": lambda x: DiscretizedNormal(x, NONE, BINS),
    "normal, scale": lambda x: DiscretizedNormal(NONE, x, BINS),
    "mixture, weight": lambda x: DiscretizedMixture(_two(x), _two(NONE), _two(NONE), BINS),
    "mixture, location": lambda x: DiscretizedMixture(_two(NONE), _two(x), _two(NONE), BINS),
    "mixture, scale": lambda x: DiscretizedMixture(_two(NONE), _two(NONE), _two(x), BINS),
}


def _two(x: Tensor) -> Tensor:
    """Two components, the second without fault."""
    return torch.stack([x, NONE], 1)


@pytest.mark.parametrize("name", LAWS)
def test_nan_parameters_are_refused(name: str) -> None:
    """One of them is enough."""
    x = NONE.clone()
    x[1, 0] = math.nan
    with pytest.raises(ValueError, match="that are NaN; expected parameters without NaN"):
        LAWS[name](x).sample()
    assert LAWS[name](NONE).sample().shape == NONE.shape


@pytest.mark.parametrize("sign", [-1, 1])
def test_infinite_logits_are_certain(sign: int) -> None:
    certain = torch.full((3, 2), sign * math.inf)
    expected = (certain > 0).long()
    assert torch.equal(Bernoulli(certain).sample(), expected)
    assert torch.equal(Categorical(torch.stack([NONE, certain], -1)).sample(), expected)


def test_parameters_are_not_read_where_they_are_trusted() -> None:
    with trusted():
        assert Bernoulli(torch.full((3, 2), math.nan)).sample().shape == NONE.shape
