"""The fused log mass of a logistic's bin: its slopes, asked for once, twice and in batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from genmod.distributions.discretized import logistic_log_mass
from genmod.spec import Bins

BINS = Bins(5)
X = torch.arange(5).repeat(3)


def case() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    location = torch.randn(15, dtype=torch.float64, generator=generator)
    log_scale = torch.randn(15, dtype=torch.float64, generator=generator) - 1
    return location.requires_grad_(), log_scale.requires_grad_()


def log_mass(location: Tensor, log_scale: Tensor) -> Tensor:
    return logistic_log_mass(X, location, log_scale, BINS)


def test_the_mass_is_the_difference_of_two_sigmoids() -> None:
    location, log_scale = case()
    lower, upper = BINS.edges(X.double())
    scale = log_scale.exp()
    plain = ((upper - location) / scale).sigmoid() - ((lower - location) / scale).sigmoid()
    torch.testing.assert_close(log_mass(location, log_scale), plain.log())


def test_slopes_are_those_of_finite_differences() -> None:
    assert gradcheck(log_mass, case())


def test_slopes_of_slopes_too() -> None:
    """Consistent with the slopes they are taken of; those have a test of their own, below."""
    assert gradgradcheck(log_mass, case())


def test_slopes_that_can_be_differentiated_again_are_the_kept_ones() -> None:
    """Two routes to one gradient."""
    location, log_scale = case()
    total = log_mass(location, log_scale).sum()
    kept = torch.autograd.grad(total, (location, log_scale), retain_graph=True)
    again = torch.autograd.grad(total, (location, log_scale), create_graph=True)
    for one, other in zip(kept, again, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-12)


def test_the_value_does_not_depend_on_whether_slopes_are_kept() -> None:
    location, log_scale = case()
    with torch.no_grad():
        bare = log_mass(location, log_scale)
    torch.testing.assert_close(log_mass(location, log_scale).detach(), bare, rtol=0, atol=0)


@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_of_gradients_is_each_gradient(shared: bool) -> None:
    location, log_scale = (tensor.detach() for tensor in case())

    def total(location: Tensor, log_scale: Tensor) -> Tensor:
        return logistic_log_mass(X, location, log_scale, BINS).sum()

    locations = torch.stack([location, 2 * location])
    scales = log_scale if shared else torch.stack([log_scale, log_scale + 1])
    batched = torch.func.vmap(torch.func.grad(total), in_dims=(0, None if shared else 0))
    found = batched(locations, scales)
    for row in range(2):
        scale = log_scale if shared else scales[row]
        torch.testing.assert_close(found[row], torch.func.grad(total)(locations[row], scale))
