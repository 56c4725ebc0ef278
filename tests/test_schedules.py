r"""Schedules: one decreasing log-SNR, and everything that follows from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genmod.diffusion import NoisingEncoder
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR, Schedule, Table
from tests.oracles import F64, RectifiedFlow, VarianceExploding, condition, real

SCHEDULES: list[Schedule] = [
    LinearLogSNR(),
    LinearLogSNR(4.0, -8.0),
    Cosine(),
    Cosine(0.008, 9.0, -9.0),
    LinearBeta(1000),
    LinearBeta(7, 1e-3, 0.6),
    Table(real(8.0, 2.0, 1.5, -6.0)),
    VarianceExploding(LinearLogSNR()),
    RectifiedFlow(Cosine()),
]
TIMES = torch.linspace(0.0031, 0.9967, 57, dtype=F64)

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
fractions = st.floats(0, 1)


def test_the_lectures_cosine_is_the_cosine_of_an_angle() -> None:
    """Offset 0: ``alpha_u = cos(pi u / 2)``, ``sigma_u = sin(pi u / 2)``, ``u`` linear in ``t``."""
    schedule = Cosine()
    alpha, sigma = schedule.scales(TIMES)
    (first, last), _ = schedule.scales(real(0.0, 1.0))
    angle = torch.acos(first) + (torch.acos(last) - torch.acos(first)) * TIMES
    torch.testing.assert_close(alpha, angle.cos(), rtol=1e-11, atol=0)
    torch.testing.assert_close(sigma, angle.sin(), rtol=1e-11, atol=0)


@pytest.mark.parametrize("steps", [2, 10, 1000])
def test_linear_betas_give_the_cumulative_product(steps: int) -> None:
    """The lecture's table: ``alpha_i^2`` at ``t = (i - 1) / (T - 1)`` is ``prod (1 - beta)``."""
    betas = np.linspace(1e-4, 0.02, steps)
    alpha_bar = torch.from_numpy(np.cumprod(1 - betas))
    alpha, sigma = LinearBeta(steps).scales(torch.linspace(0, 1, steps, dtype=F64))
    torch.testing.assert_close(alpha.square(), alpha_bar, rtol=1e-12, atol=0)
    torch.testing.assert_close(sigma.square(), 1 - alpha_bar, rtol=1e-11, atol=0)


def test_forward_marginals_equal_step_by_step_noising() -> None:
    r"""The lecture's induction: mean and variance of ``x_i`` after ``i`` steps of
    :math:`x_i = \sqrt{1 - \beta_i}\, x_{i-1} + \sqrt{\beta_i}\, \varepsilon` are ``q(z_t | x)``'s.
    """
    steps, x = 50, real(-1.7, 0.4)[None]
    betas = torch.linspace(1e-4, 0.3, steps, dtype=F64)
    q = NoisingEncoder(LinearBeta(steps, 1e-4, 0.3))(x)
    mean, variance = x, torch.zeros_like(x)
    for i, beta in enumerate(betas):
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
        at = q.at(real(i / (steps - 1)))
        torch.testing.assert_close(at.mean, mean, rtol=1e-12, atol=0)
        torch.testing.assert_close(at.variance, variance, rtol=1e-11, atol=0)


@every_schedule
@settings(max_examples=30, deadline=None)
@given(s=fractions, t=fractions)
def test_a_bridge_is_the_joint_gaussian_conditioned(schedule: Schedule, s: float, t: float) -> None:
    r"""``q(z_s | z_t, x)`` is the joint law of ``(z_s, z_t)`` given ``x``, conditioned in NumPy.

    Given ``x``, :math:`\mathrm{Cov}(z_s, z_t) = (\alpha_t / \alpha_s)\,\sigma_s^2`.
    """
    s, t = min(s, t), max(s, t)
    if t - s < 1e-3:
        t = min(1.0, s + 1e-3)
        s = t - 1e-3
    x, z_t = 1.3, -0.8
    near, far = schedule.at(real(s)), schedule.at(real(t))
    alphas = np.array([near.alpha.item(), far.alpha.item()])
    cross = alphas[1] / alphas[0] * near.sigma.item() ** 2
    joint = np.array([[near.sigma.item() ** 2, cross], [cross, far.sigma.item() ** 2]])
    mean, variance = condition(alphas * x, joint, np.array([z_t]), 1)
    law = NoisingEncoder(schedule)(real(x)[None]).given(real(s), real(t), real(z_t)[None])
    assert law.mean.item() == pytest.approx(mean.item(), rel=1e-8, abs=1e-10)
    assert law.variance.item() == pytest.approx(variance.item(), rel=1e-6)


