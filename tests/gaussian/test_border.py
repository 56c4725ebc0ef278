"""Wrong input is a ``ValueError`` that says what was got, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from genmod import gaussian
from genmod.checks import trusted
from genmod.gaussian.diagonal import product_log_std
from genmod.gaussian.full import kl_standard_full, wasserstein_squared_full
from genmod.gaussian.kernels import kl_log_std, kl_standard_log_std, log_prob_log_std

zero, one, unit = torch.zeros(2), torch.ones(2), torch.eye(2)
negative, endless = torch.tensor([1.0, -1.0]), torch.tensor([1.0, torch.inf])
three, dense = torch.zeros(3), torch.ones(2, 2)
linear = gaussian.LinearGaussian(zero, unit, torch.ones(3, 2), three, torch.eye(3))

BAD_STD: dict[str, Callable[[torch.Tensor], object]] = {
    "kl q": lambda std: gaussian.kl(zero, std, zero, one),
    "kl p": lambda std: gaussian.kl(zero, one, zero, std),
    "kl_standard": lambda std: gaussian.kl_standard(zero, std),
    "entropy": gaussian.entropy,
    "log_prob": lambda std: gaussian.log_prob(zero, zero, std),
    "product": lambda std: gaussian.product(zero, std, zero, one),
    "kl_full q": lambda std: gaussian.kl_full(zero, std.diag(), zero, unit),
    "kl_full p": lambda std: gaussian.kl_full(zero, unit, zero, std.diag()),
    "kl_standard_full": lambda std: kl_standard_full(zero, std.diag()),
    "log_prob_full": lambda std: gaussian.log_prob_full(zero, zero, std.diag()),
    "distance": lambda std: wasserstein_squared_full(zero, std.diag(), zero, unit),
    "tril": lambda std: gaussian.LinearGaussian(zero, std.diag(), unit, zero, unit),
    "noise_tril": lambda std: gaussian.LinearGaussian(zero, unit, unit, zero, std.diag()),
}

BAD_SHAPE: dict[str, Callable[[], object]] = {
    "kl_log_std": lambda: kl_log_std(zero, zero, zero, three),
    "kl_standard_log_std": lambda: kl_standard_log_std(zero, three),
    "product_log_std": lambda: product_log_std(three, zero, zero, zero),
    "log_prob_log_std": lambda: log_prob_log_std(three, zero, zero),
    "kl": lambda: gaussian.kl(zero, torch.ones(3), zero, one),
    "kl_standard": lambda: gaussian.kl_standard(zero, torch.ones(3)),
    "product": lambda: gaussian.product(three, one, zero, one),
    "kl_full mean": lambda: gaussian.kl_full(three, unit, zero, unit),
    "kl_full dims": lambda: gaussian.kl_full(zero, unit, three, torch.eye(3)),
    "kl_full batch": lambda: gaussian.kl_full(torch.zeros(4, 2), unit, torch.zeros(3, 2), unit),
    "kl_full vector": lambda: gaussian.kl_full(zero, one, zero, unit),
    "kl_standard_full": lambda: kl_standard_full(zero, torch.ones(2, 3)),
    "log_prob_full": lambda: gaussian.log_prob_full(three, zero, unit),
    "distance": lambda: wasserstein_squared_full(zero, unit, three, torch.eye(3)),
    "weight": lambda: gaussian.LinearGaussian(zero, unit, torch.ones(2, 3), zero, unit),
    "bias": lambda: gaussian.LinearGaussian(zero, unit, unit, three, unit),
    "mean": lambda: gaussian.LinearGaussian(three, unit, unit, zero, unit),
    "posterior": lambda: linear.posterior(zero),
}


@pytest.mark.parametrize("std", [0 * one, negative, endless, negative.sqrt()])
@pytest.mark.parametrize("name", BAD_STD)
def test_a_std_that_is_not_positive_and_finite(name: str, std: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"got \d values of .*; expected standard dev.*; let the"):
        BAD_STD[name](std)


@pytest.mark.parametrize("name", BAD_SHAPE)
def test_shapes_that_do_not_fit(name: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)^got .*; expected .*; .+"):
        BAD_SHAPE[name]()


def test_a_covariance_where_its_factor_is_meant() -> None:
    with pytest.raises(ValueError, match=r"above its diagonal.*pass torch.linalg.cholesky"):
        gaussian.kl_full(zero, dense, zero, unit)


def test_a_trusted_block_does_not_read_values() -> None:
    """Shapes are still checked: that costs nothing."""
    with trusted():
        assert bool(gaussian.kl_standard(zero, negative).isnan().any())
        assert bool(kl_standard_full(zero, negative.diag()).isnan())
        with pytest.raises(ValueError, match="expected"):
            gaussian.kl_full(three, unit, zero, unit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_the_inputs_is_the_type_of_the_result(dtype: torch.dtype) -> None:
    zeros, ones, eye = zero.to(dtype), one.to(dtype), unit.to(dtype)
    model = gaussian.LinearGaussian(zeros, eye, eye, zeros, eye)
    results = [
        gaussian.kl(zeros, ones, zeros, ones),
        gaussian.entropy(ones),
        *gaussian.product(zeros, ones, zeros, ones),
        gaussian.kl_full(zeros, eye, zeros, eye),
        wasserstein_squared_full(zeros, eye, zeros, eye),
        *model.posterior(zeros),
        *model.joint(),
    ]
    assert {result.dtype for result in results} == {dtype}
