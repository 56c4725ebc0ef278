r"""Operators: linear, with their true adjoint; each is what its name states."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from genmod.inverse import AveragePool, Blur, Mask, Matrix, Operator, Separable
from genmod.inverse.operators import Composition
from tests.oracles import F64, real

pytestmark = pytest.mark.usefixtures("float64")


def operators() -> list[Operator]:
    """One of each kind, on events of one to three sides."""
    observed = torch.arange(48).reshape(2, 4, 6) % 3 > 0
    pool, blur = AveragePool((2, 4, 6), 2), Blur((2, 4, 6), 0.8)
    return [
        Mask(observed),
        Matrix(torch.randn(5, 48), (2, 4, 6)),
        Matrix(torch.randn(5, 48)),
        Separable((2, 4, 6), [torch.randn(3, 4), torch.randn(7, 6)]),
        pool,
        AveragePool((1, 4, 6, 2), 2),
        blur,
        Blur((2, 4, 6), 5.0),
        Blur((3, 9), 1.0, circular=True),
        pool @ blur,
        Matrix(torch.randn(3, 12), (2, 2, 3)) @ pool @ blur,
    ]


@pytest.mark.parametrize("index", range(11))
def test_the_adjoint_is_the_transpose(index: int) -> None:
    """``<A x, u> = <x, A' u>``, and ``A' u`` is what autograd gives for it."""
    operator = operators()[index]
    x, u = torch.randn(3, *operator.inputs), torch.randn(3, *operator.outputs)
    y, back = operator(x), operator.adjoint(u)
    assert y.shape == u.shape
    assert back.shape == x.shape
    torch.testing.assert_close((y * u).flatten(1).sum(1), (x * back).flatten(1).sum(1))
    leaf = torch.zeros_like(x).requires_grad_()
    (gradient,) = torch.autograd.grad(operator(leaf), leaf, u)
    torch.testing.assert_close(back, gradient)
    # Linear: of a mean, the mean.
    torch.testing.assert_close(operator((x + 3 * x.flip(0)) / 4), (y + 3 * y.flip(0)) / 4)


@pytest.mark.parametrize("std", [0.4, 1.0, 6.0])
@pytest.mark.parametrize("circular", [False, True])
def test_a_blur_is_scipys(std: float, circular: bool) -> None:
    """Mirrored or on a ring, kernels narrower and wider than the image."""
    x = torch.randn(1, 2, 8, 5)
    found = Blur((2, 8, 5), std, circular)(x)
    reach = max(1, -int(-4 * std // 1))
    mode = "wrap" if circular else "reflect"
    expected = gaussian_filter(x.numpy(), (0, 0, std, std), mode=mode, radius=(0, 0, reach, reach))
    torch.testing.assert_close(found, torch.from_numpy(expected))


def test_a_blur_keeps_the_mean_and_a_constant() -> None:
    """Its columns add up to one, and its rows."""
    x = torch.randn(2, 1, 6, 7)
    for circular in (False, True):
        blur = Blur((1, 6, 7), 1.3, circular)
        torch.testing.assert_close(blur(x).mean((1, 2, 3)), x.mean((1, 2, 3)))
        torch.testing.assert_close(blur(torch.ones_like(x)), torch.ones_like(x))


def test_pooling_is_torchs() -> None:
    x = torch.randn(2, 3, 6, 12)
    torch.testing.assert_close(AveragePool((3, 6, 12), 3)(x), F.avg_pool2d(x, 3))


def test_a_mask_keeps_the_observed_entries() -> None:
    """``A A' = 1``, and ``A' A`` leaves the observed entries and no other."""
    observed = torch.tensor([[True, False, True], [False, False, True]])
    mask, x = Mask(observed), torch.randn(4, 2, 3)
    torch.testing.assert_close(mask(mask.adjoint(mask(x))), mask(x))
    torch.testing.assert_close(mask.adjoint(mask(x)), x * observed)


def test_the_inner_operator_comes_first() -> None:
    first, then = torch.randn(4, 3), torch.randn(2, 4)
    x = torch.randn(5, 3)
    both = Matrix(then) @ Matrix(first)
    torch.testing.assert_close(both(x), x @ (then @ first).T)
    assert isinstance(both, Composition)


def test_operators_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="applied first"):
        Blur((1, 4, 4), 1.0) @ AveragePool((1, 4, 4), 2)
    with pytest.raises(ValueError, match=r"torch\.bool"):
        Mask(torch.ones(3))
    with pytest.raises(ValueError, match="at least one True"):
        Mask(torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="transpose it"):
        Matrix(torch.ones(3, 4), (2, 3))
    with pytest.raises(ValueError, match="divides every side"):
        AveragePool((1, 5, 4), 2)
    with pytest.raises(ValueError, match="use Matrix"):
        Separable((4,), [])
    with pytest.raises(ValueError, match="std"):
        Blur((1, 4, 4), 0.0)


def test_operators_keep_the_type_of_the_data() -> None:
    x = torch.randn(2, 1, 4, 4, dtype=torch.float32)
    for operator in (Blur((1, 4, 4), 1.0), AveragePool((1, 4, 4), 2)):
        assert operator(x).dtype is torch.float32
        assert operator.adjoint(operator(x)).dtype is torch.float32
    assert Matrix(real(1.0)[None])(x[:, 0, 0, :1]).dtype is not F64


@pytest.mark.parametrize("shape", [(1, 9), (2, 6, 9), (1, 3, 6, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_operators_work_in_the_type_of_the_data(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """A constant keeps its value to the data's own precision, whatever the default type was when built.

    And whatever the model around it was cast to since.
    """
    torch.set_default_dtype(torch.float32)
    pool, blur = AveragePool(shape, 3), Blur(shape, 1.7)
    matrix = Matrix(torch.full((1, math.prod(shape)), 1 / math.prod(shape), dtype=F64), shape)
    for operator in (pool, blur, matrix, pool @ blur):
        for cast in (operator, copy.deepcopy(operator).float().double()):
            ones = cast(torch.ones(2, *shape, dtype=dtype))
            assert ones.dtype is dtype
            rounding = 20 * torch.finfo(dtype).eps
            torch.testing.assert_close(ones, torch.ones_like(ones), rtol=0, atol=rounding)
