r"""Published weights are their papers', in the papers' own predictions; ``explain`` says what they bound.

Each docstring names the sign that was flipped in the code to see the test fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from genmod import ELBO, denoisers, plots
from genmod.denoisers import Data, FlowVelocity, Noise, Score, Target, Velocity
from genmod.elbo import Rate
from genmod.objectives import (
    EDM,
    P2,
    Beta,
    Bound,
    BoundWeighted,
    Explanation,
    Hybrid,
    MinSNR,
    NoiseWeighted,
    Objective,
    Sigmoid,
    Simple,
    TruncatedSNR,
    WarmUp,
    Weighted,
    explain,
)
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
    wrong = Noise().output(x, z, alpha, sigma) - Noise().output(guess, z, alpha, sigma)
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

    A maximum, or a velocity without its + 1, is what others have. Flipped: ``clamp(max=1)`` to ``min``;
    the sign of ``log_snr``.
    """
    found = MinSNR(gamma).weight(LOG_SNR)
    smaller = torch.minimum(SNR, torch.full_like(SNR, gamma))
    forms = {
        Data(): smaller,
        Noise(): smaller / SNR,
        Velocity(): smaller / (SNR + 1),
        Score(): smaller / (SNR * (SNR + 1)),
        FlowVelocity(): smaller / (SNR.sqrt() + 1).square(),
        denoisers.EDM(0.5): smaller / (SNR + 4),
        denoisers.EDM(1.0): smaller / (SNR + 1),
    }
    for target, weight in forms.items():
        torch.testing.assert_close(found, weight * squared_errors(target), rtol=1e-6, atol=0)
    assert bool((found <= 1).all())
    assert bool((found * SNR <= gamma * (1 + 1e-12)).all())


