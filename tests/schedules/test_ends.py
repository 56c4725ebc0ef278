"""Free ends, which follow from the data, and cut tables."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from genmod import schedules
from genmod.config.plain import from_plain, to_plain
from genmod.schedules import Schedule
from genmod.schedules.consistency import clean_end
from genmod.spec import DataSpec

F64 = torch.float64
TIMES = torch.linspace(0, 1, 301, dtype=F64)


def described(bins: int | None) -> DataSpec:
    """Data of a number of values, or real ones."""
    return DataSpec((3,), bins)


FREE: dict[str, Callable[[], Schedule]] = {
    "LinearLogSNR": schedules.LinearLogSNR,
    "Cosine": schedules.Cosine,
    "Cosine, offset": lambda: schedules.Cosine(0.008),
    "Sigmoid": schedules.Sigmoid,
    "LogNormal": schedules.LogNormal,
    "Laplace": schedules.Laplace,
    "Logistic": schedules.Logistic,
    "Polynomial": schedules.Polynomial,
    "MonotoneNetwork": schedules.MonotoneNetwork,
    "RectifiedFlow": schedules.RectifiedFlow,
    "Shifted": lambda: schedules.Shifted(schedules.Cosine(), -1.5),
    "VarianceExploding": lambda: schedules.VarianceExploding(schedules.LogNormal()),
}
STATED: dict[str, Callable[[], Schedule]] = {
    "LinearLogSNR": lambda: schedules.LinearLogSNR(13.3),
    "Cosine": lambda: schedules.Cosine(clean=9.0),
    "Polynomial": lambda: schedules.Polynomial(0.002),
    "Shifted": lambda: schedules.Shifted(schedules.Cosine(clean=4.0), 1.0),
    "Cut": lambda: schedules.LinearBeta(100).cut(clean=2.0),
}


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("bins", [2, 8, 17, 64, 256, None])
def test_a_free_end_follows_from_the_number_of_values(name: str, bins: int | None) -> None:
    """In a copy: the schedule that was handed over stays free."""
    schedule = FREE[name]()
    before = schedule.log_snr_range()
    bound = schedule.resolve(described(bins))
    assert bound is not schedule
    assert schedule.log_snr_range() == before
    assert "clean end free" in repr(schedule)
    assert "clean end free" not in repr(bound)
    assert bound.log_snr_range()[0] == pytest.approx(clean_end(bins), abs=1e-5)
    assert bound.log_snr_range()[1] == pytest.approx(before[1], abs=1e-5)
    bound.check()
    assert bound.resolve(described(bins)) is bound


@pytest.mark.parametrize("name", FREE)
def test_a_resolved_schedule_is_written_and_read_with_its_end(name: str) -> None:
    """As plain data; the free one stays free."""
    schedule = FREE[name]()
    bound = schedule.resolve(described(17))
    read, free = from_plain(to_plain(bound)), from_plain(to_plain(schedule))
    assert isinstance(read, Schedule)
    assert isinstance(free, Schedule)
    torch.testing.assert_close(read.log_snr(TIMES), bound.log_snr(TIMES), rtol=1e-12, atol=1e-12)
    assert repr(free) == repr(schedule)


@pytest.mark.parametrize("name", STATED)
def test_stated_ends_are_kept(name: str) -> None:
    schedule = STATED[name]()
    assert schedule.resolve(described(17)) is schedule


def test_a_resolved_curve_is_the_one_with_that_end_stated() -> None:
    found = schedules.Cosine().resolve(described(17))
    stated = schedules.Cosine(clean=clean_end(17))
    torch.testing.assert_close(found.log_snr(TIMES), stated.log_snr(TIMES), rtol=0, atol=0)


def test_a_resolved_learned_schedule_keeps_what_it_learned() -> None:
    learned = schedules.MonotoneNetwork(features=4)
    with torch.no_grad():
        learned.log_weight.add_(1.0)
    bound = learned.resolve(described(17))
    assert isinstance(bound, schedules.MonotoneNetwork)
    torch.testing.assert_close(bound.path(TIMES)[0], learned.path(TIMES)[0])


def test_more_values_need_a_cleaner_end() -> None:
    ends = [clean_end(n) for n in range(3, 300)]
    assert all(low <= high for low, high in pairwise(ends))


@pytest.mark.parametrize(
    "table",
    [
        schedules.LinearBeta(1000),
        schedules.CosineBeta(100),
        schedules.ZeroTerminalSNR(schedules.LinearBeta(1000)),
    ],
    ids=repr,
)
def test_a_cut_table_is_its_own_curve_between_other_ends(table: schedules.Table) -> None:
    """Its log-SNRs are the table's at the times the table has them."""
    cut = table.cut(clean=2.0, noisy=-4.0)
    assert cut.log_snr_range() == pytest.approx((2.0, -4.0), abs=1e-9)
    log_snr = cut.log_snr(TIMES)
    inner = table.time(log_snr)
    torch.testing.assert_close(inner.diff(), inner.diff()[:1].expand(300), rtol=1e-6, atol=0)
    torch.testing.assert_close(table.log_snr(inner), log_snr)


@pytest.mark.parametrize(("clean", "noisy"), [(12.0, None), (None, -50.0), (-4.0, -3.0)])
def test_a_cut_outside_the_table_is_refused(clean: float | None, noisy: float | None) -> None:
    with pytest.raises(ValueError, match="ends inside its own, clean > noisy"):
        schedules.LinearBeta(1000).cut(clean, noisy)


def test_a_table_that_ends_far_too_clean_warns_and_names_the_cut() -> None:
    table = schedules.LinearBeta(1000)
    with pytest.warns(UserWarning, match=r"17 values .* schedule\.cut\(clean=1\.83\)"):
        assert table.resolve(described(17)) is table
    with pytest.warns(UserWarning, match="cut"):
        schedules.VarianceExploding(table).resolve(described(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table.resolve(described(256))
        table.resolve(described(None))
        table.cut(clean=2.0).resolve(described(17))
