"""Full covariances: KL, entropy, density and distance against other libraries, and their laws."""

from __future__ import annotations

import math

import numpy as np
import pyro.distributions as pyro
import pytest
import torch
from hypothesis import given
from scipy import integrate, linalg, stats
from torch.distributions import MultivariateNormal, kl_divergence

from genmod import gaussian
from genmod.gaussian.full import kl_standard_full, wasserstein_squared_full
from genmod.gaussian.kernels import kl_log_std
from tests.gaussian.cases import (
    FEW,
    PROFILE,
    assert_same,
    covariance,
    double,
    factor,
    generator,
    moderate_log_stds,
    moderate_means,
    seeds,
    sizes,
    vector,
)
from tests.statistics import assert_mean


@PROFILE
@given(seeds, sizes)
def test_kl_equals_torch_and_pyro(seed: int, dims: int) -> None:
    draw = generator(seed)
    mean_q, mean_p = vector(draw, 2, 3, dims)
    tril_q, tril_p = factor(draw, dims, 3), factor(draw, dims)
    p = MultivariateNormal(mean_p, scale_tril=tril_p)
    expected = kl_divergence(MultivariateNormal(mean_q, scale_tril=tril_q), p)
    assert_same(gaussian.kl_full(mean_q, tril_q, mean_p, tril_p), expected, 1e-10)
    std_q = tril_q.diagonal(dim1=-2, dim2=-1)
    diagonal = pyro.Normal(mean_q, std_q).to_event(1)
    full = pyro.MultivariateNormal(mean_p, scale_tril=tril_p)
    got = gaussian.kl_full(mean_q, torch.diag_embed(std_q), mean_p, tril_p)
    assert_same(got, kl_divergence(diagonal, full), 1e-10)


@PROFILE
@given(seeds, sizes)
def test_the_standard_form_and_the_diagonal_form_are_special_cases(seed: int, dims: int) -> None:
    draw = generator(seed)
    mean_q, mean_p, log_std_q, log_std_p = vector(draw, 4, dims)
    tril, zero, one = factor(draw, dims), torch.zeros_like(mean_q), torch.eye(dims).double()
    standard = kl_standard_full(mean_q, tril)
    assert_same(standard, gaussian.kl_full(mean_q, tril, zero, one))
    diagonal = kl_log_std(mean_q, log_std_q, mean_p, log_std_p).sum()
    tril_q, tril_p = log_std_q.exp().diag(), log_std_p.exp().diag()
    assert_same(gaussian.kl_full(mean_q, tril_q, mean_p, tril_p), diagonal)


@PROFILE
@given(seeds, sizes)
def test_kl_is_not_negative_and_zero_at_equality(seed: int, dims: int) -> None:
    draw = generator(seed)
    mean, tril, other = vector(draw, dims), factor(draw, dims), factor(draw, dims)
    assert float(gaussian.kl_full(mean, tril, mean, tril)) == 0
    assert float(gaussian.kl_full(mean, tril, mean, other)) > 0
    assert float(kl_standard_full(0 * mean, torch.eye(dims).double())) == 0


@PROFILE
@given(seeds, sizes)
def test_kl_is_invariant_under_affine_maps_of_both(seed: int, dims: int) -> None:
    """KL(C q + c || C p + c) = KL(q || p) for any invertible C, triangular or not."""
    draw = generator(seed)
    mean_q, mean_p, shift = vector(draw, 3, dims)
    tril_q, tril_p = factor(draw, dims), factor(draw, dims)
    turn = torch.linalg.qr(vector(draw, dims, dims)).Q
    mix = turn @ factor(draw, dims)
    moved = [
        value
        for mean, tril in ((mean_q, tril_q), (mean_p, tril_p))
        for value in (mix @ mean + shift, torch.linalg.cholesky(covariance(mix @ tril)))
    ]
    nats = gaussian.kl_full(mean_q, tril_q, mean_p, tril_p)
    assert_same(gaussian.kl_full(*moved), nats, 1e-8)
    rotated = [
        value
        for mean, tril in ((mean_q, tril_q), (mean_p, tril_p))
        for value in (turn @ mean + shift, torch.linalg.cholesky(covariance(turn @ tril)))
    ]
    distance = wasserstein_squared_full(mean_q, tril_q, mean_p, tril_p)
    assert_same(wasserstein_squared_full(*rotated), distance, 1e-9)


