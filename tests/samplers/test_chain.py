r"""Chains: their own law at finite ``T``, and the same chain written in several ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.diffusion import DiffusionPrior, FixedLarge, FixedSmall
from genmod.diffusion.reverse import ReverseProcess
from genmod.diffusion.variances import ReverseVariance
from genmod.distributions import Normal
from genmod.samplers import (
    DDIM,
    Ancestral,
    DPMSolver,
    PolynomialGrid,
    Sampler,
    StochasticHeun,
    UniformTime,
)
from genmod.schedules import LinearBeta, LinearLogSNR, Schedule
from tests.oracles import (
    F64,
    Bent,
    RectifiedFlow,
    VarianceExploding,
    ancestral_law,
    correlated,
    exact_diffusion,
    real,
    standard,
)
from tests.samplers.cases import UNEVEN
from tests.statistics import assert_mean


def law_of(chain: Ancestral) -> Callable[[Tensor, Tensor, Tensor], Normal]:
    """The law of a step, as the bound computes it."""
    return ReverseProcess(chain.denoiser, chain.schedule, chain.variance).law


DATA = correlated()
SCHEDULE = LinearLogSNR(6.0, -6.0)


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()], ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_ancestral_samples_follow_the_finite_chain(steps: int, variance: ReverseVariance) -> None:
    """Mean and second moments of the last state against the recursion over steps, z-tested."""
    torch.manual_seed(0)
    prior = DiffusionPrior(DATA.denoiser(), SCHEDULE, (3,), steps, variance).double()
    z = prior.sample(20_000)
    mean, covariance = ancestral_law(DATA, SCHEDULE, steps, variance)
    assert_mean(z, mean)
    off = z - mean
    assert_mean(off[:, :, None] * off[:, None, :], covariance)


def test_samples_of_many_steps_follow_the_data() -> None:
    """With 1000 steps the chain's law is that of the data, but for its ends; no draws needed."""
    schedule = LinearLogSNR(12.0, -12.0)
    mean, covariance = ancestral_law(DATA, schedule, 1000, FixedSmall())
    torch.testing.assert_close(mean, DATA.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(covariance, DATA.covariance, rtol=0, atol=0.06)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_true_reverse_chain_of_the_standard_normal_stays_there(steps: int) -> None:
    """Variance ``beta_t`` and ``x_hat = alpha z`` leave N(0, I) as it is at any ``T``, exactly."""
    mean, covariance = ancestral_law(standard(2), LinearBeta(1000), steps, FixedLarge())
    torch.testing.assert_close(mean, torch.zeros(2, dtype=F64))
    torch.testing.assert_close(covariance, torch.eye(2, dtype=F64))


def test_continuous_time_is_sampled_at_its_resolution() -> None:
    """A continuum is cut into ``resolution`` latents: the law is that of so many steps."""
    torch.manual_seed(1)
    prior = exact_diffusion(DATA, SCHEDULE, None, resolution=5).prior
    z = prior.sample(20_000)
    mean, covariance = ancestral_law(DATA, SCHEDULE, 5, FixedSmall())
    assert_mean(z, mean)
    assert_mean((z - mean).square(), covariance.diagonal())


def test_a_step_is_a_draw_of_its_law() -> None:
    """Mean and variance of ``step`` are those of the reverse law."""
    torch.manual_seed(2)
    chain = Ancestral(Bent(), SCHEDULE, FixedLarge())
    z, t, s = real(0.3, -1.0)[None], real(0.7), real(0.4)
    with torch.no_grad():
        law = law_of(chain)(z, t, s)
        drawn = chain.step(z.expand(20_000, 2), t.expand(20_000), s.expand(20_000))
    assert_mean(drawn, law.mean[0])
    assert_mean((drawn - law.mean).square(), law.variance[0])


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()], ids=repr)
def test_a_path_draws_from_the_law_of_each_step(variance: ReverseVariance) -> None:
    """The grid's factors and ``law``, under the same noise, on any kind of schedule."""
    times, z = torch.linspace(1, 0, 6, dtype=F64), real(0.3, -1.0)[None].repeat(3, 1)
    for schedule in (SCHEDULE, VarianceExploding(SCHEDULE), RectifiedFlow(SCHEDULE)):
        chain = Ancestral(Bent(), schedule, variance)
        with random.keyed(0), torch.no_grad():
            found = list(chain.path(z, times))
        with random.keyed(0), torch.no_grad():
            state = z
            for (t, s), expected in zip(pairwise(times), found, strict=True):
                state = law_of(chain)(state, t.expand(3), s.expand(3)).sample()
                torch.testing.assert_close(expected, state)


@pytest.mark.parametrize("sampler", [DDIM(eta=1), DPMSolver(order=1, sde=True)], ids=repr)
@pytest.mark.parametrize("steps", [1, 5, 100])
def test_ddim_with_all_noise_is_the_chain(sampler: Sampler, steps: int) -> None:
    """``eta = 1`` and the first-order SDE solver: ancestral with the posterior's variance, draw by draw."""
    times, z = UniformTime().times(LinearBeta(1000), steps), real(0.3, -1.0)[None].repeat(3, 1)
    paths = []
    for each in (sampler, Ancestral()):
        with random.keyed(0), torch.no_grad():
            paths.append(torch.stack(list(each.bind(Bent(), LinearBeta(1000)).path(z, times))))
    torch.testing.assert_close(*paths)


