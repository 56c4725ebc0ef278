"""float32 from std 1e-6 to 1e6: values and gradients against 80-digit arithmetic.

The tolerance is the rounding of the log ratio d of the stds, passed through the formula; nothing
else may be lost, however far apart or close together the Gaussians are.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from genmod import gaussian
from genmod.gaussian.diagonal import product_log_std
from genmod.gaussian.full import wasserstein_squared_full
from genmod.gaussian.kernels import kl_log_std
from tests.gaussian.cases import PROFILE, generator, seeds, tril_from, vector

EPS = Decimal(torch.finfo(torch.float32).eps)
TINY = Decimal("1e-37")  # below this float32 itself is coarser than its eps
LOWEST, HIGHEST = math.log(1e-6), math.log(1e6)

log_stds = st.floats(math.ceil(LOWEST), math.floor(HIGHEST), width=32)
stds = st.floats(-6, 6).map(lambda power: 10.0**power)
means = st.floats(-1e6, 1e6, width=32)
gaps = st.floats(-23, -1).flatmap(lambda power: st.sampled_from([2.0**power, -(2.0**power)]))


def single(*values: float) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float32, requires_grad=True) for value in values]


def exactly(value: Tensor) -> Decimal:
    return Decimal(value.item())


def assert_kl(
    nats: Tensor, means_of: list[Tensor], log_std_q: Decimal, log_std_p: Decimal, blur: Decimal
) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Check the nats; return growth, its error, delta, and the slope in the mean."""
    log_ratio = log_std_q - log_std_p
    delta = (exactly(means_of[0]) - exactly(means_of[1])) * (-log_std_p).exp()
    growth = (2 * log_ratio).exp() - 1
    truth = (growth - 2 * log_ratio + delta * delta) / 2
    error = abs(growth) * (blur + EPS) + 6 * EPS * (truth + delta * delta)
    assert abs(exactly(nats) - truth) <= 2 * error + TINY
    growth_error = 2 * (1 + abs(growth)) * blur + 3 * EPS * abs(growth)
    return growth, growth_error, delta, delta * (-log_std_p).exp()


def assert_gradient(got: Tensor | None, truth: Decimal, error: Decimal) -> None:
    assert got is not None
    assert abs(exactly(got) - truth) <= 2 * error + TINY


@PROFILE
@given(means, log_stds, means, log_stds)
@example(0.0, 1e-8, 0.0, 0.0)
@example(1e6, 13.0, -1e6, -13.0)
@example(0.0, -13.0, 0.0, 13.0)
def test_kl_log_std_and_its_gradient_at_extremes(a: float, b: float, c: float, d: float) -> None:
    """Without expm1, the plain exp(2 d) - 1 - 2 d fails here at d = 1e-8."""
    mean_q, log_std_q, mean_p, log_std_p = inputs = single(a, b, c, d)
    nats = kl_log_std(*inputs)
    nats.backward()
    with localcontext(prec=80):
        q, p = exactly(log_std_q), exactly(log_std_p)
        growth, blur, delta, slope = assert_kl(nats, [mean_q, mean_p], q, p, EPS * abs(q - p))
        assert_gradient(mean_q.grad, slope, 6 * EPS * abs(slope))
        assert_gradient(mean_p.grad, -slope, 6 * EPS * abs(slope))
        assert_gradient(log_std_q.grad, growth, blur)
        square = delta * delta
        assert_gradient(log_std_p.grad, -growth - square, blur + 9 * EPS * square)


@PROFILE
@given(log_stds, gaps, gaps)
def test_kl_of_gaussians_that_nearly_agree(a: float, shift: float, gap: float) -> None:
    """The plain formula is off by 1e-7, which is all there is at a log ratio of 3e-4."""
    mean_q, log_std_q = single(0.0, a)
    mean_p = (shift * log_std_q.exp()).detach()
    log_std_p = (log_std_q + gap).detach()
    nats = kl_log_std(mean_q, log_std_q, mean_p, log_std_p)
    with localcontext(prec=80):
        q, p = exactly(log_std_q), exactly(log_std_p)
        assert_kl(nats, [mean_q, mean_p], q, p, EPS * abs(q - p))


@PROFILE
@given(stds, gaps, gaps)
@example(1e6, 2.0**-12, 1e-3)
@example(1.3e-6, 2.0**-12, -1e-3)
def test_kl_of_stds_that_nearly_agree(a: float, shift: float, gap: float) -> None:
    mean_q, std_q, mean_p, std_p = single(0.0, a, shift * a, (1 + gap) * a)
    nats = gaussian.kl(mean_q, std_q, mean_p, std_p)
    with localcontext(prec=80):
        q, p = exactly(std_q).ln(), exactly(std_p).ln()
        assert_kl(nats, [mean_q, mean_p], q, p, 3 * EPS * abs(q - p))


