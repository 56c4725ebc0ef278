"""Fast elementwise closed forms of Gaussians given by (mean, log_std): unchecked, in nats per dimension.

Symbols: q = N(mean_q, exp(log_std_q)^2), p likewise; d = log_std_q - log_std_p, the log of the ratio of
the stds; delta = (mean_q - mean_p) / std_p. Then

    KL(q || p) = 1/2 (expm1(2 d) - 2 d + delta^2),

It is computed so that it is never negative. Where q and p are close, its rounding error is relative to
``d``, not to 1.

Claim: forward and backward pass together cost a fraction of the plain formula under autograd (run
benchmarks/gaussian_kl.py). The gradient reuses what the value has computed, and most operations are in
place. Every log-std is valid, so no value is checked and no call makes a GPU wait. Half precision (for
example under ``torch.autocast``) is computed and returned in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.tensors import HALF, Shape, bound_in_order, expm1, unexpanded

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def in_float32(values: Tensor) -> Tensor:
    """``values`` in float32 if they are in half precision, else unchanged."""
    return values.float() if values.dtype in HALF else values


def same_shape(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, broadcast to one shape; a ``ValueError`` if that is impossible."""
    first = tensors[0].shape
    if all(tensor.shape == first for tensor in tensors[1:]):
        return tensors
    common_shape(*(tuple(tensor.shape) for tensor in tensors))
    expanded: tuple[Tensor, ...] = torch.broadcast_tensors(*tensors)
    return expanded


def common_shape(*shapes: Shape) -> Shape:
    """The shape that all ``shapes`` broadcast to; a ``ValueError`` if there is none."""
    try:
        return tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError as error:
        raise invalid(
            f"shapes {', '.join(map(str, shapes))}",
            "shapes that broadcast to one",
            "give the means and the stds the same shape, or size 1 where they are shared",
        ) from error


def _rows_first(
    info: Any, in_dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]
) -> list[Tensor]:
    """The tensors with the mapped dimension first: for an elementwise function, ``vmap`` needs no more."""
    return [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]


@bound_in_order
class _StandardKL(torch.autograd.Function):
    """The nats, and the factor expm1(2 log_std) of their gradient.

    The factor is kept for ``backward``. For second derivatives it is computed again from the inputs,
    because a kept tensor has no autograd history.
    """

    @staticmethod
    def forward(mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        own = unexpanded(log_std)
        growth = expm1(torch.mul(own, 2))
        minus_nats = torch.sub(own, growth, alpha=0.5)
        minus_nats = torch.addcmul(minus_nats, mean, mean, value=-0.5)
        # abs, not neg: CUDA's expm1 may be one unit in the last place too low, which would make
        # the nats negative at log_std = 1e-8.
        return minus_nats.abs_(), growth.expand_as(mean)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        growth = output[1]
        ctx.mark_non_differentiable(growth)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, growth)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        if grad is None:
            return None, None
        mean, log_std, growth = ctx.saved_tensors
        if torch.is_grad_enabled():
            growth = torch.expm1(2 * log_std)
        return grad * mean, grad * growth

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, None]:
        mean, log_std = ctx.saved_tensors
        move_mean, move_log_std = _moves(tangents, ctx.saved_tensors)
        return mean * move_mean + torch.expm1(2 * log_std) * move_log_std, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return _StandardKL.apply(*_rows_first(info, in_dims, tensors)), (0, 0)


