"""The continuous Bernoulli: a density on [0, 1], from flat to steeper than floating point."""

from __future__ import annotations

import pytest
import torch

from genmod.distributions.reals import ContinuousBernoulli
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

LOGITS = torch.tensor(
    [-60.0, -5.0, -0.61, -0.59, -1e-3, 0.0, 1e-9, 0.3, 0.599, 0.601, 2.0, 40.0], dtype=torch.float64
)


def test_it_integrates_to_one_and_has_its_mean() -> None:
    """By Gauss-Legendre, at log-odds on both sides of where the series ends."""
    import numpy as np

    nodes, weights = (torch.as_tensor(each) for each in np.polynomial.legendre.leggauss(200))
    x, w = (nodes + 1) / 2, weights / 2
    law = ContinuousBernoulli(LOGITS[None].expand(200, -1))
    density = law.elementwise(x[:, None].expand(200, len(LOGITS))).exp()
    ones = torch.ones(len(LOGITS))
    torch.testing.assert_close((w[:, None] * density).sum(0), ones, rtol=1e-10, atol=0)
    mean = (w[:, None] * x[:, None] * density).sum(0)
    torch.testing.assert_close(law.mean[0], mean, rtol=1e-8, atol=1e-10)


def test_it_is_the_one_of_torch() -> None:
    """Away from log-odds near zero, where torch takes a shorter series."""
    logits = torch.tensor([[-9.0, -2.0, 1.5, 6.0]])
    x = torch.rand(50, 4)
    expected = torch.distributions.ContinuousBernoulli(logits=logits).log_prob(x)
    found = ContinuousBernoulli(logits.expand(50, 4)).elementwise(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_slope_is_x_less_the_mean_however_steep(dtype: torch.dtype) -> None:
    """An exponential family: d log p / d logits = x - mean; e^89 overflows float32."""
    logits = torch.tensor([[-1e4, -300.0, -0.2, 0.0, 0.7, 95.0, 1e6]], dtype=dtype)
    logits.requires_grad_()
    law = ContinuousBernoulli(logits)
    x = torch.full_like(logits, 0.3)
    (slope,) = torch.autograd.grad(law.elementwise(x).sum(), logits)
    torch.testing.assert_close(slope, x - law.mean.detach(), rtol=1e-5, atol=1e-6)
    drawn = law.sample()
    assert bool(drawn.isfinite().all() & (drawn >= 0).all() & (drawn <= 1).all())


def test_its_draws_have_its_mean_and_are_reparameterized() -> None:
    logits = torch.tensor([-4.0, 0.0, 1e-4, 0.5, 9.0])
    law = ContinuousBernoulli(logits.expand(20000, 5))
    drawn = law.sample()
    for place in range(5):
        assert_mean(drawn[:, place], law.mean[0, place], name=str(float(logits[place])))
    # The mean of the draws' slopes is the slope of the mean.
    for value in (-3.0, 0.01, 2.0):
        one = torch.full((20000, 1), value, requires_grad=True)
        (slopes,) = torch.autograd.grad(ContinuousBernoulli(one).rsample().sum(), one)
        step = 1e-5
        ends = (ContinuousBernoulli(torch.tensor([[value + s]])).mean for s in (step, -step))
        high, low = (float(end) for end in ends)
        assert_mean(slopes[:, 0], (high - low) / (2 * step), name=str(value))
