r"""Published weights are their papers', in the papers' own predictions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from genmod import denoisers
from genmod.denoisers import (
    DataTarget,
    FlowVelocityTarget,
    NoiseTarget,
    ScoreTarget,
    Target,
    VelocityTarget,
)
from genmod.elbo import NoiseLevels, Rate
from genmod.objectives import (
    P2,
    Bound,
    EDMWeight,
    MinSNR,
    SigmoidWeight,
    Simple,
    TruncatedSNR,
    Weighted,
    explain,
)
from genmod.objectives.weighted import NoiseWeighted
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR, Schedule
from tests.oracles import bent, steps_of

pytestmark = pytest.mark.usefixtures("float64")

LOG_SNR = torch.linspace(-9.0, 12.0, 43, dtype=torch.float64)
SNR = LOG_SNR.exp()
MIDDLE = Cosine(clean=8.0, noisy=-6.0)
SCHEDULES: list[Schedule] = [LinearLogSNR(), MIDDLE, LinearBeta(1000)]


def squared_errors(target: Target) -> Tensor:
    """The squared error of a prediction, over that of the noise, for a guess that is off at random."""
    alpha, sigma = LOG_SNR.sigmoid().sqrt(), (-LOG_SNR).sigmoid().sqrt()
    x, eps, guess = torch.randn(3, len(LOG_SNR))
    z = alpha * x + sigma * eps
    off = target.output(x, z, alpha, sigma) - target.output(guess, z, alpha, sigma)
    wrong = NoiseTarget().output(x, z, alpha, sigma) - NoiseTarget().output(guess, z, alpha, sigma)
    return off.square() / wrong.square()


# ---------------------------------------------------------------------- the papers' own words


@pytest.mark.parametrize("gamma", [0.3, 1.0, 5.0, 20.0])
def test_min_snr_is_a_minimum_for_every_prediction(gamma: float) -> None:
    r"""min(SNR, g) of x; over SNR of the noise; over SNR + 1 of the velocity (Hang et al., 3.4).

    The others follow from :math:`\|\varepsilon - \hat\varepsilon\|^2 = \sigma^2 \|s - \hat s\|^2 =
    (\alpha / (\alpha + \sigma))^2 \|u - \hat u\|^2 = (\alpha d / \rho)^2 \|F - \hat F\|^2`, where
    :math:`\sigma^2 = 1 / (\mathrm{SNR} + 1)` and :math:`\rho^2 = \sigma^2 + \alpha^2 d^2`: over
    :math:`\mathrm{SNR}(\mathrm{SNR} + 1)` of the score, over :math:`(\sqrt{\mathrm{SNR}} + 1)^2` of the
    flow's velocity, over :math:`\mathrm{SNR} + d^{-2}` of EDM's output.

    A maximum, or a velocity without its + 1, is what others have.
    """
    found = MinSNR(gamma).weight(LOG_SNR)
    smaller = torch.minimum(SNR, torch.full_like(SNR, gamma))
    forms = {
        DataTarget(): smaller,
        NoiseTarget(): smaller / SNR,
        VelocityTarget(): smaller / (SNR + 1),
        ScoreTarget(): smaller / (SNR * (SNR + 1)),
        FlowVelocityTarget(): smaller / (SNR.sqrt() + 1).square(),
        denoisers.EDMTarget(0.5): smaller / (SNR + 4),
        denoisers.EDMTarget(1.0): smaller / (SNR + 1),
    }
    for target, weight in forms.items():
        torch.testing.assert_close(found, weight * squared_errors(target), rtol=1e-6, atol=0)
    assert bool((found <= 1).all())
    assert bool((found * SNR <= gamma * (1 + 1e-12)).all())


def test_the_truncated_snr_is_the_larger_of_two_errors() -> None:
    """max(|x - x_hat|^2, |eps - eps_hat|^2) itself."""
    found = TruncatedSNR().weight(LOG_SNR)
    torch.testing.assert_close(
        found, torch.maximum(squared_errors(DataTarget()), torch.ones(43)), rtol=1e-6, atol=0
    )
    stated = torch.maximum(SNR, torch.ones_like(SNR))
    torch.testing.assert_close(found, stated * squared_errors(DataTarget()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_p2_divides_the_noise_error_by_a_power(gamma: float) -> None:
    """1 / (k + SNR)^gamma, with SNR = alpha_bar / (1 - alpha_bar)."""
    alpha_bar = LOG_SNR.sigmoid()
    stated = 1 / (2.0 + alpha_bar / (1 - alpha_bar)) ** gamma
    torch.testing.assert_close(P2(gamma, k=2.0).weight(LOG_SNR), stated, rtol=1e-9, atol=0)


@pytest.mark.parametrize("bias", [-3.0, 0.0, 2.0])
def test_sigmoid_in_the_bound_is_the_papers_of_the_data(bias: float) -> None:
    r"""SiD2's :math:`-\lambda'_t\, e^b\, \mathrm{sigmoid}(\lambda - b) \|x - \hat x\|^2`, halved."""
    t = MIDDLE.time(LOG_SNR.clamp(-5.9, 7.9))
    log_snr, gap = MIDDLE.log_snr(t), -MIDDLE.slope(t)
    error = 1 + t
    rate = steps(MIDDLE, t, error)
    stated = 0.5 * gap * math.exp(bias) * (log_snr - bias).sigmoid() * (-log_snr).exp() * error
    torch.testing.assert_close(
        SigmoidWeight(bias).per_level(rate)[:, 0], stated.detach(), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("schedule", [LinearLogSNR(24.0, -20.0), Cosine(clean=24.0, noisy=-20.0)])
def test_edm_is_an_expectation_over_log_normal_noise(schedule: Schedule) -> None:
    r"""Quadrature over :math:`\log\sigma` of the paper's loss, beside ours over time.

    For the optimal denoiser of data of variance 0.3: :math:`\|x - \hat x\|^2 = 0.3 \sigma^2 / (0.3 +
    \sigma^2)`.
    """

    def square(sigma: Tensor) -> Tensor:
        return 0.3 * sigma.square() / (0.3 + sigma.square())

    log_sigma = torch.linspace(-1.2 - 7 * 1.2, -1.2 + 7 * 1.2, 20_001)
    density = (-0.5 * ((log_sigma + 1.2) / 1.2).square()).exp() / (1.2 * math.sqrt(2 * math.pi))
    sigma = log_sigma.exp()
    stated = (sigma.square() + 0.25) / (sigma * 0.5).square() * square(sigma)
    expected = torch.trapezoid(density * stated, log_sigma)
    t = (torch.arange(200_000) + 0.5) / 200_000
    sigma = (-0.5 * schedule.log_snr(t)).exp()
    found = EDMWeight().per_level(steps(schedule, t, square(sigma) / sigma.square())).mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("ends", [(13.3, -40.0), (22.0, -18.0)])
def test_edm_visits_far_ends_as_often_as_its_law_says(ends: tuple[float, float]) -> None:
    """Against SciPy's tails: ``ndtr`` is zero nine deviations out, and masses of zero are refused."""
    found = EDMWeight.timestep_sampler(LinearLogSNR(*ends), bins=64).masses
    z = (-0.5 * torch.linspace(*ends, 65).numpy() + 1.2) / 1.2
    # A bin beyond the middle by the upper tails, one before it by the lower: no digits are lost.
    upper, lower = norm.sf(z[:-1]) - norm.sf(z[1:]), norm.cdf(z[1:]) - norm.cdf(z[:-1])
    stated = torch.from_numpy(np.where(z[:-1] > 0, upper, lower))
    torch.testing.assert_close(found, stated / stated.sum(), rtol=1e-10, atol=0)


def steps(schedule: Schedule, t: Tensor, error: Tensor) -> Rate:
    """Levels of continuous time with stated errors of the noise, a row each."""
    with torch.no_grad():
        log_snr, gap = schedule.log_snr(t), -schedule.slope(t)
    rate = steps_of(bent(None), torch.zeros(1, 2), 1)
    ones = torch.ones_like(t)[:, None]
    return replace(
        rate,
        nats=(0.5 * gap * error)[:, None],
        weight=ones,
        level=t[:, None],
        noise=NoiseLevels(log_snr[:, None], gap[:, None], error[:, None], ones),
    )


# ---------------------------------------------------------------------- the same weight, stated twice


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_weight_of_the_noise_is_one_of_the_bound(schedule: Schedule) -> None:
    r"""``w = 2 omega p(lambda)``, path by path; and what ``explain`` finds is that weight."""
    model, x = bent(None, schedule), torch.randn(8, 2)
    elbo = model.elbo(x, 16)
    for objective in (Simple(), MinSNR(2.0), P2(), TruncatedSNR()):

        def weight(log_snr: Tensor, of: NoiseWeighted = objective) -> Tensor:
            t = elbo.rates["steps"].level.reshape(-1)
            return 2 * of.weight(log_snr) / -schedule.slope(t).reshape(log_snr.shape)

        rest = elbo.rates["prior"].total - elbo.reconstruction
        whole = Weighted(weight).cost(elbo)
        torch.testing.assert_close(whole, rest + objective.cost(elbo), rtol=1e-9, atol=1e-9)
        found = explain(objective, schedule)
        middle = schedule.time(found.log_snr)
        stated = 2 * objective.weight(found.log_snr) / -schedule.slope(middle)
        torch.testing.assert_close(found.weight, stated.detach(), rtol=1e-9, atol=0)


def test_weights_of_the_bound_know_no_schedule_and_those_of_the_noise_do() -> None:
    """On the log-SNRs that two schedules share."""
    one, other = LinearLogSNR(8.0, -6.0), Cosine(clean=8.0, noisy=-6.0)
    for objective in (Bound(), SigmoidWeight(-1.0), EDMWeight(), Weighted(torch.sigmoid)):
        torch.testing.assert_close(explain(objective, one).weight, explain(objective, other).weight)
    for noise in (Simple(), MinSNR(), P2(), TruncatedSNR()):
        ratio = explain(noise, one).weight / explain(noise, other).weight
        assert float(ratio.max() / ratio.min()) > 10


def test_the_steps_alone_or_with_the_rest_of_the_bound() -> None:
    """Published weights leave the other terms out, a user's keeps them."""
    elbo = bent(None).elbo(torch.randn(8, 2), 4)
    rest = elbo.rates["prior"].total - elbo.reconstruction
    own = Weighted(lambda log_snr: (-1 - log_snr).sigmoid()).cost(elbo)
    torch.testing.assert_close(own, rest + SigmoidWeight(-1.0).cost(elbo))


# ---------------------------------------------------------------------- refusals


def test_invalid_settings_are_refused() -> None:
    """At construction, with what to do."""
    for make, match in (
        (lambda: MinSNR(0.0), "gamma=0"),
        (lambda: P2(gamma=-1.0), "gamma=-1"),
        (lambda: P2(k=0.0), "k=0"),
        (lambda: SigmoidWeight(math.nan), "bias=nan"),
        (lambda: EDMWeight(std=0.0), "std=0"),
        (lambda: EDMWeight(data_std=-1.0), "data_std=-1"),
        (lambda: explain(Bound(), MIDDLE, points=1), "points=1"),
    ):
        with pytest.raises(ValueError, match=match):
            make()


def test_a_bound_without_noise_levels_is_refused() -> None:
    elbo = bent(None).elbo(torch.randn(2, 2), 1)
    for objective in (Simple(), SigmoidWeight(0.0)):
        with pytest.raises(ValueError, match="without denoising steps"):
            objective.cost(replace(elbo, rates={}))
