"""Diagonal Gaussians: KL, entropy and density against four other routes, and the laws they obey."""

from __future__ import annotations

import math

import pyro.distributions as pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from genmod import gaussian
from genmod.gaussian import kernels
from genmod.gaussian.kernels import kl_log_std, kl_standard_log_std, log_prob_log_std
from tests.gaussian.cases import (
    FEW,
    PROFILE,
    assert_same,
    double,
    generator,
    moderate_log_stds,
    moderate_means,
    seeds,
    vector,
)
from tests.statistics import assert_mean

two_gaussians = (moderate_means, moderate_log_stds, moderate_means, moderate_log_stds)


def both_forms(
    mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor
) -> tuple[Tensor, Tensor]:
    """The same KL by the fast kernel and by the checked form."""
    return (
        kl_log_std(mean_q, log_std_q, mean_p, log_std_p),
        gaussian.kl(mean_q, log_std_q.exp(), mean_p, log_std_p.exp()),
    )


@FEW
@given(*two_gaussians)
def test_kl_equals_the_integral_that_defines_it(a: float, b: float, c: float, d: float) -> None:
    q, p = stats.norm(a, math.exp(b)), stats.norm(c, math.exp(d))

    def integrand(z: float) -> float:
        return float(q.pdf(z) * (q.logpdf(z) - p.logpdf(z)))

    low, high = a - 10 * math.exp(b), a + 10 * math.exp(b)
    expected, _ = integrate.quad(integrand, low, high, epsabs=1e-10, epsrel=1e-10)
    for nats in both_forms(*double(a, b, c, d)):
        assert float(nats) == pytest.approx(expected, rel=1e-8, abs=1e-9)


@PROFILE
@given(*two_gaussians)
def test_kl_equals_torch_and_pyro(a: float, b: float, c: float, d: float) -> None:
    mean_q, log_std_q, mean_p, log_std_p = values = double(a, b, c, d)
    torchs = kl_divergence(Normal(mean_q, log_std_q.exp()), Normal(mean_p, log_std_p.exp()))
    q = pyro.Normal(mean_q, log_std_q.exp()).expand((1,)).to_event(1)
    p = pyro.MultivariateNormal(mean_p[None], scale_tril=log_std_p.exp()[None, None])
    pyros = kl_divergence(q, p)
    for nats in both_forms(*values):
        assert_same(nats, torchs)
        assert_same(nats, pyros, 1e-11)


@PROFILE
@given(moderate_means, moderate_log_stds)
def test_the_standard_forms_are_the_general_ones_at_zero_and_one(a: float, b: float) -> None:
    mean, log_std, zero = double(a, b, 0.0)
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(zero, zero.exp()))
    assert_same(kl_standard_log_std(mean, log_std), expected)
    assert_same(gaussian.kl_standard(mean, log_std.exp()), expected)
    assert_same(kl_log_std(mean, log_std, zero, zero), expected)


@PROFILE
@given(*two_gaussians)
def test_kl_is_not_negative_and_zero_only_at_equality(
    a: float, b: float, c: float, d: float
) -> None:
    mean_q, log_std_q, mean_p, log_std_p = double(a, b, c, d)
    for nats in both_forms(mean_q, log_std_q, mean_p, log_std_p):
        assert float(nats) >= 0
    for nats in both_forms(mean_q, log_std_q, mean_q, log_std_q):
        assert float(nats) == 0
    for nats in both_forms(mean_q, log_std_q, mean_q + 1e-3, log_std_q):
        assert float(nats) > 0


@PROFILE
@given(*two_gaussians, st.floats(-3, 3), st.floats(0.1, 10))
def test_kl_does_not_depend_on_the_units(
    a: float, b: float, c: float, d: float, shift: float, scale: float
) -> None:
    values = double(a, b, c, d)
    moved = double(shift - scale * a, b + math.log(scale), shift - scale * c, d + math.log(scale))
    for nats, same in zip(both_forms(*values), both_forms(*moved), strict=True):
        assert_same(nats, same, 1e-10)


@PROFILE
@given(seeds)
def test_kl_adds_over_dimensions(seed: int) -> None:
    """The sum of our nats per dimension is the KL of the joint; entropies and densities add too."""
    mean_q, log_std_q, mean_p, log_std_p, x = vector(generator(seed), 5, 3)
    q = torch.distributions.MultivariateNormal(mean_q, scale_tril=log_std_q.exp().diag())
    p = torch.distributions.MultivariateNormal(mean_p, scale_tril=log_std_p.exp().diag())
    for nats in both_forms(mean_q, log_std_q, mean_p, log_std_p):
        assert_same(nats.sum(), kl_divergence(q, p), 1e-11)
    assert_same(gaussian.entropy(log_std_q.exp()).sum(), q.entropy())
    density = gaussian.log_prob(x, mean_q, log_std_q.exp()).sum()
    assert_same(density, q.log_prob(x), 1e-11)


@PROFILE
@given(moderate_means, moderate_means, moderate_log_stds)
def test_entropy_and_density_equal_scipys(x: float, a: float, b: float) -> None:
    law = stats.norm(a, math.exp(b))
    point, mean, log_std = double(x, a, b)
    for entropy in (gaussian.entropy(log_std.exp()), kernels.entropy_log_std(log_std)):
        assert float(entropy) == pytest.approx(law.entropy(), rel=1e-12, abs=1e-12)
    for density in (
        gaussian.log_prob(point, mean, log_std.exp()),
        log_prob_log_std(point, mean, log_std),
    ):
        assert float(density) == pytest.approx(law.logpdf(x), rel=1e-11, abs=1e-11)


def test_kl_is_the_mean_log_ratio_over_draws() -> None:
    """KL = E_q[log q - log p], and entropy = -E_q[log q], by Monte Carlo."""
    mean_q, log_std_q, mean_p, log_std_p = double(0.3, -0.4, -0.5, 0.2)
    z = mean_q + log_std_q.exp() * vector(generator(0), 20_000)
    log_q = log_prob_log_std(z, mean_q, log_std_q)
    log_p = log_prob_log_std(z, mean_p, log_std_p)
    assert_mean(log_q - log_p, kl_log_std(mean_q, log_std_q, mean_p, log_std_p))
    assert_mean(-log_q, kernels.entropy_log_std(log_std_q))
