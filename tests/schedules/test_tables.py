r"""Tables of betas against the library they are best known from, and every schedule re-spaced."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from genmod.diffusion import NoisingEncoder
from genmod.schedules import (
    Cosine,
    CosineBeta,
    Laplace,
    LinearBeta,
    LinearLogSNR,
    LogNormal,
    MonotoneNetwork,
    Polynomial,
    RectifiedFlow,
    ScaledLinearBeta,
    Schedule,
    Shifted,
    Sigmoid,
    SigmoidBeta,
    Table,
    VarianceExploding,
    ZeroTerminalSNR,
)
from tests.oracles import F64, real

CURVES: list[Schedule] = [
    LinearLogSNR(),
    Cosine(0.008),
    Sigmoid(),
    Laplace(),
    VarianceExploding(LogNormal()),
    Polynomial(),
    RectifiedFlow(),
    Shifted(Cosine(), -1.4),
    LinearBeta(1000),
    ZeroTerminalSNR(ScaledLinearBeta(1000)),
    MonotoneNetwork(),
]
every_curve = pytest.mark.parametrize("schedule", CURVES, ids=lambda s: type(s).__name__)
TABLES: list[tuple[Table, str, float, float]] = [
    (LinearBeta(1000), "linear", 1e-4, 0.02),
    (LinearBeta(200, 1e-3, 0.1), "linear", 1e-3, 0.1),
    (ScaledLinearBeta(1000), "scaled_linear", 8.5e-4, 0.012),
    (CosineBeta(1000), "squaredcos_cap_v2", 1e-4, 0.02),
    (CosineBeta(50), "squaredcos_cap_v2", 1e-4, 0.02),
    (SigmoidBeta(1000), "sigmoid", 1e-4, 0.02),
]


def theirs(
    name: str, first: float, last: float, steps: int, zero: bool = False
) -> tuple[Tensor, Tensor]:
    """The other library's betas and cumulative products: its float32, as float64."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=steps,
        beta_start=first,
        beta_end=last,
        beta_schedule=name,
        rescale_betas_zero_snr=zero,
    )
    return scheduler.betas.double(), scheduler.alphas_cumprod.double()


@pytest.mark.parametrize(("table", "name", "first", "last"), TABLES, ids=lambda case: str(case))
def test_tables_are_those_of_diffusers(table: Table, name: str, first: float, last: float) -> None:
    """Alpha bars to 1e-6, and all betas to float32's rounding, one clipped to 0.999 included."""
    steps = len(table.table)
    betas, alpha_bars = theirs(name, first, last, steps)
    torch.testing.assert_close(table.alpha_bars(steps), alpha_bars, rtol=0, atol=1e-6)
    torch.testing.assert_close(table.betas(steps), betas, rtol=3e-7, atol=0)


@pytest.mark.parametrize(
    ("table", "name", "first", "last"),
    [TABLES[0], TABLES[2], TABLES[4]],
    ids=lambda case: str(case),
)
def test_zero_terminal_tables_are_those_of_diffusers(
    table: Table, name: str, first: float, last: float
) -> None:
    """Lin et al. (2024), algorithm 1."""
    steps = len(table.table)
    ours = ZeroTerminalSNR(table).alpha_bars(steps)
    _, alpha_bars = theirs(name, first, last, steps, zero=True)
    torch.testing.assert_close(ours, alpha_bars, rtol=0, atol=1e-6)
    assert float(ours[0]) == pytest.approx(float(table.alpha_bars(steps)[0]), rel=1e-12)


def test_the_floor_of_a_zero_terminal_table_has_no_signal_in_float32() -> None:
    """``alpha x + sigma eps`` is ``eps`` to less than half of float32's spacing at one."""
    schedule = ZeroTerminalSNR(LinearBeta(1000))
    assert schedule.log_snr_range()[1] == -40
    x, eps = torch.randn(2, 1000)
    q = NoisingEncoder(schedule)(x[None]).at(real(1.0))
    left = ((q.mean + q.stddev * eps)[0] - eps).abs().max()
    assert 0 < float(left) < torch.finfo(torch.float32).eps / 4


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ZeroTerminalSNR(LinearBeta(1000), floor=-5.0), "a lower floor"),
        (lambda: ScaledLinearBeta(10, first=-1e-4), r"inside \(0, 1\)"),
        (lambda: LinearBeta(10, last=1.0), "ZeroTerminalSNR"),
        (lambda: CosineBeta(offset=-1.0), "offset=-1.0; expected at least 0"),
        (lambda: LinearBeta(0), "at least 2"),
        (lambda: CosineBeta(1), "at least 2"),
    ],
)
def test_a_table_that_cannot_be_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# ---------------------------------------------------------------------- any number of steps


