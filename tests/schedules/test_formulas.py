r"""Each schedule against its own paper's formula, in NumPy and SciPy.

Most papers' log-SNR is infinite at an end: theirs runs over the part between ours, re-timed linearly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch.nn.functional import avg_pool2d

from genmod.schedules import (
    Cosine,
    Laplace,
    Logistic,
    LogNormal,
    MonotoneNetwork,
    Polynomial,
    RectifiedFlow,
    Schedule,
    Shifted,
    Sigmoid,
    VarianceExploding,
)
from tests import oracles
from tests.oracles import F64, real

TIMES = torch.linspace(0, 1, 23, dtype=F64)
Formula = Callable[[float], float]


def logit(p: float) -> float:
    """The inverse of a sigmoid; infinite ends are cut where SciPy's search starts."""
    p = min(max(p, 1e-300), 1 - 1e-16)
    return math.log(p) - math.log1p(-p)


def sigmoid(x: float) -> float:
    """One over one plus the exponential of minus x."""
    return 1 / (1 + math.exp(-x))


def of_sigmoid(start: float, end: float, tau: float) -> Formula:
    """Chen (2023), algorithm 1: gamma as it stands, with its differences of sigmoids."""

    def log_snr(u: float) -> float:
        first, last = sigmoid(start / tau), sigmoid(end / tau)
        return logit((last - sigmoid((u * (end - start) + start) / tau)) / (last - first))

    return log_snr


def of_laplace(location: float, scale: float) -> Formula:
    """Hang et al. (2024), table 1."""

    def log_snr(u: float) -> float:
        side = math.copysign(1, 0.5 - u)
        return location - scale * side * math.log(1 - 2 * abs(u - 0.5))

    return log_snr


def of_log_normal(mean: float, std: float) -> Formula:
    """EDM: ``log sigma`` at the quantile ``u``, where ``alpha`` is 1."""
    return lambda u: -2 * float(norm.ppf(u, mean, std))


def of_cosine(offset: float) -> Formula:
    """Nichol and Dhariwal (2021), eq. 17."""

    def log_snr(u: float) -> float:
        angle, first = ((v + offset) / (1 + offset) * math.pi / 2 for v in (u, 0.0))
        return logit((math.cos(angle) / math.cos(first)) ** 2)

    return log_snr


CASES: list[tuple[Schedule, Formula]] = [
    (Cosine(0.008), of_cosine(0.008)),
    (Cosine(0.1, 6.0, -7.0), of_cosine(0.1)),
    (Sigmoid(), of_sigmoid(-3, 3, 1)),
    (Sigmoid(0, 3, 0.3, 8.0, -6.0), of_sigmoid(0, 3, 0.3)),
    (Laplace(), of_laplace(0, 0.5)),
    (Laplace(-1.0, 1.5, 9.0, -8.0), of_laplace(-1, 1.5)),
    (Laplace(3.0, 1.5, 2.0, -4.0), of_laplace(3, 1.5)),
    (LogNormal(), of_log_normal(-1.2, 1.2)),
    (LogNormal(0.5, 0.7, 3.0, 1.0), of_log_normal(0.5, 0.7)),
    (Logistic(), lambda u: 2 * math.log((1 - u) / u)),
]


@pytest.mark.parametrize(("schedule", "formula"), CASES, ids=[repr(case[0]) for case in CASES])
def test_between_its_ends_a_curve_is_its_papers(schedule: Schedule, formula: Formula) -> None:
    """Over all of it, at 1e-8."""
    tiny = 1e-15
    clean, noisy = schedule.log_snr_range()
    first, last = (
        brentq(lambda u, end: formula(u) - end, tiny, 1 - tiny, (end,), xtol=1e-300, rtol=1e-14)
        for end in (clean, noisy)
    )
    inside = [first + (last - first) * float(t) for t in TIMES[1:-1]]
    expected = real(*map(formula, inside))
    torch.testing.assert_close(schedule.log_snr(TIMES)[1:-1], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("schedule", [case[0] for case in CASES], ids=lambda s: repr(s)[:40])
def test_a_curve_has_its_stated_ends(schedule: Schedule) -> None:
    assert isinstance(schedule, Cosine | Sigmoid | Laplace | LogNormal | Logistic)
    assert schedule.log_snr_range() == pytest.approx((schedule.clean, schedule.noisy), rel=1e-9)


@pytest.mark.parametrize(
    "schedule", [LogNormal(), Laplace(), Laplace(3.0, 1.5, 2.0, -4.0), Logistic()], ids=repr
)
def test_uniform_times_have_the_stated_law(schedule: LogNormal | Laplace | Logistic) -> None:
    r"""``-1 / slope`` is a density: it is the uncut one over a constant, and adds up to one."""
    clean, noisy = schedule.log_snr_range()
    log_snr = torch.linspace(noisy, clean, 200_001, dtype=F64)
    density = -1 / schedule.slope(schedule.time(log_snr))
    assert float(torch.trapezoid(density, log_snr)) == pytest.approx(1, rel=1e-6)
    uncut = schedule._density((log_snr - schedule.location) / schedule.scale)
    ratio = density / uncut
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-6, atol=0)


