r"""DPS and RePaint: each step is the paper's, and the bias of each is measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genmod.denoisers import Denoised, Denoiser
from genmod.denoisers.base import denoise
from genmod.diffusion import FixedLarge, FixedSmall
from genmod.inverse import DPS, Mask, Matrix, RePaint
from genmod.samplers import Ancestral, Sampler
from genmod.schedules import LinearLogSNR, Schedule
from tests.inverse.cases import Problem, mixing, nats_off
from tests.oracles import (
    F64,
    Bent,
    GaussianData,
    VarianceExploding,
    ancestral_law,
    correlated,
    real,
)
from tests.statistics import assert_mean

SCHEDULE = LinearLogSNR(8.0, -8.0)
T, S = real(0.6), real(0.5)


def ends(sampler: Sampler, steps: int, count: int = 2000) -> Tensor:
    """Last states of a chain from noise."""
    times = torch.linspace(1, 0, steps, dtype=F64)
    with torch.no_grad():
        return sampler.run(torch.randn(count, 3, dtype=F64), times)


@pytest.mark.parametrize("schedule", [SCHEDULE, VarianceExploding(SCHEDULE)], ids=repr)
def test_a_step_of_dps_is_an_ancestral_one_and_one_down_the_slope(schedule: Schedule) -> None:
    r"""``z_s - zeta / |r| grad |r|^2``, the gradient by autograd through the whole formula."""
    operator, y = Matrix(real(1.0, -0.5)[None]), real(0.3, 2.0)[:, None]
    denoiser, z = Bent().double(), torch.randn(2, 2, dtype=F64)
    t, s = T.expand(2), S.expand(2)
    torch.manual_seed(1)
    with torch.no_grad():
        found = DPS(
            denoiser, schedule, operator=operator, y=y, zeta=0.7, variance=FixedLarge()
        ).step(z, t, s)
    torch.manual_seed(1)
    plain = Ancestral(denoiser, schedule, FixedLarge()).step(z, t, s)
    leaf = z.clone().requires_grad_()
    residual = y - operator(denoise(denoiser, leaf, schedule.at(t)).x_hat)
    square = residual.square().sum(1)
    (gradient,) = torch.autograd.grad(square.sum(), leaf)
    expected = plain - 0.7 / square.sqrt()[:, None] * gradient
    torch.testing.assert_close(found, expected.detach())


def test_dps_without_a_step_is_the_chain() -> None:
    problem = mixing()
    sampler = DPS(
        problem.data.denoiser(), SCHEDULE, operator=problem.operator, y=problem.y, zeta=0.0
    )
    z = ends(sampler, 5, 10_000)
    mean, covariance = ancestral_law(problem.data, SCHEDULE, 5, FixedSmall())
    assert_mean(z, mean)
    assert_mean((z - mean).square(), covariance.diagonal())


def test_a_residual_of_zero_gives_no_step() -> None:
    """A measurement met exactly gives no NaN, and no step."""
    data = correlated()
    z = torch.zeros(1, 3, dtype=F64)
    operator = Matrix(torch.eye(3, dtype=F64))
    y = denoise(data.denoiser(), z, SCHEDULE.at(T)).x_hat
    torch.manual_seed(0)
    found = DPS(data.denoiser(), SCHEDULE, operator=operator, y=y).step(z, T, S)
    torch.manual_seed(0)
    plain = Ancestral(data.denoiser(), SCHEDULE).step(z, T, S)
    torch.testing.assert_close(found, plain)


INPAINTING = Problem(
    correlated(), Mask(torch.tensor([True, False, True])), real(1.0, -1.0)[None], 0
)


def repaint(data: GaussianData, repeats: int, jump: int = 5) -> RePaint:
    """The middle entry is hidden."""
    operator, y = INPAINTING.operator, INPAINTING.y
    return RePaint(data.denoiser(), SCHEDULE, operator=operator, y=y, repeats=repeats, jump=jump)


@pytest.mark.parametrize("repeats", [1, 3])
def test_repaint_is_exact_for_independent_entries(repeats: int) -> None:
    """Hidden entries follow their own chain, observed ones are the measurement, noised to ``t = 0``.

    For N(0, 1) entries and the large variance every chain is exact, noised again or not.
    """
    data = GaussianData(torch.zeros(3, dtype=F64), torch.eye(3, dtype=F64))
    sampler = RePaint(
        data.denoiser(),
        SCHEDULE,
        operator=INPAINTING.operator,
        y=INPAINTING.y,
        repeats=repeats,
        jump=2,
        variance=FixedLarge(),
    )
    z = ends(sampler, 7, 10_000)
    assert_mean(z[:, 1], 0.0)
    assert_mean(z[:, 1].square(), 1.0)
    alpha, sigma = (float(v) for v in SCHEDULE.scales(real(0.0)))
    off = INPAINTING.operator(z) - alpha * INPAINTING.y
    assert_mean(off, 0.0)
    assert_mean(off.square(), sigma**2)


def test_a_path_yields_each_time_once() -> None:
    """As many states as steps, whatever the repeats; ``evaluations`` counts the calls."""
    calls: list[float] = []
    data = correlated().denoiser()

    class Counted(Denoiser):
        def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
            calls.append(float(log_snr[0]))
            return data(z, log_snr, context)

    times = torch.linspace(1, 0, 12, dtype=F64)  # stretches of 5, 5 and 1 steps
    sampler = RePaint(
        Counted(), SCHEDULE, operator=INPAINTING.operator, y=INPAINTING.y, repeats=3, jump=5
    )
    states = list(sampler.path(torch.randn(2, 3, dtype=F64), times))
    assert len(states) == 11
    assert len(calls) == sampler.evaluations(11) == 5 + 3 * 5 + 3 * 1
    assert calls[:6] == SCHEDULE.log_snr(times[:6]).tolist()


def test_a_path_without_a_repeat_is_refused() -> None:
    """No more steps than ``jump``: ``repeats`` would be ignored. One more, or no repeat, is a path."""
    data = correlated()
    for steps, repeats, fine in ((5, 3, False), (1, 3, False), (6, 3, True), (5, 1, True)):
        sampler = repaint(data, repeats, jump=5)
        if fine:
            assert bool(ends(sampler, steps + 1, 2).isfinite().all())
        else:
            with pytest.raises(
                ValueError, match=rf"a path of {steps} steps .*more than jump=5 steps"
            ):
                ends(sampler, steps + 1, 2)


def test_noising_again_is_the_forward_process() -> None:
    """Noised again from ``s`` to ``t``, a state has the marginal ``q(z_t | x)``."""
    sampler, x = repaint(correlated(), 2), real(0.5, -1.0, 2.0)
    near, far = SCHEDULE.at(S), SCHEDULE.at(T)
    z_s = near.alpha * x + near.sigma * torch.randn(20_000, 3, dtype=F64)
    z_t = sampler._back(z_s, S[0], T[0])
    assert_mean(z_t, far.alpha * x)
    assert_mean((z_t - far.alpha * x).square(), float(far.sigma.square()))


def test_the_bias_of_repaint_falls_with_repeats() -> None:
    """Correlated data, the hidden entry's law against the exact posterior, in nats."""
    exact = INPAINTING.posterior()
    hidden = GaussianData(exact.mean[1:2], exact.covariance[1:2, 1:2])
    found = []
    for repeats in (1, 6):
        z = ends(repaint(INPAINTING.data, repeats), 60)[:, 1:2]
        found.append(nats_off(z.mean(0), z.T.cov().reshape(1, 1), hidden))
    assert found[0] > 0.1
    assert found[1] < 0.5 * found[0]