def test_a_too_large_eta_is_refused() -> None:
    """``eta`` beyond 1 needs short steps; the error states the largest ``eta`` for these."""
    z, times = real(0.3, -1.0)[None], UniformTime().times(SCHEDULE, 40)
    with random.keyed(0), torch.no_grad():
        assert bool(DDIM(Bent(), SCHEDULE, eta=1.9).run(z, times).isfinite().all())
        with pytest.raises(ValueError, match=r"eta=2 on steps .*; expected eta <= 1.96") as told:
            DDIM(Bent(), SCHEDULE, eta=2).run(z, times)
    assert "more steps" in str(told.value)
    fresh = -math.expm1(-12 / 40)
    assert fresh**-0.5 == pytest.approx(1.964, abs=1e-3)


@pytest.mark.parametrize("schedule", [SCHEDULE, VarianceExploding(SCHEDULE)], ids=repr)
def test_stochastic_heun_is_edms_algorithm_2(schedule: Schedule) -> None:
    r"""Karras et al. (2022), algorithm 2, in its own variables :math:`z/\alpha`, :math:`\sigma/\alpha`."""
    settings = {"churn": 8.0, "lowest": 0.05, "highest": 5.0, "noise": 1.02}
    times = PolynomialGrid().times(schedule, 12)
    alpha, sigma = schedule.scales(times)
    levels, z = sigma / alpha, torch.linspace(-1, 1, 6, dtype=F64).reshape(3, 2)

    def slope(y: Tensor, r: Tensor) -> Tensor:
        x_hat = Bent()(y / torch.hypot(r, real(1.0)), -2 * r.log().expand(3)).x_hat
        return (y - x_hat) / r

    with random.keyed(5), torch.no_grad():
        sampler = StochasticHeun(Bent(), schedule, published=True, **settings)
        found = torch.stack(list(sampler.path(z, times)))
    y, expected = z / alpha[0], []
    with random.keyed(5), torch.no_grad():
        for i, (r, below) in enumerate(pairwise(levels)):
            gamma = min(8.0 / 12, math.sqrt(2) - 1) if 0.05 <= r <= 5.0 else 0.0
            raised = r + gamma * r
            if gamma > 0:
                y = y + (raised.square() - r.square()).sqrt() * 1.02 * random.normal_like(y)
            first = slope(y, raised)
            trial = y + (below - raised) * first
            y = y + (below - raised) * 0.5 * (first + slope(trial, below))
            expected.append(y * alpha[i + 1])
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_sde_solver_of_second_order_beats_the_first_in_law() -> None:
    """Mean and covariance at 20 steps of Gaussian data, against the exact marginal; no draws needed.

    Its step is affine, so its law follows from where it sends a basis, and from its noise alone.
    """
    times = UniformTime().times(SCHEDULE, 20)
    alpha, sigma = SCHEDULE.scales(real(0.0))
    exact = alpha.square() * DATA.covariance + sigma.square() * torch.eye(3, dtype=F64)
    distances = []
    for order in (1, 2):
        sampler = DPMSolver(DATA.denoiser(), SCHEDULE, order=order, sde=True)
        covariance = torch.zeros(3, 3, dtype=F64)
        for source in range(-1, 20):
            drawn = iter(range(20))
            hot = torch.eye(3, dtype=F64)

            def normal_like(z: Tensor) -> Tensor:
                return hot if next(drawn) == source else torch.zeros_like(z)  # noqa: B023

            with patch.object(random, "normal_like", normal_like):
                start = hot if source < 0 else torch.zeros_like(hot)
                moved = sampler.run(start, times)
                drawn = iter(range(-100, 0))
                still = sampler.run(torch.zeros_like(hot), times)
            covariance += (moved - still).T @ (moved - still)
        distances.append(float((covariance - exact).abs().max()))
    assert distances[1] < 0.25 * distances[0]


def test_ancestral_samples_of_a_mixture_follow_the_finite_chain() -> None:
    """Ten thousand: the weight of each mode, mean and second moment, against the chain's own density.

    That is carried from step to step on 2001 points of the line.
    """
    torch.manual_seed(3)
    steps, width = 8, 12 / 2000
    line = torch.linspace(-6, 6, 2001, dtype=F64)[:, None]
    chain = Ancestral(UNEVEN.denoiser, SCHEDULE)
    times = UniformTime().times(SCHEDULE, steps)
    density = torch.exp(-0.5 * line.square()).flatten() / math.sqrt(2 * math.pi)
    for t, s in pairwise(times):
        law = law_of(chain)(line, t.expand(2001), s.expand(2001))
        apart = (line.T - law.mean) / law.stddev
        step = torch.exp(-0.5 * apart.square()) / (math.sqrt(2 * math.pi) * law.stddev)
        density = width * (density @ step)
    assert float(density.sum()) * width == pytest.approx(1, abs=1e-6)
    z = chain.run(torch.randn(10_000, 1, dtype=F64), times)

    def expected(values: Tensor) -> float:
        return float((density * values.flatten()).sum()) * width

    assert_mean((z < 0.25).double(), expected((line < 0.25).double()), name="weight of a mode")
    assert_mean(z, expected(line), name="mean")
    assert_mean(z.square(), expected(line.square()), name="second moment")
