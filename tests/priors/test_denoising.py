r"""The prior of a diffusion: each invariant of the bound, against closed forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod.diffusion import DiffusionPrior, FixedLarge, FixedSmall, NoisingEncoder
from genmod.diffusion.variances import ReverseVariance
from genmod.elbo import Kind
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR, Schedule, Table
from tests.oracles import (
    F64,
    MILD,
    Bent,
    GaussianData,
    VarianceExploding,
    bent,
    constant_noise,
    correlated,
    exact_diffusion,
    over_signs,
    real,
    standard,
    standard_diffusion,
    steps_of,
)
from tests.statistics import assert_mean

PRESERVING = [LinearLogSNR(), Cosine(), Cosine(0.008), LinearBeta(1000)]
VARIANCES: list[ReverseVariance] = [FixedSmall(), FixedLarge()]


# ---------------------------------------------------------------------- exactness


@pytest.mark.parametrize("schedule", PRESERVING, ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 10, 1000])
def test_the_bound_of_the_standard_normal_is_exact_at_every_number_of_steps(
    schedule: Schedule, steps: int
) -> None:
    r"""Data N(0, I), ``x_hat = alpha z``, variance ``beta_t``, decoder N(alpha_0 z_0, sigma_0^2 I).

    The chain is then the true reverse process at any ``T``, so with the expectation over ``q``
    taken exactly the ELBO is ``log p(x)`` for each ``x``. Reached: 5e-13 (a weight of 6e5 at the
    clean end multiplies the rounding).
    """
    x = torch.linspace(-4, 4, 9, dtype=F64)[:, None] + real(0.0, 0.3)
    log_p = standard(2).law.log_prob(x)
    model = standard_diffusion(2, schedule, steps)
    value = over_signs(torch.ones(2, dtype=F64), lambda: model.elbo(x).value)
    torch.testing.assert_close(value, log_p, rtol=0, atol=1e-11)


@pytest.mark.parametrize("schedule", PRESERVING, ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_the_importance_weight_of_the_standard_normal_is_exact_on_every_path(
    schedule: Schedule, steps: int
) -> None:
    """The same model in the sampled form: an exact posterior leaves no variance. Reached: 2e-11."""
    torch.manual_seed(0)
    x = torch.linspace(-4, 4, 9, dtype=F64)[:, None] + real(0.0, 0.3)
    log_weight = standard_diffusion(2, schedule, steps).log_weight(x)
    torch.testing.assert_close(log_weight, standard(2).law.log_prob(x), rtol=0, atol=1e-10)


def exact_value(data: GaussianData, schedule: Schedule, steps: int) -> Callable[[Tensor], Tensor]:
    """The bound of the optimal model, as a function of the data."""
    model = exact_diffusion(data, schedule, steps)
    return lambda x: model.elbo(x).value


@pytest.mark.parametrize("schedule", [LinearLogSNR(), Cosine(0.008)], ids=repr)
def test_gaussian_data_fall_to_the_exact_value(schedule: Schedule) -> None:
    r"""Optimal denoiser, full covariance, exact last step: in the mean over data and noise (exact),

    ``log p - ELBO = L_T - L_inf + KL(q(z_1) || N(0, I))``, and on nested grids it falls.
    """
    data = correlated()
    log_p = -float(data.law.entropy())
    limit = data.mismatch(schedule)
    gaps = []
    for count in (8, 32, 128, 512):
        gaps.append(log_p - data.mean_over_all(exact_value(data, schedule, count)))
        lost = data.steps(schedule, count) - data.steps_limit(*schedule.log_snr_range())
        assert gaps[-1] == pytest.approx(lost + limit, rel=1e-9)
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] > limit > 0


def test_each_term_of_gaussian_data_is_its_closed_form() -> None:
    """Prior term, each step's mean and reconstruction, one by one."""
    data, schedule, count = correlated(), LinearLogSNR(), 6
    model = exact_diffusion(data, schedule, count)
    prior = data.mean_over_all(lambda x: model.elbo(x).rates["prior"].total)
    assert prior == pytest.approx(data.prior_nats(schedule), rel=1e-12)
    steps = data.mean_over_all(lambda x: steps_of(model, x).total)
    assert steps == pytest.approx(data.steps(schedule, count), rel=1e-12)
    log_snr = schedule.log_snr(torch.linspace(0, 1, count, dtype=F64))
    gap = torch.expm1(log_snr[:-1] - log_snr[1:])
    rate = steps_of(model, data.axis_points())
    assert rate.noise is not None
    torch.testing.assert_close(rate.noise.gap, gap.expand(2, -1))
    torch.testing.assert_close(rate.noise.log_snr, log_snr[1:].expand(2, -1))
    values = data.values
    left = (values / (1 + log_snr[0].exp() * values)).log().sum()
    entropy = 0.5 * float(left) + 1.5 * (1 + float(real(2 * torch.pi).log()))
    reconstruction = data.mean_over_all(lambda x: model.elbo(x).reconstruction)
    assert reconstruction == pytest.approx(-entropy, rel=1e-12)