def test_the_bias_of_dps_depends_on_its_step() -> None:
    """A step too small stays at the prior, one too large at the measurement: nats from the posterior."""
    problem = mixing()
    found = {}
    for zeta in (0.0, 0.05, 1.0):
        sampler = DPS(
            problem.data.denoiser(), SCHEDULE, operator=problem.operator, y=problem.y, zeta=zeta
        )
        z = ends(sampler, 100, 1000)
        found[zeta] = nats_off(z.mean(0), z.T.cov(), problem.posterior())
    assert 0.02 < found[0.05] < 0.5 * min(found[0.0], found[1.0])


def test_bad_chains_are_refused() -> None:
    data = correlated()
    matrix, mask = Matrix(torch.ones(1, 3)), Mask(torch.tensor([True, True, False]))
    denoiser = data.denoiser()
    with pytest.raises(ValueError, match="expected a Mask"):
        RePaint(denoiser, SCHEDULE, operator=matrix, y=torch.zeros(1, 1))
    with pytest.raises(ValueError, match="repeats=0"):
        RePaint(denoiser, SCHEDULE, operator=mask, y=torch.zeros(1, 2), repeats=0)
    with pytest.raises(ValueError, match=r"\(B, 2\)"):
        RePaint(denoiser, SCHEDULE, operator=mask, y=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="zeta"):
        DPS(denoiser, SCHEDULE, operator=matrix, y=torch.zeros(1, 1), zeta=-1.0)
    with pytest.raises(ValueError, match="3 measurements for 2 rows"):
        DPS(denoiser, SCHEDULE, operator=matrix, y=torch.zeros(3, 1)).step(
            torch.zeros(2, 3, dtype=F64), T.expand(2), S.expand(2)
        )
