r"""The order of every solver, measured against the exact probability flow.

The denoiser is the optimal one, the grid even in log-SNR (so in :math:`\log(\alpha/\sigma)`) with finite
ends, no step of lower order at the end; the order is the slope of log error against log steps over
several numbers of steps.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from genmod.denoisers import Denoised, Denoiser
from genmod.samplers import (
    DDIM,
    IPNDM,
    DPMSolver,
    Euler,
    Heun,
    PolynomialGrid,
    Sampler,
    UniformLogSNR,
    UniPC,
)
from genmod.samplers.dpm import phi
from genmod.samplers.multistep import ADAMS_BASHFORTH
from genmod.schedules import Cosine, LinearLogSNR, Schedule
from genmod.tensors import expand_like
from tests.oracles import F64, RectifiedFlow, VarianceExploding, correlated, real
from tests.samplers.cases import MIXTURE, flowed

DATA = correlated()
SCHEDULE = LinearLogSNR(6.0, -6.0)
COUNTS = (32, 64, 128)
GAUSSIAN = real(0.3, -1.0, 0.8)[None] + torch.linspace(-1, 1, 4, dtype=F64)[:, None]
LINE = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
PROBLEMS: dict[str, tuple[Denoiser, Tensor, Tensor]] = {
    "Gaussian": (DATA.denoiser(), GAUSSIAN, flowed(DATA, GAUSSIAN, SCHEDULE, 1, 0)),
    "mixture": (MIXTURE.denoiser, LINE, MIXTURE.flowed(LINE, SCHEDULE, 1, 0)),
}


def grid(steps: int, fine: int) -> Tensor:
    """Even in log-SNR; the first step cut into ``fine``: a start without lower orders' errors."""
    times = UniformLogSNR().times(SCHEDULE, steps)
    start = torch.linspace(1, float(times[1]), fine + 1, dtype=F64)
    return torch.cat([start[:-1], times[1:]])


def order(sampler: Sampler, problem: str, fine: int = 1, counts: tuple[int, ...] = COUNTS) -> float:
    """Minus the slope of log error against log steps, by least squares."""
    denoiser, z, exact = PROBLEMS[problem]
    bound = sampler.bind(denoiser, SCHEDULE)
    errors = [(bound.run(z, grid(n, fine)) - exact).square().mean().sqrt() for n in counts]
    x, y = real(*counts).log(), torch.stack(errors).log()
    x, y = x - x.mean(), y - y.mean()
    return -float((x * y).sum() / x.square().sum())


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (Euler(), 1),
        (DDIM(), 1),
        (DPMSolver(order=1), 1),
        (IPNDM(order=1), 1),
        (Heun(published=True), 2),
        (DPMSolver(order=2), 2),
        (UniPC(order=1), 2),
        (UniPC(order=2, scale="bh2"), 3),
        (UniPC(order=2, scale="bh1"), 3),
    ],
    ids=repr,
)
def test_order(sampler: Sampler, expected: int, problem: str) -> None:
    """The order that the paper states."""
    assert order(sampler, problem) == pytest.approx(expected, abs=0.15)


def test_order_of_heun() -> None:
    """Second; for Gaussian data third, since its weight is odd."""
    assert order(Heun(), "mixture") == pytest.approx(2, abs=0.15)
    assert order(Heun(), "Gaussian") == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_order_of_ipndm_off_its_grid(problem: str) -> None:
    """Second where steps of ``r`` are not equal, whatever it remembers; it takes more steps to show."""
    for count in (2, 4):
        found = order(IPNDM(order=count), problem, counts=(192, 256, 384))
        assert found == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_third_order_lacks_a_factor_two_as_published(problem: str) -> None:
    """3M as published is of second order, whatever its start; with twice its second difference, third."""
    published, corrected = (DPMSolver(order=3, published=flag) for flag in (True, False))
    for fine in (1, 8):
        assert order(published, problem, fine) == pytest.approx(2, abs=0.3)
    # Gaussian data are kind to it on the way to the asymptote: from above.
    assert 2.9 < order(corrected, problem) < 4
    assert 2.9 < order(corrected, problem, fine=8) < 4


