"""``expm1`` and ``log1p`` of vectorized operations, against NumPy in extended precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from genmod.distributions import Bernoulli
from genmod.distributions.discretized import logistic_log_mass
from genmod.gaussian.kernels import kl_standard_log_std
from genmod.spec import Bins
from genmod.tensors import Shape, constant, expm1, log1p_
from genmod.training.optimizer import clip_gradients

SIZES = torch.logspace(-30, 1.9, 4001, dtype=torch.float64)
SMALL = torch.logspace(-30, 0.5, 4001, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_accurate_to_a_few_units_in_the_last_place(dtype: torch.dtype) -> None:
    both = torch.cat([-SIZES, SIZES]).to(dtype)
    small = SMALL.to(dtype)
    wide, thin = both.numpy().astype(np.longdouble), small.numpy().astype(np.longdouble)
    pairs = [
        (expm1(both), np.expm1(wide)),
        (log1p_(small.clone()), np.log1p(thin)),
    ]
    for found, wanted in pairs:
        normal = np.abs(wanted) > 1e-30
        error = np.abs(found.numpy()[normal] - wanted[normal]) / np.abs(wanted[normal])
        assert error.max() < 3 * torch.finfo(dtype).eps


def test_their_ends_are_exact() -> None:
    ends = torch.tensor([0.0, -1e4, 1e4])
    assert expm1(ends).tolist() == [0.0, -1.0, float("inf")]
    assert log1p_(torch.zeros(1)).tolist() == [0.0]


def test_the_mass_of_a_bit_and_its_slopes_are_those_of_torch() -> None:
    logits = torch.randn(50, 3, dtype=torch.float64).mul_(20).requires_grad_()
    bits = torch.rand(50, 3, dtype=torch.float64)
    ours = Bernoulli(logits).elementwise(bits)
    plain = -F.binary_cross_entropy_with_logits(logits, bits, reduction="none")
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-14)
    (slope,) = torch.autograd.grad(ours.sum(), logits, create_graph=True)
    (other,) = torch.autograd.grad(plain.sum(), logits, create_graph=True)
    torch.testing.assert_close(slope, other)
    again = [torch.autograd.grad(each.square().sum(), logits)[0] for each in (slope, other)]
    torch.testing.assert_close(*again)


@pytest.mark.parametrize("largest", [0.5, 100.0, float("inf")])
def test_gradients_are_clipped_as_torch_clips_them(largest: float) -> None:
    ours = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 5, 1)]
    theirs = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 5, 1)]
    for one, two in zip(ours[:2], theirs[:2], strict=True):
        one.grad = torch.randn_like(one)
        two.grad = one.grad.clone()
    norm = torch.nn.utils.clip_grad_norm_(theirs, largest)
    assert torch.equal(clip_gradients(ours, largest), norm)
    for one, two in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=0)


def _mass(location: Tensor, log_scale: Tensor) -> Tensor:
    x = torch.arange(location.numel()).reshape(location.shape) % 17
    return logistic_log_mass(x, location, log_scale, Bins(17))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shared", [(1, 1, 1), (1, 3, 1), (5, 1, 1)], ids=str)
@pytest.mark.parametrize("function", [_mass, kl_standard_log_std])
def test_a_shared_scale_gives_the_numbers_of_equal_scales(
    function: Callable[[Tensor, Tensor], Tensor], shared: Shape, dtype: torch.dtype
) -> None:
    """What depends on the scale alone is computed at its own size; no bit changes, of gradients too."""
    whole = (5, 3, 7)
    location = torch.randn(whole, dtype=dtype, requires_grad=True)
    scale = torch.randn(shared, dtype=dtype, requires_grad=True)
    equal = scale.detach().expand(whole).clone().requires_grad_()
    short, long = function(location, scale.expand(whole)), function(location, equal)
    assert torch.equal(short, long)
    given = torch.randn(whole, dtype=dtype)
    by_short = torch.autograd.grad(short, (location, scale), given)
    by_long = torch.autograd.grad(long, (location, equal), given)
    assert torch.equal(by_short[0], by_long[0])
    torch.testing.assert_close(by_short[1], by_long[1].sum_to_size(shared))
    first = scale.expand(whole)[0]
    mapped = torch.func.vmap(function, in_dims=(0, None))(location, first)
    assert torch.equal(mapped, torch.stack([function(each, first) for each in location]))


def test_a_constant_has_the_number_of_a_parameter() -> None:
    mean, log_std = torch.randn(2, 5, 3)
    learned = kl_standard_log_std(mean.clone().requires_grad_(), log_std)
    plain = kl_standard_log_std(mean, log_std)
    assert learned.requires_grad
    assert not plain.requires_grad
    assert torch.equal(plain, learned)
    assert constant(plain) is plain
    assert torch.equal(constant(learned), plain)
    assert not constant(learned).requires_grad


@pytest.mark.filterwarnings("ignore:.torch.jit:")  # torch's own, at its first forward derivative
def test_every_kind_of_derivative_of_the_kl_is_that_of_the_formula() -> None:
    mean, log_std, *tangents = torch.randn(4, 5, 3)
    slope = torch.expm1(2 * log_std)
    wanted = mean * tangents[0] + slope * tangents[1]

    def mapped(rows: Tensor) -> Tensor:
        return torch.func.vmap(lambda each: kl_standard_log_std(mean[0], each).sum())(rows).sum()

    forward = torch.func.jvp(kl_standard_log_std, (mean, log_std), tuple(tangents))[1]
    torch.testing.assert_close(forward, wanted)
    torch.testing.assert_close(torch.func.grad(mapped)(log_std), slope)
    with forward_ad.dual_level():
        pairs = zip((mean, log_std), tangents, strict=True)
        dual = kl_standard_log_std(*(forward_ad.make_dual(*pair) for pair in pairs))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, wanted)