@PROFILE
@given(seeds, sizes)
def test_kl_adds_over_independent_blocks(seed: int, dims: int) -> None:
    draw = generator(seed)
    (mean_q, mean_p), (other_q, other_p) = vector(draw, 2, dims), vector(draw, 2, 2)
    trils, others = factor(draw, dims, 2), factor(draw, 2, 2)
    blocks = [torch.block_diag(tril, other) for tril, other in zip(trils, others, strict=True)]
    joint = (torch.cat([mean_q, other_q]), blocks[0], torch.cat([mean_p, other_p]), blocks[1])
    for measure in (gaussian.kl_full, wasserstein_squared_full):
        parts = measure(mean_q, trils[0], mean_p, trils[1])
        parts = parts + measure(other_q, others[0], other_p, others[1])
        assert_same(measure(*joint), parts, 1e-10)


@PROFILE
@given(seeds, sizes)
def test_density_equals_scipys(seed: int, dims: int) -> None:
    draw = generator(seed)
    mean, x, tril = vector(draw, dims), vector(draw, dims), factor(draw, dims)
    law = stats.multivariate_normal(mean.numpy(), covariance(tril).numpy())
    density = float(gaussian.log_prob_full(x, mean, tril))
    assert density == pytest.approx(law.logpdf(x.numpy()), rel=1e-8, abs=1e-8)


def test_kl_is_the_mean_log_ratio_over_draws() -> None:
    draw = generator(5)
    (mean_q, mean_p), (tril_q, tril_p) = vector(draw, 2, 3), factor(draw, 3, 2)
    z = mean_q + vector(draw, 20_000, 3) @ tril_q.mT
    log_q = gaussian.log_prob_full(z, mean_q, tril_q)
    nats = gaussian.kl_full(mean_q, tril_q, mean_p, tril_p)
    assert_mean(log_q - gaussian.log_prob_full(z, mean_p, tril_p), nats)


@PROFILE
@given(seeds, sizes)
def test_distance_equals_dowson_and_landaus_formula(seed: int, dims: int) -> None:
    draw = generator(seed)
    (mean_q, mean_p), (tril_q, tril_p) = vector(draw, 2, dims), factor(draw, dims, 2)
    cov_q, cov_p = covariance(tril_q).numpy(), covariance(tril_p).numpy()
    root = linalg.sqrtm(cov_q)
    cross = linalg.sqrtm(root @ cov_p @ root)
    spread = float(np.trace(cov_q + cov_p - 2 * np.real(cross)))
    expected = float((mean_q - mean_p).square().sum()) + spread
    got = float(wasserstein_squared_full(mean_q, tril_q, mean_p, tril_p))
    assert got == pytest.approx(expected, rel=1e-7, abs=1e-7)


@PROFILE
@given(seeds, sizes)
def test_distance_is_a_metric(seed: int, dims: int) -> None:
    draw = generator(seed)
    laws = [(vector(draw, dims), factor(draw, dims)) for _ in range(3)]

    def distance(i: int, j: int) -> float:
        return math.sqrt(float(wasserstein_squared_full(*laws[i], *laws[j])))

    assert distance(0, 0) == pytest.approx(0, abs=1e-12)
    assert distance(0, 1) == pytest.approx(distance(1, 0), rel=1e-9)
    assert distance(0, 2) <= distance(0, 1) + distance(1, 2) + 1e-12


@FEW
@given(moderate_means, moderate_log_stds, moderate_means, moderate_log_stds)
def test_distance_is_the_integral_of_squared_quantile_gaps(
    a: float, b: float, c: float, d: float
) -> None:
    """In one dimension."""
    q, p = stats.norm(a, math.exp(b)), stats.norm(c, math.exp(d))

    def integrand(u: float) -> float:
        return float((q.ppf(stats.norm.cdf(u)) - p.ppf(stats.norm.cdf(u))) ** 2 * stats.norm.pdf(u))

    expected, _ = integrate.quad(integrand, -7, 7, epsabs=1e-8, epsrel=1e-8)
    mean_q, log_std_q, mean_p, log_std_p = double(a, b, c, d)
    std_q, std_p = log_std_q.exp(), log_std_p.exp()
    got = wasserstein_squared_full(mean_q[None], std_q[None, None], mean_p[None], std_p[None, None])
    assert float(got) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_the_distance_of_commuting_covariances_is_that_of_their_stds() -> None:
    """sum_i (sqrt l_i - sqrt m_i)^2 over shared eigenvectors."""
    draw = generator(7)
    turn = torch.linalg.qr(vector(draw, 4, 4)).Q
    roots_q, roots_p = vector(draw, 2, 4).exp()
    tril_q, tril_p = (
        torch.linalg.cholesky(turn @ roots.square().diag() @ turn.mT)
        for roots in (roots_q, roots_p)
    )
    zero = torch.zeros(4).double()
    got = wasserstein_squared_full(zero, tril_q, zero, tril_p)
    assert_same(got, (roots_q - roots_p).square().sum(), 1e-10)