@PROFILE
@given(means, stds, means, stds)
@example(1e6, 1e-6, -1e6, 1e-6)
@example(0.0, 1e-6, 0.0, 1e6)
@example(0.0, 1e6, 0.0, 1e-6)
def test_kl_of_stds_and_its_gradient_at_extremes(a: float, b: float, c: float, d: float) -> None:
    """Where log1p alone is asked for log 0, or the square of a precision overflows."""
    mean_q, std_q, mean_p, std_p = inputs = single(a, b, c, d)
    nats = gaussian.kl(*inputs)
    nats.backward()
    with localcontext(prec=80):
        q, p = exactly(std_q).ln(), exactly(std_p).ln()
        blur = 3 * EPS * (abs(q) + abs(p) + abs(q - p))
        growth, error, delta, slope = assert_kl(nats, [mean_q, mean_p], q, p, blur)
        assert_gradient(mean_q.grad, slope, 6 * EPS * abs(slope))
        error += 9 * EPS * abs(growth)
        assert_gradient(std_q.grad, growth / exactly(std_q), error / exactly(std_q))
        square = delta * delta
        truth = (-growth - square) / exactly(std_p)
        assert_gradient(std_p.grad, truth, (error + 9 * EPS * square) / exactly(std_p))


@PROFILE
@given(means, log_stds, means, log_stds)
@example(1e6, 13.0, 1.0, -13.0)
def test_the_product_at_extremes(a: float, b: float, c: float, d: float) -> None:
    """With 1 - w for the second weight, a log ratio of 14 loses the second mean."""
    inputs = single(a, b, c, d)
    mean, log_std = product_log_std(*inputs)
    stds_of = [value.exp().detach() for value in inputs[1::2]]
    by_std = gaussian.product(inputs[0], stds_of[0], inputs[2], stds_of[1])
    (mean + log_std + by_std[0] + by_std[1]).backward()
    assert all(value.grad is not None and value.grad.isfinite() for value in inputs)
    with localcontext(prec=80):
        values = [exactly(value) for value in inputs]
        blur = 2 * EPS * (1 + abs(values[1] - values[3]))
        log_blur = 2 * EPS * (1 + abs(values[1]) + abs(values[3]))
        check_product(mean, log_std, values, blur, log_blur)
        values[1::2] = [exactly(std).ln() for std in stds_of]
        with localcontext(prec=80):
            logs = exactly(by_std[1]).ln()
        check_product(by_std[0], logs, values, 6 * EPS, 6 * EPS)


def check_product(
    mean: Tensor, log_std: Tensor | Decimal, values: list[Decimal], blur: Decimal, log_blur: Decimal
) -> None:
    mean_1, log_std_1, mean_2, log_std_2 = values
    weights = [(-2 * log_std_1).exp(), (-2 * log_std_2).exp()]
    total = weights[0] + weights[1]
    parts = [weights[0] * mean_1 / total, weights[1] * mean_2 / total]
    assert abs(exactly(mean) - sum(parts)) <= 2 * blur * sum(map(abs, parts)) + TINY
    got = log_std if isinstance(log_std, Decimal) else exactly(log_std)
    assert abs(got + total.ln() / 2) <= log_blur


@PROFILE
@given(seeds)
def test_full_covariances_at_extremes(seed: int) -> None:
    """Each row of a factor has a scale of its own, from 1e-6 to 1e6."""
    draw = generator(seed)
    scales = 10 ** (12 * torch.rand(2, 3, 1, generator=draw, dtype=torch.float64) - 6)
    factors = (tril_from(0.3 * vector(draw, 2, 3, 3)) * scales).float()
    centers = (vector(draw, 2, 3) * scales.squeeze(-1)).float()
    (mean_q, mean_p), (tril_q, tril_p) = centers, factors.requires_grad_().unbind()
    for distance in (gaussian.kl_full, wasserstein_squared_full):
        got = distance(mean_q, tril_q, mean_p, tril_p)
        truth = distance(*(value.double() for value in (mean_q, tril_q, mean_p, tril_p)))
        assert float(got.detach()) >= 0
        torch.testing.assert_close(got.double(), truth, rtol=2e-5, atol=0)
        (slope,) = torch.autograd.grad(got, factors)
        assert bool(slope.isfinite().all())


@PROFILE
@given(seeds, st.floats(-9, -3))
def test_full_kl_near_equality_does_not_cancel(seed: int, power: float) -> None:
    """In float64 the trace formula is off by 1e-16, all there is at a perturbation of 1e-8."""
    draw = generator(seed)
    tril = tril_from(0.3 * vector(draw, 3, 3))
    step = 10**power * vector(draw, 3, 3).tril()
    mean = vector(draw, 3)
    nats = gaussian.kl_full(mean, tril + step, mean, tril)
    inverse = torch.linalg.solve_triangular(tril, (tril + step) - tril, upper=False)
    second_order = inverse.diagonal().square().sum() + 0.5 * inverse.tril(-1).square().sum()
    third_order = 2 * float(inverse.diagonal().abs().max())
    torch.testing.assert_close(nats, second_order, rtol=third_order + 1e-6, atol=0)
