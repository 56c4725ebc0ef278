"""Gradients: exact, twice; through broadcasting, half precision, and torch.func transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from genmod import gaussian
from genmod.gaussian.diagonal import product_log_std
from genmod.gaussian.full import kl_standard_full, wasserstein_squared_full
from genmod.gaussian.kernels import kl_log_std, kl_standard_log_std
from tests.gaussian.cases import (
    PROFILE,
    assert_same,
    double,
    generator,
    moderate_log_stds,
    moderate_means,
    tril_from,
    vector,
)

Form = Callable[..., Any]


def by_log_std(form: Form) -> Form:
    """A form of (mean, std, ...) as one of (mean, log_std, ...), so that any input is valid."""

    def wrapped(*inputs: Tensor) -> Any:
        return form(*(x.exp() if i % 2 else x for i, x in enumerate(inputs)))

    return wrapped


def by_free_matrix(form: Form) -> Form:
    """A form of (mean, tril, ...) as one of (mean, any square matrix, ...)."""

    def wrapped(*inputs: Tensor) -> Any:
        return form(*(tril_from(x) if i % 2 else x for i, x in enumerate(inputs)))

    return wrapped


def linear(
    mean: Tensor, tril: Tensor, bias: Tensor, noise: Tensor, weight: Tensor
) -> tuple[Tensor, ...]:
    model = gaussian.LinearGaussian(mean, tril_from(tril), weight, bias, tril_from(noise))
    return (*model.marginal(), *model.posterior(bias.sin()))


ELEMENTWISE: dict[str, tuple[Form, int]] = {
    "kl_log_std": (kl_log_std, 4),
    "kl_standard_log_std": (kl_standard_log_std, 2),
    "product_log_std": (product_log_std, 4),
    "kl": (by_log_std(gaussian.kl), 4),
    "kl_standard": (by_log_std(gaussian.kl_standard), 2),
    "product": (by_log_std(gaussian.product), 4),
}
FULL: dict[str, tuple[Form, int]] = {
    "kl_full": (by_free_matrix(gaussian.kl_full), 4),
    "kl_standard_full": (by_free_matrix(kl_standard_full), 2),
    "wasserstein_squared_full": (by_free_matrix(wasserstein_squared_full), 4),
}


def leaves(draw: torch.Generator, *shapes: tuple[int, ...]) -> list[Tensor]:
    return [vector(draw, *shape).mul_(0.7).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_first_and_second_derivatives_elementwise(name: str) -> None:
    form, count = ELEMENTWISE[name]
    inputs = leaves(generator(0), *[(2, 3), (3,), (2, 1), (1, 3)][:count])
    assert gradcheck(form, inputs)
    assert gradgradcheck(form, inputs)


@pytest.mark.parametrize("name", FULL)
def test_first_and_second_derivatives_full(name: str) -> None:
    form, count = FULL[name]
    inputs = leaves(generator(1), *[(2, 3), (2, 3, 3), (3,), (3, 3)][:count])
    assert gradcheck(form, inputs)
    assert gradgradcheck(form, inputs)


def test_first_and_second_derivatives_of_conditioning() -> None:
    inputs = leaves(generator(2), (2, 3), (3, 3), (2, 2), (2, 2), (2, 3))
    assert gradcheck(linear, inputs)
    assert gradgradcheck(linear, inputs)


@PROFILE
@given(moderate_means, moderate_log_stds, moderate_means, moderate_log_stds, st.integers(0, 3))
def test_gradients_equal_finite_differences(
    a: float, b: float, c: float, d: float, moved: int
) -> None:
    """A central difference of the value, and autograd through the plain formula."""
    inputs = [x.requires_grad_() for x in double(a, b, c, d)]
    (slope,) = torch.autograd.grad(kl_log_std(*inputs), inputs[moved])
    mean_q, log_std_q, mean_p, log_std_p = inputs
    ratio = (2 * (log_std_q - log_std_p)).exp()
    plain = 0.5 * (ratio - 1 - ratio.log() + ((mean_q - mean_p) / log_std_p.exp()).square())
    assert_same(slope, torch.autograd.grad(plain, inputs[moved])[0], 1e-10)
    ends = []
    for step in (1e-5, -1e-5):
        point = [x.detach() + step * (i == moved) for i, x in enumerate(inputs)]
        ends.append(kl_log_std(*point))
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, slope, rtol=1e-6, atol=1e-6)


def test_the_distance_has_a_gradient_where_singular_values_coincide() -> None:
    """At L = I the derivative of an SVD divides zero by zero; the polar factor's does not."""
    mean = torch.zeros(3, dtype=torch.float64)
    tril_q = torch.eye(3, dtype=torch.float64).requires_grad_()
    tril_p = 2 * torch.eye(3, dtype=torch.float64)
    nearness = wasserstein_squared_full(mean, tril_q, mean, tril_p)
    (slope,) = torch.autograd.grad(nearness, tril_q, create_graph=True)
    assert_same(slope, -2 * torch.eye(3, dtype=torch.float64))
    (curvature,) = torch.autograd.grad(slope[0, 0], tril_q)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    expected[0, 0] = 2.0
    assert_same(curvature, expected)