@every_curve
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_betas_rebuild_the_curve(schedule: Schedule, steps: int) -> None:
    """The lecture's product of ``1 - beta`` is the curve's alpha bar at each node."""
    betas, alpha_bars = schedule.betas(steps), schedule.alpha_bars(steps)
    assert bool(((betas > 0) & (betas <= 1)).all())
    product = torch.from_numpy(np.cumprod(1 - betas.numpy()))
    torch.testing.assert_close(product, alpha_bars, rtol=1e-6, atol=1e-9)
    rebuilt = torch.special.logit(alpha_bars)
    with torch.no_grad():
        log_snr = schedule.log_snr(torch.linspace(0, 1, steps, dtype=F64))
    seen = log_snr > -30
    torch.testing.assert_close(rebuilt[seen], log_snr[seen], rtol=1e-9, atol=1e-8)


def test_a_table_gives_its_own_betas_back() -> None:
    expected = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    torch.testing.assert_close(LinearBeta(1000).betas(1000), expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("steps", [2, 4, 10, 28, 38, 112, 334])
def test_a_divisor_of_a_table_visits_its_own_nodes(steps: int) -> None:
    r"""``steps - 1`` divides 999: each latent is one of the thousand, and the new betas are

    :math:`1 - \bar\alpha_i / \bar\alpha_{i-1}` of those (Nichol, Dhariwal 2021, eq. 19).
    """
    table = LinearBeta(1000)
    own = table.alpha_bars(1000)[:: 999 // (steps - 1)]
    torch.testing.assert_close(table.alpha_bars(steps), own, rtol=1e-12, atol=0)
    before = torch.cat([real(1.0), own[:-1]])
    torch.testing.assert_close(table.betas(steps), 1 - own / before, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("steps", [20, 50, 250])
def test_any_number_of_steps_stays_between_a_tables_nodes(steps: int) -> None:
    """Off its nodes a table is read on straight lines of the log-SNR: never outside its neighbors."""
    table = LinearBeta(1000)
    alpha_bars, own = table.alpha_bars(steps), table.alpha_bars(1000)
    place = torch.arange(steps, dtype=F64) * 999 / (steps - 1)
    above = own[(place + 1e-9).floor().long()]
    below = own[(place - 1e-9).ceil().long()]
    assert bool((alpha_bars <= above * (1 + 1e-12)).all())
    assert bool((alpha_bars >= below * (1 - 1e-12)).all())


@every_curve
def test_fewer_steps_are_the_same_process(schedule: Schedule) -> None:
    r"""Leaving a latent out integrates it out, both ways:

    the forward step ``s -> t`` is ``s -> m -> t``, and :math:`q(z_s | z_t, x)` is
    :math:`\int q(z_s | z_m, x)\, q(z_m | z_t, x)\, dz_m`.
    """
    grid = torch.linspace(0, 1, 13, dtype=F64)
    s, m, t = grid[:-2], grid[1:-1], grid[2:]
    with torch.no_grad():
        whole, late, early = schedule.bridge(s, t), schedule.bridge(m, t), schedule.bridge(s, m)
        near, middle, far = schedule.at(s), schedule.at(m), schedule.at(t)
    torch.testing.assert_close(early.coef_z * late.coef_z, whole.coef_z, rtol=1e-9, atol=0)
    data = early.coef_z * late.coef_x + early.coef_x
    torch.testing.assert_close(data, whole.coef_x, rtol=1e-9, atol=1e-12)
    variance = (2 * early.log_std).exp() + (early.coef_z * late.log_std.exp()).square()
    torch.testing.assert_close(variance, (2 * whole.log_std).exp(), rtol=1e-9, atol=0)

    def added(a: Tensor, b: Tensor, sigma_a: Tensor, sigma_b: Tensor) -> Tensor:
        return sigma_b.square() - (b / a * sigma_a).square()

    twice = (far.alpha / middle.alpha).square() * added(
        near.alpha, middle.alpha, near.sigma, middle.sigma
    ) + added(middle.alpha, far.alpha, middle.sigma, far.sigma)
    once = added(near.alpha, far.alpha, near.sigma, far.sigma)
    torch.testing.assert_close(twice, once, rtol=1e-9, atol=1e-12)
