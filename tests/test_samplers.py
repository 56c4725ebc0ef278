r"""Samplers: the chain's own law at finite ``T``, and the exact probability flow of Gaussian data.

Each docstring names the sign that was flipped in the code to see the test fail.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from genmod.denoisers import EmpiricalDenoiser
from genmod.priors import Denoising
from genmod.samplers import Ancestral, FixedLarge, FixedSmall, Heun, ReverseVariance
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR, Schedule
from tests.oracles import (
    F64,
    Bent,
    GaussianData,
    RectifiedFlow,
    VarianceExploding,
    ancestral_law,
    correlated,
    exact_diffusion,
    real,
    standard,
)
from tests.statistics import assert_mean

DATA = correlated()
SCHEDULE = LinearLogSNR(6.0, -6.0)


def flowed(data: GaussianData, z: Tensor, schedule: Schedule, t: float, s: float) -> Tensor:
    r"""The exact flow of Gaussian data: along each axis, in units of the marginal's std

    :math:`\sqrt{\alpha^2 l_i + \sigma^2}` around its mean, nothing moves.
    """

    def spread(time: float) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule.scales(real(time))
        return alpha, (alpha.square() * data.values + sigma.square()).sqrt()

    (alpha_t, std_t), (alpha_s, std_s) = spread(t), spread(s)
    along = (z - alpha_t * data.mean) @ data.vectors
    return alpha_s * data.mean + (along * std_s / std_t) @ data.vectors.T


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()], ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_ancestral_samples_follow_the_finite_chain(steps: int, variance: ReverseVariance) -> None:
    """Mean and second moments of the last state against the recursion over steps, z-tested.

    Flipped: the sign of ``bridge.data`` in ``Ancestral.law``; of ``excess``.
    """
    torch.manual_seed(0)
    prior = Denoising(DATA.denoiser(), SCHEDULE, (3,), steps, variance).double()
    z = prior.sample(20_000)
    mean, covariance = ancestral_law(DATA, SCHEDULE, steps, variance)
    assert_mean(z, mean)
    off = z - mean
    assert_mean(off[:, :, None] * off[:, None, :], covariance)


def test_samples_of_many_steps_follow_the_data() -> None:
    """With 1000 steps the chain's law is that of the data, but for its ends; no draws needed.

    Flipped: the sign of ``log_std`` in ``Schedule.bridge``.
    """
    schedule = LinearLogSNR(12.0, -12.0)
    mean, covariance = ancestral_law(DATA, schedule, 1000, FixedSmall())
    torch.testing.assert_close(mean, DATA.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(covariance, DATA.covariance, rtol=0, atol=0.06)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_true_reverse_chain_of_the_standard_normal_stays_there(steps: int) -> None:
    """Variance ``beta_t`` and ``x_hat = alpha z`` leave N(0, I) as it is at any ``T``, exactly.

    Flipped: ``FixedLarge``'s sign.
    """
    mean, covariance = ancestral_law(standard(2), LinearBeta(1000), steps, FixedLarge())
    torch.testing.assert_close(mean, torch.zeros(2, dtype=F64))
    torch.testing.assert_close(covariance, torch.eye(2, dtype=F64))


def test_continuous_time_is_sampled_at_its_resolution() -> None:
    """A continuum is cut into ``resolution`` latents: the law is that of so many steps.

    Flipped: the sign of ``bridge.data`` in ``Ancestral.law``.
    """
    torch.manual_seed(1)
    prior = exact_diffusion(DATA, SCHEDULE, None, resolution=5).prior
    z = prior.sample(20_000)
    mean, covariance = ancestral_law(DATA, SCHEDULE, 5, FixedSmall())
    assert_mean(z, mean)
    assert_mean((z - mean).square(), covariance.diagonal())


def test_a_step_is_a_draw_of_its_law() -> None:
    """Mean and variance of ``step`` are those of ``law``. Flipped: the sign of the draw."""
    torch.manual_seed(2)
    chain = Ancestral(Bent(), SCHEDULE, FixedLarge())
    z, t, s = real(0.3, -1.0)[None], real(0.7), real(0.4)
    with torch.no_grad():
        law = chain.law(z, t, s)
        drawn = chain.step(z.expand(20_000, 2), t.expand(20_000), s.expand(20_000))
    assert_mean(drawn, law.mean[0])
    assert_mean((drawn - law.mean).square(), law.variance[0])


@pytest.mark.parametrize(
    "schedule",
    [SCHEDULE, Cosine(0.008, 6.0, -6.0), VarianceExploding(SCHEDULE), RectifiedFlow(SCHEDULE)],
    ids=repr,
)
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.0), (0.0, 1.0)], ids=["to data", "to noise"])
def test_heun_has_second_order_on_the_exact_flow(schedule: Schedule, t: float, s: float) -> None:
    """The error against the exact map falls four times as steps double, in either direction.

    Flipped: the sign of ``x_hat`` in ``Heun._slope``; ``first - second`` in ``step``.
    """
    z = real(0.3, -1.0, 0.8)[None] + torch.linspace(-1, 1, 4, dtype=F64)[:, None]
    exact = flowed(DATA, z, schedule, t, s)
    flow = Heun(DATA.denoiser(), schedule)
    errors = []
    for count in (60, 120, 240):
        found = flow.run(z, torch.linspace(t, s, count + 1, dtype=F64))
        errors.append(float((found - exact).abs().max() / exact.abs().max()))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([2.0, 2.0], abs=0.1)
    assert errors[-1] < 5e-3


def test_the_flow_carries_a_mixture_to_its_quantiles() -> None:
    """In one dimension the flow keeps quantiles: a mixture's at t = 1 go to its own at t = 0.

    Flipped: the sign of ``alpha * shrink`` in ``EmpiricalDenoiser``.
    """
    points, std = real(-1.0, 1.5), 0.4
    denoiser = EmpiricalDenoiser(points[:, None], std=std)

    def cdf(z: Tensor, t: float) -> Tensor:
        alpha, sigma = SCHEDULE.scales(real(t))
        spread = (alpha.square() * std**2 + sigma.square()).sqrt()
        return torch.special.ndtr((z - alpha * points) / spread).mean(1, keepdim=True)

    z = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    x = Heun(denoiser, SCHEDULE).run(z, torch.linspace(1, 0, 201, dtype=F64))
    torch.testing.assert_close(cdf(x, 0.0), cdf(z, 1.0), rtol=0, atol=2e-4)


def test_a_path_yields_every_state_and_run_the_last() -> None:
    """One state for each time after the first; none for a single time.

    Flipped: the order of ``t`` and ``s`` in ``Sampler.path``.
    """
    z, times = real(0.3, -1.0, 0.8)[None], torch.linspace(1, 0, 5, dtype=F64)
    flow = Heun(DATA.denoiser(), SCHEDULE)
    states = list(flow.path(z, times))
    assert len(states) == 4
    torch.testing.assert_close(flow.run(z, times), states[-1])
    torch.testing.assert_close(states[0], flow.step(z, times[:1], times[1:2]))
    assert torch.equal(flow.run(z, times[:1]), z)
