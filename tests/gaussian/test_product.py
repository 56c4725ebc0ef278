"""The product of two Gaussian densities: against the pointwise product, and its algebra."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from scipy import integrate, stats
from torch import Tensor

from genmod import gaussian
from genmod.gaussian.diagonal import product_log_std
from genmod.gaussian.kernels import log_prob_log_std
from tests.gaussian.cases import (
    FEW,
    PROFILE,
    assert_same,
    double,
    moderate_log_stds,
    moderate_means,
)


def log_normalizer(mean_1: Tensor, std_1: Tensor, mean_2: Tensor, std_2: Tensor) -> Tensor:
    """The log of the integral of the product of two densities: log N(mean_1; mean_2, s_1^2 + s_2^2)."""
    return gaussian.log_prob(mean_1, mean_2, torch.hypot(std_1, std_2))


two_gaussians = (moderate_means, moderate_log_stds, moderate_means, moderate_log_stds)


@PROFILE
@given(*two_gaussians, moderate_means)
def test_log_densities_add_up_to_the_product_and_its_normalizer(
    a: float, b: float, c: float, d: float, x: float
) -> None:
    mean_1, log_std_1, mean_2, log_std_2 = double(a, b, c, d)
    (point,) = double(x)
    checked = (mean_1, log_std_1.exp(), mean_2, log_std_2.exp())
    mean, std = gaussian.product(*checked)
    fast_mean, fast_log_std = product_log_std(mean_1, log_std_1, mean_2, log_std_2)
    assert_same(fast_mean, mean)
    assert_same(fast_log_std, std.log())
    pointwise = log_prob_log_std(point, mean_1, log_std_1)
    pointwise = pointwise + log_prob_log_std(point, mean_2, log_std_2)
    density = gaussian.log_prob(point, mean, std) + log_normalizer(*checked)
    assert_same(density, pointwise, 1e-10)


@FEW
@given(*two_gaussians)
def test_moments_of_the_normalized_pointwise_product(
    a: float, b: float, c: float, d: float
) -> None:
    """By quadrature of f(z) g(z)."""
    f, g = stats.norm(a, math.exp(b)), stats.norm(c, math.exp(d))
    inputs = [x.exp() if i % 2 else x for i, x in enumerate(double(a, b, c, d))]
    mean, std = map(float, gaussian.product(*inputs))
    log_mass = float(log_normalizer(*inputs))

    def moment(power: int) -> float:
        def integrand(z: float) -> float:
            log_density = f.logpdf(z) + g.logpdf(z) - log_mass
            return float((z - mean) ** power * math.exp(log_density))

        return float(integrate.quad(integrand, mean - 9 * std, mean + 9 * std, epsabs=1e-11)[0])

    assert moment(0) == pytest.approx(1, rel=1e-8)
    assert moment(1) == pytest.approx(0, abs=1e-8 * std)
    assert moment(2) == pytest.approx(std**2, rel=1e-8)


@PROFILE
@given(*two_gaussians)
def test_the_order_does_not_matter_and_three_associate(
    a: float, b: float, c: float, d: float
) -> None:
    first, second, third = double(a, b), double(c, d), double(b, c / 5)

    def product(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return product_log_std(one[0], one[1], other[0], other[1])

    left, right = product(product(first, second), third), product(first, product(second, third))
    assert_same(torch.stack(left), torch.stack(right))
    forth, back = product(first, second), product(second, first)
    assert_same(torch.stack(forth), torch.stack(back))


def test_a_flat_factor_changes_nothing_and_an_equal_one_halves_the_variance() -> None:
    mean, log_std, far = double(0.7, -0.3, 1e3)
    flat = product_log_std(mean, log_std, -mean, far)
    assert_same(torch.stack(flat), torch.stack([mean, log_std]))
    twice = product_log_std(mean, log_std, mean, log_std)
    assert_same(torch.stack(twice), torch.stack([mean, log_std - 0.5 * math.log(2)]))