def test_the_sampled_bound_has_the_exact_mean() -> None:
    """The same with real noise and real data, z-tested."""
    torch.manual_seed(1)
    data, schedule = correlated(), LinearLogSNR()
    model = exact_diffusion(data, schedule, 32)
    x = data.law.sample((2000,))
    expected = data.steps(schedule, 32) - data.steps_limit(*schedule.log_snr_range())
    gaps = data.law.log_prob(x) - model.elbo(x).value
    assert_mean(gaps, expected + data.mismatch(schedule))


@pytest.mark.parametrize(
    "schedule",
    [
        LinearLogSNR(6.0, -5.0),
        Cosine(0.0, 6.0, -5.0),
        Cosine(0.1, 6.0, -5.0),
        Table(real(6.0, 1.0, 0.5, -5.0)),
        VarianceExploding(LinearLogSNR(6.0, -5.0)),
    ],
    ids=repr,
)
def test_continuous_time_depends_on_the_ends_alone(schedule: Schedule) -> None:
    r"""``L_inf = 1/2 sum log[(1 + v_0 l) / (1 + v_1 l)]``: linear, cosine, a table, one answer.

    Noise and data are averaged exactly, so only the times vary; replicates are independent.
    """
    torch.manual_seed(2)
    data = correlated()
    model = exact_diffusion(data, schedule, None)
    totals = [data.mean_over_all(lambda x: steps_of(model, x, 64).total) for _ in range(20)]
    assert_mean(real(*totals), data.steps_limit(6.0, -5.0))


def test_continuous_time_is_the_limit_of_many_steps() -> None:
    """The gap of a million steps is ``-slope`` times their length, and the error is the same."""
    many, model = bent(1_000_001), bent(None)
    x = real(0.3, -1.0)[None]
    with constant_noise(real(0.4, -0.7)):
        torch.manual_seed(0)
        discrete = steps_of(many, x, 5)
        torch.manual_seed(0)
        continuous = steps_of(model, x, 5)
    torch.testing.assert_close(discrete.total, continuous.total, rtol=1e-4, atol=0)


def test_both_fixed_variances_have_one_limit() -> None:
    """What ``beta_t`` and the posterior's variance cost differs by ``O(1/T)``: ten times the steps,

    a tenth of the difference. So in continuous time nothing is lost by having one of them.
    """
    q = NoisingEncoder(MILD)(real(0.7, -1.2)[None])
    differences = []
    for steps in (300, 3000):
        totals = []
        for variance in VARIANCES:
            prior = DiffusionPrior(Bent(), MILD, (2,), steps, variance).double()
            with torch.no_grad(), constant_noise(real(0.4, -0.7)):
                totals.append(float(prior.rates(q, timesteps=None)[1]["steps"].total))
        differences.append(totals[1] - totals[0])
    assert differences[0] / differences[1] == pytest.approx(10, rel=0.02)


# ---------------------------------------------------------------------- fields


def test_the_rate_holds_what_weightings_need() -> None:
    """``nats = 1/2 gap error`` where the variance is the posterior's; larger for a larger variance."""
    x = real(0.3, -1.0)[None]
    small = DiffusionPrior(Bent(), MILD, (2,), 5).double()
    large = DiffusionPrior(Bent(), MILD, (2,), 5, FixedLarge()).double()
    with constant_noise(real(0.4, -0.7)):
        rates = [p.rates(NoisingEncoder(MILD)(x))[1]["steps"] for p in (small, large)]
    for rate in rates:
        assert rate.kind is Kind.ANALYTIC
        assert bool((rate.nats > 0).all())
    noise = rates[0].noise
    assert noise is not None
    torch.testing.assert_close(rates[0].nats, 0.5 * noise.gap * noise.error)
    assert not torch.allclose(rates[0].nats, rates[1].nats)
