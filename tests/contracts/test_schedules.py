"""Every schedule: a new one is added to the list."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from genmod import schedules
from genmod.schedules import Schedule
from tests.contracts.common import DEVICES, DTYPES, check_copies, check_tensor

SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "LinearLogSNR": schedules.LinearLogSNR,
    "LinearLogSNR, short": lambda: schedules.LinearLogSNR(2.0, -1.0),
    "Cosine, the lecture's": schedules.Cosine,
    "Cosine, offset": lambda: schedules.Cosine(0.008),
    "Table": lambda: schedules.Table(torch.tensor([5.0, 1.0, 0.5, -4.0])),
    "LinearBeta": lambda: schedules.LinearBeta(50),
    "ScaledLinearBeta": lambda: schedules.ScaledLinearBeta(50),
    "SigmoidBeta": lambda: schedules.SigmoidBeta(50),
    "CosineBeta": lambda: schedules.CosineBeta(50),
    "ZeroTerminalSNR": lambda: schedules.ZeroTerminalSNR(schedules.LinearBeta(50)),
    "Sigmoid": schedules.Sigmoid,
    "Sigmoid, steep and lopsided": lambda: schedules.Sigmoid(0.0, 3.0, 0.3),
    "LogNormal": schedules.LogNormal,
    "Laplace": schedules.Laplace,
    "Laplace, off center": lambda: schedules.Laplace(-7.0, 2.0),
    "Logistic": schedules.Logistic,
    "Polynomial": schedules.Polynomial,
    "Shifted": lambda: schedules.Shifted.to_resolution(schedules.Cosine(), 256),
    "VarianceExploding": lambda: schedules.VarianceExploding(schedules.LogNormal()),
    "RectifiedFlow": schedules.RectifiedFlow,
    "RectifiedFlow, logit-normal": lambda: schedules.RectifiedFlow(schedules.LogNormal(0.0, 1.0)),
    "MonotoneNetwork": schedules.MonotoneNetwork,
    "Cut": lambda: schedules.LinearBeta(50).cut(clean=2.0),
    "Cut, zero terminal SNR": lambda: schedules.ZeroTerminalSNR(schedules.LinearBeta(50)).cut(3.0),
}

every = pytest.mark.parametrize("name", list(SCHEDULES))


@every
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_everything_is_finite_and_a_row_each(
    name: str, dtype: torch.dtype, device: torch.device
) -> None:
    schedule = SCHEDULES[name]().to(device)
    t = torch.linspace(0, 1, 101, dtype=dtype, device=device)
    point = schedule.at(t)
    for field in (point.t, point.log_snr, point.alpha, point.sigma):
        check_tensor(field, (101,), t)
    for field in schedule.bridge(t[:-1], t[1:]):
        check_tensor(field, (100,), t)
    check_tensor(schedule.slope(t), (101,), t)
    assert schedule.log_snr_range() == pytest.approx(SCHEDULES[name]().log_snr_range(), abs=1e-5)


@every
def test_log_snr_decreases_from_its_clean_end_to_its_noisy_one(name: str) -> None:
    schedule = SCHEDULES[name]()
    schedule.check()
    with torch.no_grad():
        log_snr = schedule.log_snr(torch.linspace(0, 1, 5001, dtype=torch.float64))
    assert bool((log_snr.diff() < 0).all())
    clean, noisy = schedule.log_snr_range()
    assert clean > noisy
    assert (float(log_snr[0]), float(log_snr[-1])) == pytest.approx((clean, noisy))
    assert f"{clean:.4g} .. {noisy:.4g}" in repr(schedule)


@every
def test_the_ratio_of_alpha_and_sigma_is_the_log_snr(name: str) -> None:
    schedule = SCHEDULES[name]()
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    point = schedule.at(t)
    torch.testing.assert_close(2 * (point.alpha / point.sigma).log(), point.log_snr)
    alpha, sigma = schedule.scales(t)
    torch.testing.assert_close((alpha, sigma), (point.alpha, point.sigma))


@every
def test_the_slope_is_the_derivative(name: str) -> None:
    """By central differences, away from the entries of a table, where there is none."""
    schedule = SCHEDULES[name]()
    t = torch.linspace(0.005, 0.995, 98, dtype=torch.float64) + 1e-3 / torch.pi
    step = 1e-6
    numeric = (schedule.log_snr(t + step) - schedule.log_snr(t - step)) / (2 * step)
    torch.testing.assert_close(schedule.slope(t), numeric, rtol=1e-5, atol=1e-6)


@every
def test_time_is_the_inverse(name: str) -> None:
    schedule = SCHEDULES[name]()
    t = torch.linspace(0, 1, 301, dtype=torch.float64)
    back = schedule.time(schedule.log_snr(t))
    torch.testing.assert_close(back, t, rtol=0, atol=1e-11)
    torch.testing.assert_close(back[::60], Schedule._time(schedule, schedule.log_snr(t[::60])))
    clean, noisy = schedule.log_snr_range()
    assert schedule.time(torch.tensor([clean + 1, noisy - 1])).tolist() == [0.0, 1.0]


@every
def test_variance_preserving_is_true_exactly_where_the_variance_is_one(name: str) -> None:
    schedule = SCHEDULES[name]()
    alpha, sigma = schedule.scales(torch.linspace(0, 1, 101, dtype=torch.float64))
    unit = torch.allclose(alpha.square() + sigma.square(), torch.ones_like(alpha))
    assert unit == schedule.variance_preserving


@every
def test_a_copy_gives_the_same_numbers(name: str) -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)

    def answer(schedule: Schedule) -> Iterable[Tensor]:
        return [schedule.log_snr(t), *schedule.scales(t), schedule.slope(t)]

    check_copies(SCHEDULES[name], answer)


@every
def test_a_model_in_half_precision_keeps_its_schedule(name: str) -> None:
    """Neighboring levels differ by less than half precision resolves."""
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    expected = SCHEDULES[name]().log_snr(t)
    torch.testing.assert_close(SCHEDULES[name]().half().log_snr(t), expected, rtol=0, atol=0)
