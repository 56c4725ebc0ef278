"""The Frechet distance between Gaussians, which is the 2-Wasserstein distance; squared.

Symbols: q = N(mean_q, L_q L_q^T), p likewise. The best map between two Gaussians is affine, and

    W^2 = |mean_q - mean_p|^2 + min over orthogonal U of |L_q - L_p U|_F^2,

whose minimum is the U of the polar decomposition of L_p^T L_q. This is Dowson and Landau's
tr(S_q + S_p - 2 (S_q^1/2 S_p S_q^1/2)^1/2), written as a sum of squares: it takes no square root of
a matrix, is never negative, and does not cancel where q and p nearly agree.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from genmod.gaussian.border import check_matrix, common_shape, no_autocast
from genmod.gaussian.diagonal import checked_pair
from genmod.gaussian.full import checked


class _Polar(torch.autograd.Function):
    """The orthogonal factor U of A = U H, with U = P Q^T where A = P diag(s) Q^T.

    dU = P [(P^T dA Q - Q^T dA^T P)_ij / (s_i + s_j)] Q^T. Sums of singular values, not the
    differences that the derivative of an SVD divides by: those fail at A = I.
    """

    @staticmethod
    def forward(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        left, values, right = torch.linalg.svd(matrix)
        return left @ right, left, values, right

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Tensor | None:
        if grads[0] is None:
            return None
        left, values, right = ctx.saved_tensors
        turn = left.mT @ grads[0] @ right.mT
        turn = (turn - turn.mT) / (values.unsqueeze(-1) + values.unsqueeze(-2))
        gradient: Tensor = left @ turn @ right
        return gradient


class _SpreadGap(torch.autograd.Function):
    """min over orthogonal U of |L_q - L_p U|_F^2, with the gradient of the minimum.

    At the minimum the derivative through U is zero, so the gradient holds U fixed; letting autograd
    go through U would add the rounding errors of that zero, divided by the singular values. The
    gradient itself may be differentiated once more, then through U.
    """

    @staticmethod
    def forward(tril_q: Tensor, tril_p: Tensor) -> tuple[Tensor, Tensor]:
        turn = _Polar.apply(tril_p.mT @ tril_q)[0]
        return (tril_q - tril_p @ turn).square().sum((-2, -1)), turn

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]
    ) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        if grads[0] is None:
            return None, None
        tril_q, tril_p, turn = ctx.saved_tensors
        if torch.is_grad_enabled():
            turn = _Polar.apply(tril_p.mT @ tril_q)[0]
        twice = 2 * grads[0][..., None, None]
        return twice * (tril_q - tril_p @ turn), twice * (tril_p - tril_q @ turn.mT)


def wasserstein_squared(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor) -> Tensor:
    """The squared 2-Wasserstein (Frechet) distance of diagonal Gaussians, elementwise.

        (mean_q - mean_p)^2 + (std_q - std_p)^2;    it adds over dimensions

    Args:
        mean_q: mean of q, any shape; the other three broadcast with it.
        std_q: standard deviation of q, above 0.
        mean_p: mean of p.
        std_p: standard deviation of p, above 0.

    Returns:
        Squared distance per dimension, of the broadcast shape.

    Raises:
        ValueError: a std is not positive and finite, or the shapes do not broadcast.

    >>> wasserstein_squared(torch.ones(1), torch.ones(1), torch.zeros(1), 3 * torch.ones(1))
    tensor([5.])
    """
    mean_q, std_q, mean_p, std_p = checked_pair(mean_q, std_q, mean_p, std_p)
    return (mean_q - mean_p).square() + (std_q - std_p).square()


def wasserstein_squared_full(
    mean_q: Tensor, tril_q: Tensor, mean_p: Tensor, tril_p: Tensor
) -> Tensor:
    """The squared 2-Wasserstein (Frechet) distance of full-covariance Gaussians.

        |mean_q - mean_p|^2 + tr(S_q + S_p - 2 (S_q^1/2 S_p S_q^1/2)^1/2)

    Differentiable twice.

    Args:
        mean_q: mean of q, ``(*batch, D)``; batches broadcast.
        tril_q: Cholesky factor of q's covariance S_q, ``(*batch, D, D)``.
        mean_p: mean of p, ``(*batch, D)``.
        tril_p: Cholesky factor of p's covariance S_p, ``(*batch, D, D)``.

    Returns:
        Squared distance per sample, ``(*batch)``.

    Raises:
        ValueError: a factor is not lower-triangular with a positive diagonal, or shapes do not fit.

    Reference:
        Dowson, Landau (1982), The Frechet distance between multivariate normal distributions, eq 4.

    >>> wasserstein_squared_full(torch.ones(2), torch.eye(2), torch.zeros(2), 3 * torch.eye(2))
    tensor(10.)
    """
    mean_q, tril_q = checked(mean_q, tril_q, "q")
    mean_p, tril_p = checked(mean_p, tril_p, "p")
    check_matrix(tril_p, tril_q.shape[-1], tril_q.shape[-1], "tril_p")
    means = (tuple(mean_q.shape[:-1]), tuple(mean_p.shape[:-1]))
    batch = common_shape(tuple(tril_q.shape[:-2]), tuple(tril_p.shape[:-2]))
    common_shape(batch, *means)
    with no_autocast(mean_q):
        square = tril_q.shape[-2:]
        gap: Tensor = _SpreadGap.apply(
            tril_q.expand(*batch, *square), tril_p.expand(*batch, *square)
        )[0]
    return (mean_q - mean_p).square().sum(-1) + gap
