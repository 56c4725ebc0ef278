"""Grids of times: even in their variable, on every schedule, with finite ends."""

from __future__ import annotations

import pytest
import torch

from genmod.samplers import PolynomialGrid, UniformLogSNR, UniformTime
from genmod.samplers.grids import TimeGrid
from genmod.schedules import Cosine, Laplace, LinearBeta, LinearLogSNR, Schedule
from tests.oracles import F64

SCHEDULES = [Cosine(), LinearBeta(1000), LinearLogSNR(13.3, -40.0)]
GRIDS = [
    UniformTime(),
    UniformLogSNR(),
    PolynomialGrid(),
    PolynomialGrid(rho=1),
    PolynomialGrid(rho=30),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("grid", GRIDS, ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 37])
def test_a_grid_falls_from_noise_to_data(grid: TimeGrid, schedule: Schedule, steps: int) -> None:
    """Strictly, and from end to end exactly."""
    times = grid.times(schedule, steps)
    assert len(times) == steps + 1
    assert (float(times[0]), float(times[-1])) == (1, 0)
    assert bool((times.diff() < 0).all())
    assert times.dtype is F64


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_steps_are_even_in_the_grids_variable(schedule: Schedule) -> None:
    r"""In ``t``; in log-SNR; in :math:`(\sigma/\alpha)^{1/\rho}`."""

    def even(values: torch.Tensor) -> None:
        steps = values.diff()
        torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-6, atol=1e-9)

    even(UniformTime().times(schedule, 20))
    even(schedule.log_snr(UniformLogSNR().times(schedule, 20)))
    for rho in (1.0, 3.0, 7.0):
        log_snr = schedule.log_snr(PolynomialGrid(rho).times(schedule, 20))
        even((-0.5 * log_snr / rho).exp())


def test_the_polynomial_grid_tends_to_the_even_one() -> None:
    """As ``rho`` grows, to equal steps of log-SNR."""
    far, even = PolynomialGrid(1e6).times(Cosine(), 20), UniformLogSNR().times(Cosine(), 20)
    torch.testing.assert_close(far, even, rtol=0, atol=1e-4)


@pytest.mark.parametrize("grid", [UniformLogSNR(), PolynomialGrid()], ids=repr)
def test_a_grid_finer_than_time_itself_is_refused(grid: TimeGrid) -> None:
    """A double below one is 1e-16 away: for a Laplace law, from a log-SNR of -18 to -40 there is none.

    Near zero doubles are dense, so the clean end may lie where it likes.
    """
    far = Laplace(clean=40.0, noisy=-40.0)
    with pytest.raises(ValueError, match=r"log_snr 40 \.\. -40\).*log-SNR -18; raise .*noisy="):
        grid.times(far, 20)
    assert len(UniformTime().times(far, 20)) == 21
    assert bool((grid.times(Laplace(clean=40.0), 200).diff() < 0).all())


def test_a_grid_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="steps=0; expected at least 1"):
        UniformTime().times(Cosine(), 0)
    with pytest.raises(ValueError, match="rho=0"):
        PolynomialGrid(0)