@pytest.mark.parametrize("form", [kl_log_std, kl_standard_log_std])
def test_only_what_requires_a_gradient_gets_one(form: Form) -> None:
    count = 4 if form is kl_log_std else 2
    values = [vector(generator(i), 5) for i in range(count)]
    assert not form(*values).requires_grad
    complete = [value.clone().requires_grad_() for value in values]
    slopes = torch.autograd.grad(form(*complete).sum(), complete)
    for i in range(count):
        alone = [value.clone().requires_grad_(i == j) for j, value in enumerate(values)]
        form(*alone).sum().backward()
        assert [value.grad is not None for value in alone] == [i == j for j in range(count)]
        slope = alone[i].grad
        assert slope is not None
        assert_same(slope, slopes[i])


@pytest.mark.parametrize("form", [kl_log_std, product_log_std])
def test_half_precision_is_computed_in_float32(form: Form) -> None:
    """bf16 inputs, under autocast as well as outside, give what their float32 copies give."""
    halves = [vector(generator(i), 64).bfloat16().requires_grad_() for i in range(4)]
    wholes = [half.detach().float().requires_grad_() for half in halves]
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            got, expected = torch.stack([*form(*halves)]), torch.stack([*form(*wholes)])
        assert got.dtype is torch.float32
        assert torch.equal(got, expected)
        slopes = torch.autograd.grad(got.sum(), halves)
        for slope, whole in zip(slopes, torch.autograd.grad(expected.sum(), wholes), strict=True):
            assert torch.equal(slope, whole.bfloat16())


def test_products_of_matrices_keep_their_precision_under_autocast() -> None:
    draw = generator(3)
    (tril_q, tril_p), mean = tril_from(vector(draw, 2, 4, 4)).float(), torch.zeros(4)

    def everything() -> list[Tensor]:
        model = gaussian.LinearGaussian(mean, tril_q, tril_p, mean, tril_p)
        return [
            gaussian.kl_full(mean, tril_q, mean, tril_p),
            wasserstein_squared_full(mean, tril_q, mean, tril_p),
            gaussian.log_prob_full(mean + 1, mean, tril_q),
            *model.marginal(),
            *model.posterior(mean + 1),
            *model.joint(),
        ]

    expected = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = everything()
    assert all(map(torch.equal, got, expected))


def test_nan_in_is_nan_out() -> None:
    """What keeps the nats from being negative must not turn a broken network into a perfect one."""
    nan, zero = torch.tensor(torch.nan), torch.tensor(0.0)
    assert bool(kl_standard_log_std(nan, zero).isnan())
    assert bool(kl_standard_log_std(zero, nan).isnan())
    assert bool(kl_log_std(zero, zero, zero, nan).isnan())


@pytest.mark.parametrize("name", ["kl_log_std", "kl_standard_log_std"])
def test_vmap_maps_any_dimension_and_shares_the_rest(name: str) -> None:
    form, count = ELEMENTWISE[name]
    inputs = [vector(generator(i), 4, 4) for i in range(count)]
    dims = (0, None, 1, None)[:count]
    rows = [
        form(*(x if dim is None else x.select(dim, i) for x, dim in zip(inputs, dims, strict=True)))
        for i in range(4)
    ]
    assert_same(torch.vmap(form, dims)(*inputs), torch.stack(rows))


@pytest.mark.filterwarnings("ignore:.torch.jit:")  # torch's own, at its first forward derivative
@pytest.mark.parametrize("name", ["kl_log_std", "kl_standard_log_std"])
def test_function_transforms_agree_with_autograd(name: str) -> None:
    form, count = ELEMENTWISE[name]
    inputs = tuple(vector(generator(i), 3) for i in range(count))
    moves = tuple(vector(generator(9 + i), 3) for i in range(count))

    def total(*values: Tensor) -> Tensor:
        nats: Tensor = form(*values).sum()
        return nats

    numbers = tuple(range(count))
    slopes = torch.func.grad(total, numbers)(*inputs)
    moved = torch.func.jvp(total, inputs, moves)[1]
    assert_same(moved, torch.stack(slopes).mul(torch.stack(moves)).sum())
    expected = torch.autograd.functional.jacobian(total, inputs)
    per_row = torch.vmap(torch.func.grad(total, numbers))(*inputs)
    curvature = torch.func.hessian(total, numbers)(*inputs)
    again = torch.autograd.functional.hessian(total, inputs)
    for i in numbers:
        assert_same(slopes[i], expected[i])
        assert_same(per_row[i], expected[i])
        for j in numbers:
            assert_same(curvature[i][j], again[i][j])


@pytest.mark.filterwarnings("ignore:.torch.jit:")
@pytest.mark.parametrize(
    ("name", "moved"), [(n, i) for n in ("kl_log_std", "kl_standard_log_std") for i in range(4)]
)
def test_one_input_may_move_alone(name: str, moved: int) -> None:
    """The derivative in the direction of one input, while the others have no tangent at all."""
    form, count = ELEMENTWISE[name]
    inputs = [vector(generator(i), 3) for i in range(count)]
    place, move = moved % count, vector(generator(9), 3)
    leaf = inputs[place].clone().requires_grad_()
    (slope,) = torch.autograd.grad(form(*inputs[:place], leaf, *inputs[place + 1 :]).sum(), leaf)
    with forward_ad.dual_level():
        inputs[place] = forward_ad.make_dual(inputs[place], move)
        assert_same(forward_ad.unpack_dual(form(*inputs)).tangent, slope * move)