def test_the_truncated_snr_is_the_larger_of_two_errors() -> None:
    """max(|x - x_hat|^2, |eps - eps_hat|^2) itself. Flipped: ``clamp(min=1)`` to ``max``."""
    found = TruncatedSNR().weight(LOG_SNR)
    torch.testing.assert_close(
        found, torch.maximum(squared_errors(Data()), torch.ones(43)), rtol=1e-6, atol=0
    )
    stated = torch.maximum(SNR, torch.ones_like(SNR))
    torch.testing.assert_close(found, stated * squared_errors(Data()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_p2_divides_the_noise_error_by_a_power(gamma: float) -> None:
    """1 / (k + SNR)^gamma, with SNR = alpha_bar / (1 - alpha_bar). Flipped: the sign of ``gamma``."""
    alpha_bar = LOG_SNR.sigmoid()
    stated = 1 / (2.0 + alpha_bar / (1 - alpha_bar)) ** gamma
    torch.testing.assert_close(P2(gamma, k=2.0).weight(LOG_SNR), stated, rtol=1e-9, atol=0)


@pytest.mark.parametrize("bias", [-3.0, 0.0, 2.0])
def test_sigmoid_in_the_bound_is_the_papers_of_the_data(bias: float) -> None:
    r"""SiD2's :math:`-\lambda'_t\, e^b\, \mathrm{sigmoid}(\lambda - b) \|x - \hat x\|^2`, halved.

    Flipped: ``bias - log_snr``.
    """
    t = MIDDLE.time(LOG_SNR.clamp(-5.9, 7.9))
    log_snr, gap = MIDDLE.log_snr(t), -MIDDLE.slope(t)
    error = 1 + t
    rate = steps(MIDDLE, t, error)
    stated = 0.5 * gap * math.exp(bias) * (log_snr - bias).sigmoid() * (-log_snr).exp() * error
    torch.testing.assert_close(
        Sigmoid(bias).per_level(rate)[:, 0], stated.detach(), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("schedule", [LinearLogSNR(24.0, -20.0), Cosine(clean=24.0, noisy=-20.0)])
def test_edm_is_an_expectation_over_log_normal_noise(schedule: Schedule) -> None:
    r"""Quadrature over :math:`\log\sigma` of the paper's loss, beside ours over time.

    For the optimal denoiser of data of variance 0.3: :math:`\|x - \hat x\|^2 = 0.3 \sigma^2 / (0.3 +
    \sigma^2)`. Flipped: the sign of ``mean``; of ``log_snr`` in the weight; the factor 2 left out.
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
    found = EDM().per_level(steps(schedule, t, square(sigma) / sigma.square())).mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("ends", [(13.3, -40.0), (22.0, -18.0)])
def test_edm_visits_far_ends_as_often_as_its_law_says(ends: tuple[float, float]) -> None:
    """Against SciPy's tails: ``ndtr`` is zero nine deviations out, and masses of zero are refused.

    Flipped: the sign of ``mean``.
    """
    found = EDM.visits(LinearLogSNR(*ends), bins=64).masses
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
        log_snr=log_snr[:, None],
        gap=gap[:, None],
        error=error[:, None],
        share=ones,
    )


# ---------------------------------------------------------------------- the same weight, stated twice


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_weight_of_the_noise_is_one_of_the_bound(schedule: Schedule) -> None:
    r"""``w = 2 omega p(lambda)``, path by path; and what ``explain`` finds is that weight.

    Flipped: ``-schedule.slope`` in ``explain``; ``0.5 * gap`` to ``2 * gap``.
    """
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
    for objective in (Bound(), Sigmoid(-1.0), EDM(), Weighted(torch.sigmoid)):
        torch.testing.assert_close(explain(objective, one).weight, explain(objective, other).weight)
    for noise in (Simple(), MinSNR(), P2(), TruncatedSNR()):
        ratio = explain(noise, one).weight / explain(noise, other).weight
        assert float(ratio.max() / ratio.min()) > 10


def test_the_steps_alone_or_with_the_rest_of_the_bound() -> None:
    """Published weights leave the other terms out, a user's keeps them."""
    elbo = bent(None).elbo(torch.randn(8, 2), 4)
    rest = elbo.rates["prior"].total - elbo.reconstruction
    own = Weighted(lambda log_snr: (-1 - log_snr).sigmoid()).cost(elbo)
    torch.testing.assert_close(own, rest + Sigmoid(-1.0).cost(elbo))


# ---------------------------------------------------------------------- what is bounded


def table() -> dict[str, tuple[Objective, Schedule, Callable[[Tensor], Tensor], bool]]:
    """Kingma and Gao's table 1: the weight up to a constant, and whether it never rises."""
    cosine, flat = Cosine(clean=10.0, noisy=-10.0), LinearLogSNR(10.0, -10.0)
    sech = lambda v: 1 / torch.cosh(v / 2)  # noqa: E731
    return {
        "bound": (Bound(), cosine, torch.ones_like, True),
        "beta": (Beta(3.0), cosine, torch.ones_like, True),
        "cosine": (Simple(), cosine, sech, False),
        "flat": (Simple(), flat, torch.ones_like, True),
        "min-SNR": (MinSNR(5.0), cosine, lambda v: sech(v) * (5 * (-v).exp()).clamp(max=1), False),
        "min-SNR flat": (MinSNR(5.0), flat, lambda v: (5 * (-v).exp()).clamp(max=1), True),
        "P2": (P2(), cosine, lambda v: sech(v) / (1 + v.exp()), False),
        "truncated": (TruncatedSNR(), cosine, lambda v: sech(v) * (-v).exp().clamp(min=1), True),
        "SNR + 1": (VelocityError(), cosine, lambda v: (-v / 2).exp(), True),
        "EDM": (
            EDM(), flat, lambda v: (-0.5 * ((v - 2.4) / 2.4) ** 2).exp() * ((-v).exp() + 0.25), False,
        ),
        "sigmoid": (Sigmoid(2.0), cosine, lambda v: (2 - v).sigmoid(), True),
    }  # fmt: skip


class VelocityError(NoiseWeighted):
    """The squared error of the velocity: a researcher's own, in one line."""

    def weight(self, log_snr: Tensor) -> Tensor:
        """Salimans and Ho's SNR + 1, of the error of ``x``."""
        return 1 + (-log_snr).exp()


@pytest.mark.parametrize("name", table())
def test_the_table_of_kingma_and_gao(name: str) -> None:
    """Each weight up to a constant, and its shape. Flipped: ``cummin`` to ``cummax``."""
    objective, schedule, stated, falls = table()[name]
    found = explain(objective, schedule)
    ratio = found.weight / stated(found.log_snr)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-9, atol=0)
    assert found.monotone is falls
    assert found.bounded.startswith("nothing") is not falls


@pytest.mark.parametrize("objective", [Sigmoid(1.0), MinSNR(3.0), Bound()], ids=repr)
def test_a_falling_weight_is_a_mixture_of_bounds_on_noised_data(objective: Objective) -> None:
    r"""Whatever the errors: ``L / w(noisy)`` is the mean of the bounds :math:`\mathcal{L}(\tau)` over the
    noise :math:`P(\lambda_\tau \ge \lambda) = w(\lambda) / w(\text{noisy})`.
    """
    found = explain(objective, LinearLogSNR(7.0, -7.0), points=4001)
    error = 2 + torch.sin(found.log_snr) + found.log_snr.tanh()
    weighted = 0.5 * torch.trapezoid(found.weight * error, found.log_snr)
    # The bound of data at each noise level: what the levels above it cost.
    inner = 0.5 * torch.cumulative_trapezoid(error, found.log_snr)
    mass = (found.weight[:-1] - found.weight[1:]) / found.weight[0]
    bounds = torch.cat([torch.zeros(1), inner])
    mixture = (mass * (bounds[1:] + bounds[:-1]) / 2).sum() + found.clean * bounds[-1]
    torch.testing.assert_close(weighted / found.weight[0], mixture, rtol=1e-6, atol=0)
    above = float(mass[found.log_snr[:-1] >= found.median].sum()) + found.clean
    assert above == pytest.approx(0.5 if found.clean < 0.5 else 1.0, abs=3e-3)


def test_what_is_bounded_in_words() -> None:
    """Each case has a sentence of its own, with computed numbers."""
    flat = LinearLogSNR(10.0, -8.0)
    assert explain(Bound(), flat).bounded == "the likelihood of the data: it is the bound"
    half = explain(Beta(0.5), flat)
    assert "likelihood of z_0" in half.bounded
    assert half.reconstruction == 1
    assert "reconstruction is left out" in explain(Simple(), flat).bounded
    assert "half below a log-SNR of -1.0" in explain(Sigmoid(-1.0), flat).bounded
    twice = Weighted(lambda v: torch.full_like(v, -2.0))
    assert explain(twice, flat).bounded == "nothing: some weights are negative"
    assert explain(WarmUp(3), flat).bounded == "nothing: no level has a weight"
    bump = explain(Simple(), Cosine(clean=10.0, noisy=-8.0))
    assert bump.rises is not None
    assert bump.rises == pytest.approx((-8.0, 0.0), abs=0.02)
    assert "rises with the log-SNR between -8.0 and 0.0" in str(bump)
    assert "Simple(draws=1) under Cosine" in str(bump)


def test_a_warm_up_is_explained_at_the_price_it_has_reached() -> None:
    """Half of the way up, each level counts half."""
    warm = WarmUp(4)
    model, x = bent(None), torch.randn(2, 2)
    for _ in range(2):
        warm(model, x)
    found = explain(warm, LinearLogSNR())
    torch.testing.assert_close(found.weight, torch.full_like(found.weight, 0.5))


def test_an_objective_that_is_no_weighted_sum_is_not_explained() -> None:
    """A root of the bound has no weight on its integrand."""

    class Robust(Objective):
        """Samples count less the worse they are explained."""

        def cost(self, elbo: ELBO) -> Tensor:
            return (1 - elbo.value).sqrt()

    with pytest.raises(ValueError, match="Robust, whose cost is not linear"):
        explain(Robust(), LinearLogSNR())


def test_a_hybrid_is_not_explained_but_its_mean_is() -> None:
    """Whatever the model: it was said to want a learned variance, which no model here could give."""
    with pytest.raises(ValueError, match=r"Hybrid, .* no weight .*explain\(Simple\(\)"):
        explain(Hybrid(), LinearLogSNR())


def test_weights_are_drawn_of_one_area_dashed_where_they_rise() -> None:
    """What is drawn is what was explained."""
    shown = {"simple": explain(Simple(), MIDDLE), "sigmoid": explain(Sigmoid(0.0), MIDDLE)}
    simple, sigmoid = plots.level_weights(shown).axes[0].lines[:2]
    assert (simple.is_dashed(), sigmoid.is_dashed()) == (True, False)
    drawn = torch.as_tensor(sigmoid.get_ydata())
    assert float(torch.trapezoid(drawn, shown["sigmoid"].log_snr)) == pytest.approx(1.0)
    torch.testing.assert_close(
        drawn / drawn[0], shown["sigmoid"].weight / shown["sigmoid"].weight[0]
    )
    with pytest.raises(ValueError, match="no objectives"):
        plots.level_weights({})
    with pytest.raises(ValueError, match="new without weights"):
        plots.level_weights({"new": explain(WarmUp(3), MIDDLE)})


# ---------------------------------------------------------------------- refusals


def test_settings_that_are_none_are_refused() -> None:
    """At construction, with what to do."""
    for make, match in (
        (lambda: MinSNR(0.0), "gamma=0"),
        (lambda: P2(gamma=-1.0), "gamma=-1"),
        (lambda: P2(k=0.0), "k=0"),
        (lambda: Sigmoid(math.nan), "bias=nan"),
        (lambda: EDM(std=0.0), "std=0"),
        (lambda: EDM(data_std=-1.0), "data_std=-1"),
        (lambda: explain(Bound(), MIDDLE, points=1), "points=1"),
    ):
        with pytest.raises(ValueError, match=match):
            make()


def test_a_rate_without_errors_is_refused() -> None:
    """A prior of one's own that leaves them out is told which."""
    elbo = bent(None).elbo(torch.randn(2, 2), 1)
    bare = replace(elbo.rates["steps"], share=None)
    with pytest.raises(ValueError, match="share of time"):
        Simple().cost(replace(elbo, rates={"steps": bare}))
    for objective in (Simple(), Sigmoid(0.0)):
        with pytest.raises(ValueError, match="without denoising steps"):
            objective.cost(replace(elbo, rates={}))


def test_settings_are_printed() -> None:
    """A checkpoint remembers an objective by this."""
    assert repr(MinSNR(3.0)) == "MinSNR(gamma=3.0, draws=1)"
    assert repr(P2(0.5)) == "P2(gamma=0.5, k=1.0, draws=1)"
    assert repr(Sigmoid(-3.0, draws=2)) == "Sigmoid(bias=-3.0, draws=2)"
    assert repr(EDM()) == "EDM(mean=-1.2, std=1.2, data_std=0.5, draws=1)"
    assert issubclass(Sigmoid, BoundWeighted)
    assert isinstance(explain(Bound(), MIDDLE), Explanation)
