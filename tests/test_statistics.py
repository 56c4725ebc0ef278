"""The statistical assertions alarm when they should, and only then."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from tests.statistics import MAX_Z, assert_equal_means, assert_mean


def test_the_threshold_is_the_normal_quantile_of_one_in_a_million() -> None:
    assert stats.norm.isf(0.5e-6) <= MAX_Z < stats.norm.isf(0.4e-6)


def test_a_true_mean_passes_and_one_six_standard_errors_away_fails() -> None:
    samples = torch.randn(10_000, 3, generator=torch.Generator().manual_seed(0)).double()
    assert_mean(samples, 0.0)
    assert_mean(samples, torch.zeros(3))
    with pytest.raises(AssertionError, match="height: off by"):
        assert_mean(samples, torch.tensor([0.0, 0.06, 0.0]) + samples.mean(0), name="height")


def test_two_sets_combine_their_errors() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(10_000, generator=generator).double() for _ in range(2))
    error = math.hypot(float(a.std()), float(b.std())) / 100
    centered = b - b.mean() + a.mean()
    assert_equal_means(a, centered + 4.8 * error)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_equal_means(a, centered + 5 * error)


def test_samples_without_spread_must_equal_the_expected_number() -> None:
    assert_mean(torch.full((10,), 0.1), float(torch.tensor(0.1)))
    with pytest.raises(AssertionError):
        assert_mean(torch.full((10,), 0.1), 0.1 + 1e-6)


def test_broken_samples_are_refused() -> None:
    with pytest.raises(AssertionError, match="not finite"):
        assert_mean(torch.tensor([0.0, math.nan]), 0.0)
    with pytest.raises(AssertionError, match="no standard error"):
        assert_mean(torch.zeros(1), 0.0)
    with pytest.raises(AssertionError, match="wrong shape"):
        assert_mean(torch.zeros(4), torch.zeros(4))