@bound_in_order
class _DiagonalKL(torch.autograd.Function):
    """The nats, and the factors of their gradient: expm1(2 d), delta, and std_p."""

    @staticmethod
    def forward(
        mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor
    ) -> tuple[Tensor, ...]:
        std_p = torch.exp(log_std_p)
        # Divide before squaring: at std_p = 1e-20 in float32, 1 / std_p^2 is infinite.
        delta = torch.sub(mean_q, mean_p).div_(std_p)
        log_ratio = torch.sub(log_std_q, log_std_p)
        growth = expm1(torch.mul(log_ratio, 2))
        minus_nats = log_ratio.sub_(growth, alpha=0.5).addcmul_(delta, delta, value=-0.5)
        return minus_nats.abs_(), growth, delta, std_p

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        factors = output[1:]
        ctx.mark_non_differentiable(*factors)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *factors)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        if grad is None:
            return None, None, None, None
        mean_q, log_std_q, mean_p, log_std_p, growth, delta, std_p = ctx.saved_tensors
        if torch.is_grad_enabled():
            growth = torch.expm1(2 * (log_std_q - log_std_p))
            std_p = torch.exp(log_std_p)
            delta = (mean_q - mean_p) / std_p
        need_mean_q, _, need_mean_p, need_log_std_p = ctx.needs_input_grad
        pull, grad_log_std = grad * delta, grad * growth
        grad_mean = pull / std_p if need_mean_q or need_mean_p else None
        return (
            grad_mean,
            grad_log_std,
            -grad_mean if need_mean_p and grad_mean is not None else None,
            torch.addcmul(grad_log_std, pull, delta).neg_() if need_log_std_p else None,
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        mean_q, log_std_q, mean_p, log_std_p = ctx.saved_tensors
        moves = _moves(tangents, ctx.saved_tensors)
        move_mean_q, move_log_std_q, move_mean_p, move_log_std_p = moves
        std_p = torch.exp(log_std_p)
        delta = (mean_q - mean_p) / std_p
        growth = torch.expm1(2 * (log_std_q - log_std_p))
        move_delta = (move_mean_q - move_mean_p) / std_p - delta * move_log_std_p
        return growth * (move_log_std_q - move_log_std_p) + delta * move_delta, None, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return _DiagonalKL.apply(*_rows_first(info, in_dims, tensors)), (0, 0, 0, 0)


def _moves(tangents: Sequence[Tensor | None], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The tangent of each input of a forward derivative: zero where the input has none."""
    pairs = zip(tangents, inputs, strict=True)
    return [torch.zeros_like(x) if move is None else move for move, x in pairs]


def kl_standard_log_std(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)), elementwise, in nats: 1/2 (std^2 - 1 - log std^2 + mean^2).

    The rate of a VAE with a Gaussian posterior and a standard normal prior. Inputs are not checked.
    It can be differentiated any number of times, and works under ``torch.func`` transforms. Every other
    KL of this module is this function at mean delta and log-std d.

    Args:
        mean: mean of q, any shape.
        log_std: log standard deviation of q; broadcasts with ``mean``.

    Returns:
        Nats per dimension, of the broadcast shape, never negative.

    Raises:
        ValueError: the shapes do not broadcast.

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), eq. 10 and appendix B.

    >>> kl_standard_log_std(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 0.0]))
    tensor([0., 2.])
    """
    nats: Tensor = _StandardKL.apply(*same_shape(in_float32(mean), in_float32(log_std)))[0]
    return nats


def kl_log_std(mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """KL(q || p) of diagonal Gaussians, elementwise, in nats: 1/2 (expm1(2 d) - 2 d + delta^2).

    Here d = log_std_q - log_std_p and delta = (mean_q - mean_p) / std_p. Inputs are not checked. It can
    be differentiated any number of times, and works under ``torch.func`` transforms.

    Args:
        mean_q: mean of q, any shape; the other three broadcast with it.
        log_std_q: log standard deviation of q.
        mean_p: mean of p.
        log_std_p: log standard deviation of p.

    Returns:
        Nats per dimension, of the broadcast shape, never negative.

    Raises:
        ValueError: the shapes do not broadcast.

    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> kl_log_std(one, zero, zero, zero)
    tensor([0.5000])
    """
    given = (mean_q, log_std_q, mean_p, log_std_p)
    nats: Tensor = _DiagonalKL.apply(*same_shape(*map(in_float32, given)))[0]
    return nats


def entropy_log_std(log_std: Tensor) -> Tensor:
    """Entropy of N(., std^2), elementwise, in nats: log std + 1/2 log(2 pi e). Unchecked.

    >>> entropy_log_std(torch.zeros(1))
    tensor([1.4189])
    """
    return in_float32(log_std) + (HALF_LOG_TAU + 0.5)


def log_prob_standard(x: Tensor) -> Tensor:
    """Log density of N(0, 1) at x, elementwise, in nats: -1/2 x^2 - 1/2 log(2 pi).

    >>> log_prob_standard(torch.zeros(1))
    tensor([-0.9189])
    """
    return -0.5 * in_float32(x).square() - HALF_LOG_TAU


def log_prob_log_std(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of N(mean, std^2) at x, elementwise, in nats. Unchecked.

        -1/2 ((x - mean) / std)^2 - log std - 1/2 log(2 pi)

    >>> log_prob_log_std(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    tensor([-0.9189])
    """
    x, mean, log_std = same_shape(*map(in_float32, (x, mean, log_std)))
    return -0.5 * ((x - mean) * torch.exp(-log_std)).square() - log_std - HALF_LOG_TAU


def log_prob_pairs(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of each of K diagonal Gaussians at each of B points, in nats, ``(B, K)``, in float64.

        -1/2 sum_d ((x_bd - mean_kd) / std_kd)^2 - sum_d log std_kd - D/2 log(2 pi)

    The square is expanded: one matrix product then replaces several passes over B by K by D numbers. Its
    terms are as large as (x / std)^2 and cancel, for which float32 is not enough.

    Args:
        x: points, ``(B, D)``.
        mean: of each Gaussian, ``(K, D)``.
        log_std: of each Gaussian, ``(K, D)``.

    >>> log_prob_pairs(torch.zeros(2, 1), torch.zeros(3, 1), torch.zeros(3, 1)).shape
    torch.Size([2, 3])
    """
    x, mean, log_std = x.double(), mean.double(), log_std.double()
    precision = torch.exp(-2 * log_std)
    weights = torch.cat([-0.5 * precision, precision * mean], 1)
    constant = (0.5 * precision * mean.square() + log_std + HALF_LOG_TAU).sum(1)
    return torch.cat([x.square(), x], 1) @ weights.T - constant