@pytest.mark.parametrize("scale", ["bh1", "bh2"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_unipc_of_order_three_is_better_than_third(problem: str, scale: str) -> None:
    """Its corrector gains an order where the start lets it."""
    assert order(UniPC(order=3, scale=scale), problem, fine=8) > 3


class Polynomials(Denoiser):
    r"""The :math:`\hat x` whose noise :math:`(z - \alpha \hat x) / \sigma` is a polynomial of ``r``."""

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """The data that go with that noise."""
        r = expand_like((-0.5 * log_snr).exp(), z)
        return Denoised(z * (1 + r.square()).sqrt() - r * r**self.degree)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_ipndm_is_exact_for_polynomials_once_it_remembers_enough(count: int) -> None:
    r"""In :math:`y = z/\alpha`, equal steps of ``r``: :math:`\int r^k dr` for ``k`` below the order."""
    schedule = LinearLogSNR(4.0, -1.0)
    times = PolynomialGrid(rho=1).times(schedule, 12)
    r = (-0.5 * schedule.log_snr(times)).exp()
    alpha = schedule.log_snr(times).sigmoid().sqrt()
    z = real(0.5)[None]
    for degree in range(count):
        flow = IPNDM(Polynomials(degree), schedule, order=count, published=True)
        y = torch.stack([z, *flow.path(z, times)]).flatten() / alpha
        exact = r.pow(degree + 1) / (degree + 1)
        torch.testing.assert_close(y.diff()[count - 1 :], exact.diff()[count - 1 :])
        if degree > 0:
            assert not torch.allclose(y.diff()[:1], exact.diff()[:1])
    assert sum(ADAMS_BASHFORTH[count - 1]) == pytest.approx(1)


class Kicked(Denoiser):
    """The same data, whatever the state; once, at the noisiest level, off by 1e-9 of the noise."""

    def __init__(self, noisiest: float) -> None:
        super().__init__()
        self.noisiest = noisiest

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """Ones."""
        r = expand_like((-0.5 * log_snr).exp(), z)
        return Denoised(torch.ones_like(z) + 1e-9 * r * (log_snr[0] < self.noisiest + 1e-6))


@pytest.mark.parametrize(("count", "limit"), [(2, 2.19), (3, 1.12), (4, 0.60)])
def test_ipndm_is_stable_up_to_a_rise_of_log_snr(count: int, limit: float) -> None:
    """An error grows beyond it, and not below; the flow itself is a straight line here, at any step.

    By default a longer step has a lower order, and no error grows.
    """
    errors = []
    for rise in (0.95 * limit, 1.1 * limit):
        steps = 300 if count > 2 else 100
        schedule = LinearLogSNR(1.0, 1.0 - rise * steps)
        times = UniformLogSNR().times(schedule, steps)
        alpha, sigma = schedule.scales(real(0.0, 1.0))
        exact = alpha[0] + sigma[0] * (0.3 - alpha[1]) / sigma[1]
        for published in (True, False):
            solver = IPNDM(Kicked(schedule.noisy), schedule, order=count, published=published)
            errors.append(float((solver.run(real(0.3)[None], times) - exact).abs()))
    assert max(errors[0], errors[1], errors[3]) < 1e-7
    assert errors[2] > 1e3 * errors[0]


def test_phi_near_zero_and_far_from_it() -> None:
    r"""The recursion where it keeps its digits, and :math:`1/k!` at zero."""
    x = real(-3.0, -0.51, -0.49, -1e-3, 0.0, 1e-9, 0.49, 0.51, 2.0)
    nodes = torch.linspace(0, 1, 4001, dtype=F64)
    for k in (1, 2, 3, 4):
        integrand = ((1 - nodes) * x[:, None]).exp() * nodes ** (k - 1) / math.factorial(k - 1)
        simpson = (integrand[:, :-1:2] + 4 * integrand[:, 1::2] + integrand[:, 2::2]).sum(1) / 12000
        torch.testing.assert_close(phi(k, x), simpson, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    "schedule",
    [SCHEDULE, Cosine(0.008, 6.0, -6.0), VarianceExploding(SCHEDULE), RectifiedFlow(SCHEDULE)],
    ids=repr,
)
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.0), (0.0, 1.0)], ids=["to data", "to noise"])
@pytest.mark.parametrize(
    "sampler", [Heun(published=True), DPMSolver(order=2), UniPC(order=1)], ids=repr
)
def test_second_order_on_any_schedule_either_way(
    sampler: Sampler, schedule: Schedule, t: float, s: float
) -> None:
    """The error against the exact map falls four times as steps double, in either direction.

    Between 60 and 120 steps: a first order would show 1, far outside the tolerance.
    """
    exact = flowed(DATA, GAUSSIAN, schedule, t, s)
    flow = sampler.bind(DATA.denoiser(), schedule)
    errors = []
    for count in (60, 120):
        found = flow.run(GAUSSIAN, torch.linspace(t, s, count + 1, dtype=F64))
        errors.append(float((found - exact).abs().max() / exact.abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.25)
    assert errors[1] < 0.02


def test_samplers_pass_log_snr_and_context_to_the_denoiser() -> None:
    """As in training: variance-preserving states, log-SNR, context."""

    class Listening(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[tuple[float, Tensor | None]] = []
            self.inner = nn.Identity()

        def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
            self.heard.append((float(log_snr[0]), context))
            return Denoised(self.inner(z))

    told = torch.ones(1, 2)
    for sampler in (Euler(), DPMSolver(order=3, published=True), UniPC()):
        ear = Listening()
        sampler.bind(ear, SCHEDULE).run(GAUSSIAN[:1], real(1.0, 0.5, 0.0), told)
        assert [level for level, _ in ear.heard] == [-6.0, 0.0]
        assert all(context is told for _, context in ear.heard)
