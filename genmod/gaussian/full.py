"""Gaussians with full covariance, each given by the Cholesky factor of its covariance (``scale_tril``).

Symbols: q = N(mean_q, L_q L_q^T), p likewise; M = L_p^-1 L_q, whose diagonal is the ratio of the
diagonals; delta = L_p^-1 (mean_q - mean_p). Then KL(q || p) is a sum of non-negative terms,

    1/2 sum_{i > j} M_ij^2 + 1/2 |delta|^2 + sum_i 1/2 (M_ii^2 - 1 - log M_ii^2),

so rounding cannot make it negative, as it can for trace - D - log det.

All factors are checked (positive diagonal, zeros above it); inside :func:`genmod.checks.trusted`
only shapes are. Products of matrices are computed in float32 or better, also under autocast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from genmod.checks import can_read, invalid
from genmod.gaussian.diagonal import check_std, log_ratio
from genmod.gaussian.kernels import HALF_LOG_TAU, common_shape, in_float32, kl_standard_log_std


def kl_full(mean_q: Tensor, tril_q: Tensor, mean_p: Tensor, tril_p: Tensor) -> Tensor:
    """KL(q || p) of full-covariance Gaussians, in nats.

        1/2 (tr(S_p^-1 S_q) - D + |L_p^-1 (mean_q - mean_p)|^2 + log det S_p - log det S_q)

    Args:
        mean_q: mean of q, ``(*batch, D)``; batches broadcast.
        tril_q: Cholesky factor of q's covariance S_q, ``(*batch, D, D)``.
        mean_p: mean of p, ``(*batch, D)``.
        tril_p: Cholesky factor of p's covariance S_p, ``(*batch, D, D)``.

    Returns:
        Nats per sample, ``(*batch)``, never negative.

    Raises:
        ValueError: a factor is not lower-triangular with a positive diagonal, or shapes do not fit.

    >>> kl_full(torch.ones(2), torch.eye(2), torch.zeros(2), torch.eye(2))
    tensor(1.)
    """
    mean_q, tril_q = checked(mean_q, tril_q, "q")
    mean_p, tril_p = checked(mean_p, tril_p, "p")
    check_matrix(tril_p, tril_q.shape[-1], tril_q.shape[-1], "tril_p")
    common_shape(
        *(tuple(mean.shape[:-1]) for mean in (mean_q, mean_p)),
        *(tuple(tril.shape[:-2]) for tril in (tril_q, tril_p)),
    )
    with no_autocast(mean_q):
        solve = torch.linalg.solve_triangular
        delta = solve(tril_p, (mean_q - mean_p).unsqueeze(-1), upper=False).squeeze(-1)
        # M - I, not M: where L_q = L_p + 1e-6 in float32, the rounding error of M is that of 1.
        mixing = solve(tril_p, tril_q - tril_p, upper=False)
        return _nats(delta, mixing, log_ratio(_diagonal(tril_q), _diagonal(tril_p)))


def kl_standard_full(mean: Tensor, tril: Tensor) -> Tensor:
    """KL(N(mean, L L^T) || N(0, I)), in nats: 1/2 (|L|_F^2 - D + |mean|^2) - sum_i log L_ii.

    Args:
        mean: ``(*batch, D)``.
        tril: Cholesky factor L of the covariance, ``(*batch, D, D)``; batches broadcast.

    Returns:
        Nats per sample, ``(*batch)``, never negative.

    Raises:
        ValueError: the factor is not lower-triangular with a positive diagonal, or shapes do not
            fit.

    >>> kl_standard_full(torch.ones(2), torch.eye(2))
    tensor(1.)
    """
    mean, tril = checked(mean, tril, "q")
    common_shape(tuple(mean.shape[:-1]), tuple(tril.shape[:-2]))
    return _nats(mean, tril, torch.log(_diagonal(tril)))


def log_prob_full(x: Tensor, mean: Tensor, tril: Tensor) -> Tensor:
    """The log density of N(mean, L L^T) at x, in nats.

        -1/2 |L^-1 (x - mean)|^2 - sum_i log L_ii - D/2 log(2 pi)

    Args:
        x: the points, ``(*batch, D)``.
        mean: ``(*batch, D)``.
        tril: Cholesky factor L of the covariance, ``(*batch, D, D)``; batches broadcast.

    Returns:
        Nats per sample, ``(*batch)``.

    Raises:
        ValueError: the factor is not lower-triangular with a positive diagonal, or shapes do not
            fit.

    >>> log_prob_full(torch.zeros(2), torch.zeros(2), torch.eye(2))
    tensor(-1.8379)
    """
    mean, tril = checked(mean, tril, "x")
    x = in_float32(x)
    check_vector(x, tril.shape[-1], "x")
    common_shape(tuple(x.shape[:-1]), tuple(mean.shape[:-1]), tuple(tril.shape[:-2]))
    with no_autocast(mean):
        delta: Tensor = torch.linalg.solve_triangular(tril, (x - mean).unsqueeze(-1), upper=False)
    volume = torch.log(_diagonal(tril)).sum(-1) + tril.shape[-1] * HALF_LOG_TAU
    return -0.5 * delta.squeeze(-1).square().sum(-1) - volume


def _nats(delta: Tensor, mixing: Tensor, log_diagonal: Tensor) -> Tensor:
    """The three non-negative parts of the KL. Only the entries of ``mixing`` below its diagonal count."""
    return kl_standard_log_std(delta, log_diagonal).sum(-1) + 0.5 * (
        mixing.tril(-1).square().sum((-2, -1))
    )


def _diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def checked(mean: Tensor, tril: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """A checked Gaussian. Its factor is masked, so that gradients above the diagonal are zero."""
    mean, tril = in_float32(mean), in_float32(tril)
    check_tril(tril, f"tril_{name}")
    check_vector(mean, tril.shape[-1], f"mean_{name}")
    return mean, tril.tril()


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


def check_vector(mean: Tensor, dims: int, name: str) -> None:
    """Require ``mean`` to be ``(*batch, dims)``."""
    if mean.ndim == 0 or mean.shape[-1] != dims:
        raise invalid(
            f"{name} of shape {tuple(mean.shape)}",
            f"(*batch, {dims})",
            f"give {name} as many entries as its matrix has rows",
        )


def check_matrix(matrix: Tensor, rows: int, columns: int, name: str) -> None:
    """Require ``matrix`` to be ``(*batch, rows, columns)``."""
    if matrix.ndim < 2 or tuple(matrix.shape[-2:]) != (rows, columns):
        raise invalid(
            f"{name} of shape {tuple(matrix.shape)}",
            f"(*batch, {rows}, {columns})",
            f"pass {name} with one row per output and one column per input",
        )


def check_tril(tril: Tensor, name: str) -> None:
    """Require a Cholesky factor: square, lower-triangular, with a positive finite diagonal."""
    if tril.ndim < 2 or tril.shape[-1] != tril.shape[-2] or tril.shape[-1] == 0:
        raise invalid(
            f"{name} of shape {tuple(tril.shape)}",
            "square matrices (*batch, D, D)",
            "pass the Cholesky factor: torch.linalg.cholesky(covariance)",
        )
    if not can_read(tril):
        return
    if bool(tril.triu(1).any()):
        raise invalid(
            f"{name} with entries above its diagonal",
            "a lower-triangular Cholesky factor of the covariance",
            "pass torch.linalg.cholesky(covariance), not the covariance itself",
        )
    check_std(tril.diagonal(dim1=-2, dim2=-1), f"the diagonal of {name}")


def no_autocast(like: Tensor) -> torch.autocast:
    """A block without autocast, so that products of matrices keep their precision."""
    return torch.autocast(like.device.type, enabled=False)