@every_schedule
def test_bridges_compose_to_the_marginal_and_to_the_forward_step(schedule: Schedule) -> None:
    r"""``q(z_s | z_t, x)`` averaged over ``q(z_t | x)`` is ``q(z_s | x)``; the forward step's std
    :math:`\sqrt{\sigma_t^2 - \alpha_{t|s}^2\sigma_s^2}` lies ``log_sigma_ratio`` above the posterior's.
    """
    s, t = TIMES[:-1], TIMES[1:]
    near, far, bridge = schedule.at(s), schedule.at(t), schedule.bridge(s, t)
    torch.testing.assert_close(bridge.coef_z * far.alpha + bridge.coef_x, near.alpha)
    variance = (bridge.coef_z * far.sigma).square() + (2 * bridge.log_std).exp()
    torch.testing.assert_close(variance, near.sigma.square())
    forward = far.sigma.square() - (far.alpha / near.alpha * near.sigma).square()
    torch.testing.assert_close((2 * (bridge.log_std + bridge.log_sigma_ratio)).exp(), forward)


@pytest.mark.parametrize("schedule", [LinearLogSNR(), Cosine(), Cosine(0.008)], ids=repr)
def test_a_million_steps_keep_their_precision(schedule: Schedule) -> None:
    """Neighbors a millionth apart: every gap is finite, positive, and the gaps add up.

    In float32 the gap of 2e-5 between log-SNRs near 13 would keep two digits. The variance kept by
    each step, ``exp(2 log_std) / sigma^2``, agrees with the slope's integral by quadrature.
    """
    count = 10**6
    index = torch.tensor([0, 1, 499_999, 999_997, 999_998], dtype=F64)
    s, t = index / (count - 1), (index + 1) / (count - 1)
    bridge = schedule.bridge(s, t)
    assert all(bool(part.isfinite().all()) for part in bridge)
    _, sigma = schedule.scales(s)
    kept = (2 * bridge.log_std).exp() / sigma.square()
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(8))
    inside = 0.5 * (s + t)[:, None] + 0.5 * nodes / (count - 1)
    fall = 0.5 * schedule.slope(inside) @ weights / (count - 1)
    torch.testing.assert_close(kept, -torch.expm1(fall), rtol=1e-9, atol=0)


class Rising(LinearLogSNR):
    """Time the wrong way round."""

    def log_snr(self, t: Tensor) -> Tensor:
        """Rises."""
        return 5 * t


class Resting(LinearLogSNR):
    """Flat in the middle."""

    def log_snr(self, t: Tensor) -> Tensor:
        """Rests from 0.4 to 0.6."""
        return 5 - t.clamp(max=0.4) - (t - 0.6).clamp(min=0)


class Uncut(LinearLogSNR):
    """The lecture's cosine with its infinite ends left on."""

    def log_snr(self, t: Tensor) -> Tensor:
        """Infinite at t = 0."""
        return -2 * (0.5 * math.pi * t).tan().log()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Rising, "strictly decreasing log-SNR; t runs from clean"),
        (Resting, "rises or is constant near t=0.4"),
        (Uncut, "log-SNR inf at t=0"),
        (lambda: LinearLogSNR(-5.0, 13.3), "clean > noisy"),
        (lambda: LinearLogSNR(math.inf, -5.0), "a finite log-SNR at each end"),
        (lambda: Cosine(clean=-5.0, noisy=13.3), "clean > noisy"),
        (lambda: Cosine(offset=-0.1), "offset=-0.1; expected at least 0"),
        (lambda: Table.from_betas(real(0.1, 1.0)), "clip it to 0.999"),
        (lambda: Table.from_betas(real(0.0, 0.1)), r"every beta inside \(0, 1\)"),
        (lambda: Table(real(1.0)), "at least 2 entries"),
        (lambda: Table(real(1.0, 0.0, 0.5)), r"a rise at \[1\]"),
        (lambda: Table(real(math.inf, 0.0)), "finite, strictly decreasing"),
    ],
)
def test_an_invalid_schedule_is_refused(build: type[Schedule], message: str) -> None:
    """What was got, what was expected, what to do."""
    with pytest.raises(ValueError, match=message):
        build()
