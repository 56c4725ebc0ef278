"""Closed-form baselines: exact masses and densities, Jensen's bound, the published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor

from genmod.data.toys import Correlated
from genmod.elbo import Stamp
from genmod.evaluation.baselines import (
    Baseline,
    gaussian,
    pixel_histogram,
    ppca,
)
from tests.statistics import assert_mean

LN2 = math.log(2)
SPLITS = 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(rows: int, dims: int, seed: int = 0) -> Tensor:
    """Gaussian rows whose covariance has all different eigenvalues."""
    mix = torch.randn(dims, dims, generator=seeded(seed), dtype=torch.float64)
    return 1.0 + torch.randn(rows, dims, generator=seeded(seed + 1), dtype=torch.float64) @ mix


def levels(rows: int, dims: int, bins: int, seed: int = 0) -> Tensor:
    """Dependent integers: a common offset plus noise, cut to the range."""
    common = torch.randint(bins, (rows, 1), generator=seeded(seed))
    noise = torch.randint(-1, 2, (rows, dims), generator=seeded(seed + 1))
    return (common + noise).clamp(0, bins - 1)


def test_histogram_masses_of_all_images_sum_to_one() -> None:
    """Two entries of five levels: all 25 images enumerated, one level never seen in training."""
    train = levels(30, 2, 4)
    every = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    baseline = pixel_histogram(train, every, bins=5)
    assert float(baseline.log_prob.exp().sum()) == pytest.approx(1.0, abs=1e-12)
    assert baseline.stamp is Stamp.EXACT


def test_pixel_histogram_is_the_sequential_kt_code() -> None:
    """Coding rows one by one, each under a histogram of those before it, costs what the closed
    form of Krichevsky and Trofimov says: Gamma(n_k + 1/2) over Gamma(1/2), over Gamma(N + K/2).
    """
    x, bins = levels(12, 1, 3), 3
    one_by_one = math.log(1 / bins)  # before anything was seen
    for row in range(1, len(x)):
        one_by_one += float(pixel_histogram(x[:row], x[row : row + 1], bins).log_prob)
    counts = torch.bincount(x.flatten(), minlength=bins).tolist()
    closed = math.lgamma(bins / 2) - math.lgamma(len(x) + bins / 2)
    closed += sum(math.lgamma(n + 0.5) - math.lgamma(0.5) for n in counts)
    assert one_by_one == pytest.approx(closed, abs=1e-12)


def test_pixels_are_scored_by_their_own_histogram() -> None:
    """Entry 0 is always 0 and entry 1 always 1; swapping them in the test row must cost."""
    train = torch.tensor([[0, 1]] * 20)
    right, swapped = pixel_histogram(train, torch.tensor([[0, 1], [1, 0]]), 2).log_prob.exp()
    assert float(right) == pytest.approx((20.5 / 21) ** 2)
    assert float(swapped) == pytest.approx((0.5 / 21) ** 2)


def test_gaussian_of_continuous_data_is_scipys() -> None:
    train, test = cloud(200, 4), cloud(50, 4, seed=7)
    baseline = gaussian(train, test, bins=None)
    covariance = np.cov(train.numpy().T, bias=True)
    oracle = stats.multivariate_normal(train.mean(0).numpy(), covariance).logpdf(test.numpy())
    torch.testing.assert_close(baseline.log_prob, torch.from_numpy(oracle), rtol=1e-10, atol=1e-10)
    assert baseline.stamp is Stamp.EXACT


def test_gaussian_of_gaussian_data_reaches_the_entropy() -> None:
    toy = Correlated(0.9, dtype=torch.float64)
    train, test = toy.sample((5000,), seeded(0)), toy.sample((5000,), seeded(1))
    assert_mean(-gaussian(train, test, bins=None).log_prob, toy.entropy(), name="entropy")


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_ppca_likelihood_on_training_rows_is_tipping_and_bishops_formula(rank: int) -> None:
    """-1/2 [d ln 2 pi + sum_{j <= q} ln l_j + (d - q) ln s^2 + d], which needs no density at all."""
    train = cloud(100, 4)
    spectrum = torch.linalg.eigvalsh(torch.cov(train.T, correction=0)).flip(0)
    noise = float(spectrum[rank:].mean())
    formula = 4 * math.log(2 * math.pi) + float(spectrum[:rank].log().sum())
    formula = -0.5 * (formula + (4 - rank) * math.log(noise) + 4)
    mean = float(ppca(train, train, None, rank).log_prob.mean())
    assert mean == pytest.approx(formula, abs=1e-11)


def test_ppca_is_scipys_gaussian_with_covariance_ww_plus_noise() -> None:
    train, test, rank = cloud(100, 5), cloud(20, 5, seed=7), 2
    spectrum, directions = torch.linalg.eigh(torch.cov(train.T, correction=0))
    noise = spectrum[: 5 - rank].mean()
    weights = directions[:, 5 - rank :] * (spectrum[5 - rank :] - noise).sqrt()
    covariance = weights @ weights.T + noise * torch.eye(5, dtype=torch.float64)
    oracle = stats.multivariate_normal(train.mean(0).numpy(), covariance.numpy())
    torch.testing.assert_close(
        ppca(train, test, None, rank).log_prob, torch.from_numpy(oracle.logpdf(test.numpy()))
    )


def test_ppca_with_all_but_one_direction_is_the_full_gaussian() -> None:
    x = levels(200, 6, 9)
    torch.testing.assert_close(ppca(x, x, 9, 5).log_prob, gaussian(x, x, 9).log_prob)


def test_a_larger_rank_cannot_fit_training_rows_worse() -> None:
    x = cloud(100, 6)
    ranks = [float(ppca(x, x, None, rank).log_prob.mean()) for rank in range(6)]
    assert ranks == sorted(ranks)


def dequantized(train: Tensor, test: Tensor, seed: int) -> stats.multivariate_normal:
    """SciPy's Gaussian with the moments of the training rows plus the same noise."""
    noise = torch.rand(train.shape, generator=seeded(seed), dtype=torch.float64)
    noisy = (train + noise).numpy()
    return stats.multivariate_normal(noisy.mean(0), np.cov(noisy.T, bias=True))