def test_the_polynomial_schedule_is_edms_table() -> None:
    """EDM eq. 5 at 18 steps, which runs from noise to data."""
    steps, rho, low, high = 18, 7, 0.002, 80.0
    sigmas = [
        (high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        for i in range(steps)
    ]
    schedule = VarianceExploding(Polynomial())
    alpha, sigma = schedule.scales(torch.linspace(1, 0, steps, dtype=F64))
    torch.testing.assert_close(sigma, real(*sigmas), rtol=1e-12, atol=0)
    assert bool((alpha == 1).all())


def test_a_rectified_flow_runs_straight() -> None:
    """``alpha = 1 - u``, ``sigma = u``, with ``u`` linear in ``t``."""
    alpha, sigma = RectifiedFlow().scales(TIMES)
    torch.testing.assert_close(alpha + sigma, torch.ones_like(alpha), rtol=1e-14, atol=0)
    torch.testing.assert_close(sigma.diff(), sigma.diff()[:1].expand(22), rtol=1e-10, atol=0)
    assert float(sigma[0]) == pytest.approx(sigmoid(-13.3 / 2), rel=1e-12)


def test_scales_are_those_of_their_names() -> None:
    """Against the oracles that the bound is tested with."""
    for ours, theirs in (
        (VarianceExploding, oracles.VarianceExploding),
        (RectifiedFlow, oracles.RectifiedFlow),
    ):
        torch.testing.assert_close(ours(Cosine()).scales(TIMES), theirs(Cosine()).scales(TIMES))


def test_shifted_times_of_a_straight_path_are_a_shifted_log_snr() -> None:
    r"""Stable Diffusion 3: :math:`u' = s u / (1 + (s - 1) u)`."""
    _, u = RectifiedFlow().scales(TIMES)
    for s in (0.5, 3.0):
        _, shifted = RectifiedFlow(Shifted(Logistic(), -2 * math.log(s))).scales(TIMES)
        torch.testing.assert_close(shifted, s * u / (1 + (s - 1) * u), rtol=1e-12, atol=0)


def test_a_shift_by_resolution_is_undone_by_averaging_pixels() -> None:
    """Pooled to the reference, an image noised at 256 pixels is one noised at 64.

    Pooling keeps a flat image and divides the noise's variance by how many pixels are averaged, here
    read off one white patch.
    """
    signal, noise = torch.ones(1, 1, 4, 4, dtype=F64), torch.zeros(1, 1, 4, 4, dtype=F64)
    noise[0, 0, 1, 2] = 1
    kept = float(avg_pool2d(signal, 4))
    variance = 16 * float(avg_pool2d(noise, 4).square())
    point = Shifted.to_resolution(Cosine(), 256, reference=64).at(TIMES)
    pooled = ((point.alpha * kept).square() / (point.sigma.square() * variance)).log()
    torch.testing.assert_close(pooled, Cosine().log_snr(TIMES))


def test_a_shift_keeps_the_scales_of_what_it_moves() -> None:
    assert not Shifted(VarianceExploding(Cosine()), 1.0).variance_preserving
    alpha, _ = Shifted(VarianceExploding(Cosine()), 1.0).scales(TIMES)
    assert bool((alpha == 1).all())


def test_a_monotone_network_starts_near_a_straight_line() -> None:
    """Within a tenth of the way; its ends are the stated ones."""
    schedule = MonotoneNetwork(9.0, -4.0)
    with torch.no_grad():
        part = (9.0 - schedule.log_snr(TIMES)) / 13.0
    assert schedule.log_snr_range() == pytest.approx((9.0, -4.0), rel=1e-14)
    assert float((part - TIMES).abs().max()) < 0.1


@pytest.mark.parametrize("noisy", [-5.0, -30.0, -36.0, -40.0, -60.0])
@pytest.mark.parametrize("clean", [13.3, 30.0, 40.0])
@pytest.mark.parametrize(
    "build",
    [Cosine, partial(Cosine, 0.008), Sigmoid, partial(Sigmoid, 0.0, 3.0, 0.1), Logistic],
    ids=["cosine", "offset", "sigmoid", "steep", "logistic"],
)
def test_a_curve_has_its_stated_ends_however_far_out(
    build: Callable[..., Schedule], clean: float, noisy: float
) -> None:
    """However far out: each end is measured from its own side.

    By the arcsine alone, -38 and -40 both ended at -74.7 (cosine); as the whole less what has run,
    -33 ended at -33.36 and -36 nowhere (sigmoid); with an offset, 40 ended at 39.992 (cosine).
    """
    assert build(clean=clean, noisy=noisy).log_snr_range() == pytest.approx(
        (clean, noisy), rel=1e-12
    )


@pytest.mark.parametrize("schedule", [Cosine(0.008, 40.0, -40.0), Sigmoid(clean=40.0, noisy=-40.0)])
def test_a_slope_is_the_derivative_near_far_ends(schedule: Schedule) -> None:
    """In closed form, against automatic differentiation."""
    t = torch.cat([real(0.0, 1.0), 2.0 ** -torch.arange(1, 50), 1 - 2.0 ** -torch.arange(1, 50)])
    slope = schedule.slope(t)
    torch.testing.assert_close(slope, Schedule.slope(schedule, t), rtol=1e-9, atol=0)


@pytest.mark.parametrize("ends", [(13.3, -5.0), (22.0, -18.0), (60.0, -60.0)])
def test_a_log_normal_law_keeps_its_tails(ends: tuple[float, float]) -> None:
    """Down to what is smaller than rounding: there ``ndtr`` gives 0 (beyond -8.5), and 2 % less at -8."""
    schedule = LogNormal(clean=ends[0], noisy=ends[1])
    assert schedule.log_snr_range() == pytest.approx(ends, rel=1e-12)
    over, under = norm.sf(ends[0], 2.4, 2.4), norm.cdf(ends[1], 2.4, 2.4)
    assert (schedule.over, schedule.under) == pytest.approx((over, under), rel=1e-11)
    t = real(1e-12, 1e-9, 1e-3)
    expected = torch.from_numpy(norm.isf(over + schedule.inside * t.numpy(), 2.4, 2.4))
    torch.testing.assert_close(schedule.log_snr(t), expected, rtol=1e-11, atol=0)
    torch.testing.assert_close(schedule.time(expected), t, rtol=1e-9, atol=1e-19)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sigmoid(3.0, -3.0), "start < end"),
        (lambda: Sigmoid(temperature=0.0), "above 0"),
        (lambda: Sigmoid(clean=-5.0, noisy=5.0), "clean > noisy"),
        (lambda: Laplace(scale=-1.0), "a scale above 0"),
        (lambda: LogNormal(clean=0.0, noisy=1.0), "clean > noisy"),
        (lambda: Laplace(clean=math.inf), "finite log-SNR"),
        (lambda: Polynomial(0.0, 80.0), "0 < smallest < largest"),
        (lambda: Polynomial(rho=0.0), "rho > 0"),
        (lambda: Shifted(Cosine(), math.inf), "finite log-SNR"),
        (lambda: Shifted.to_resolution(Cosine(), 0), "resolution=0"),
        (lambda: MonotoneNetwork(0.0, 1.0), "clean > noisy"),
        (lambda: MonotoneNetwork(features=0), "features=0; expected at least 1"),
        (lambda: Cosine().betas(0), "steps=0; expected at least 1"),
    ],
)
def test_invalid_settings_of_a_schedule_are_refused(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build()