def test_closed_expectation_over_the_noise_is_the_mean_of_draws() -> None:
    train, test = levels(300, 3, 9), levels(20, 3, 9, seed=5)
    fitted = dequantized(train, test, seed=4)
    draws = torch.rand(4000, *test.shape, generator=seeded(6), dtype=torch.float64)
    sampled = torch.from_numpy(fitted.logpdf((test + draws).numpy())).mean(1)
    bound = gaussian(train, test, 9, seed=4)
    assert_mean(sampled, bound.log_prob.mean())
    assert bound.stamp is Stamp.BOUND


def test_bound_is_below_the_mass_that_the_density_gives_each_bin() -> None:
    """One entry, so that the mass of a bin is a difference of distribution functions. By
    Hoeffding's lemma the gap is at most 1/8 of the squared range of the log-density over the bin.
    """
    train, bins = levels(300, 1, 9), 9
    noisy = train + torch.rand(train.shape, generator=seeded(0), dtype=torch.float64)
    fitted = stats.norm(float(noisy.mean()), float(noisy.std(correction=0)))
    edges = np.arange(bins + 1)
    mass = np.log(np.diff(fitted.cdf(edges)))
    bound = gaussian(train, torch.arange(bins)[:, None], bins).log_prob.numpy()
    assert (bound < mass).all()
    spread = np.ptp([fitted.logpdf(np.arange(bins) + u) for u in np.linspace(0, 1, 101)], axis=0)
    assert (mass - bound <= spread**2 / 8).all()


def test_noise_is_seeded_and_a_constant_pixel_needs_no_ridge() -> None:
    x = torch.cat([levels(200, 3, 9), torch.zeros(200, 1, dtype=torch.int64)], 1)
    first, again, other = (gaussian(x, x, 9, seed).log_prob for seed in (0, 0, 1))
    assert bool(first.isfinite().all())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def numpy_split(seed: int) -> tuple[Tensor, Tensor]:
    """All digits, 1437 for training and 360 for the test, permuted by NumPy."""
    images = torch.from_numpy(load_digits().images).long()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(1797))
    return images[order[:1437]], images[order[1437:]]


def bits(baseline: Baseline) -> float:
    return float(-baseline.log_prob.mean()) / 64 / LN2


def test_baselines_on_the_digits_give_the_published_numbers() -> None:
    """Mean over five 80/20 splits, against reference values that were computed elsewhere.

    Reference (bits/dim): per-pixel histogram 2.425 +- 0.011 over splits, global histogram 2.979,
    full-covariance Gaussian 2.946 +- 0.016, pPCA of rank 2, 10, 20, 40: 4.00, 3.62, 3.42, 3.15.
    Both sides are means over five splits, so their difference has standard deviation
    ``spread sqrt(2 / 5)``; three of those is the tolerance, plus half of the last printed digit.
    """
    expected = {
        "per-pixel histogram": (2.425, 0.011, 5e-4),
        "full-covariance Gaussian": (2.946, 0.016, 5e-4),
        "pPCA of rank 2": (4.00, 0.010, 5e-3),
        "pPCA of rank 10": (3.62, 0.011, 5e-3),
        "pPCA of rank 20": (3.42, 0.014, 5e-3),
        "pPCA of rank 40": (3.15, 0.014, 5e-3),
    }
    totals = dict.fromkeys(expected, 0.0)
    for seed in range(SPLITS):
        train, test = numpy_split(seed)
        results = [
            pixel_histogram(train, test, 17),
            gaussian(train, test, 17, seed),
            *(ppca(train, test, 17, rank, seed) for rank in (2, 10, 20, 40)),
        ]
        for baseline in results:
            totals[baseline.name] += bits(baseline) / SPLITS
    for name, (value, spread, digit) in expected.items():
        assert abs(totals[name] - value) < 3 * spread * math.sqrt(2 / SPLITS) + digit, name


def test_bad_baselines_are_refused() -> None:
    x = levels(20, 3, 5)
    for build, message in (
        (lambda: pixel_histogram(x, x + 1, 5), "out-of-range values in test"),
        (lambda: pixel_histogram(x, x[:, :2], 5), "rows of one event shape"),
        (lambda: gaussian(x, x, None), "bins=None"),
        (lambda: ppca(x, x, 5, 3), "expected 0 to 2"),
        (lambda: gaussian(torch.ones(20, 2), torch.ones(20, 2), None), "a singular covariance"),
        (lambda: gaussian(x[:3], x, 5), "bring more rows"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
