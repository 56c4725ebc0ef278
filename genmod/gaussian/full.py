"""Gaussians with full covariance, each given by its Cholesky factor (``scale_tril``).

Symbols: q = N(mean_q, L_q L_q^T), p likewise; M = L_p^-1 L_q, whose diagonal is the ratio of the
diagonals; delta = L_p^-1 (mean_q - mean_p). Then KL(q || p) is a sum of non-negative terms,

    1/2 sum_{i > j} M_ij^2 + 1/2 |delta|^2 + sum_i 1/2 (M_ii^2 - 1 - log M_ii^2),

so it cannot become negative by rounding, as trace - D - log det does.

All factors are checked (positive diagonal, zeros above it); inside :func:`genmod.checks.trusted`
only shapes are. Products of matrices are computed in float32 or better, also under autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.gaussian.border import (
    check_matrix,
    check_tril,
    check_vector,
    common_shape,
    in_float32,
    no_autocast,
)
from genmod.gaussian.diagonal import log_ratio
from genmod.gaussian.kernels import HALF_LOG_TAU, kl_standard_log_std


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
        # M - I, not M: where L_q = L_p + 1e-6 in float32, M itself is off by a rounding of 1.
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


def entropy_full(tril: Tensor) -> Tensor:
    """Entropy of N(., L L^T), in nats: sum_i log L_ii + D/2 log(2 pi e).

    Args:
        tril: Cholesky factor L of the covariance, ``(*batch, D, D)``.

    Returns:
        Nats per sample, ``(*batch)``.

    Raises:
        ValueError: the factor is not square, lower-triangular, with a positive diagonal.

    >>> entropy_full(torch.eye(2))
    tensor(2.8379)
    """
    tril = in_float32(tril)
    check_tril(tril, "tril")
    return torch.log(_diagonal(tril)).sum(-1) + tril.shape[-1] * (HALF_LOG_TAU + 0.5)


def log_prob_full(x: Tensor, mean: Tensor, tril: Tensor) -> Tensor:
    """The log density of N(mean, L L^T) at x, in nats.

        -1/2 |L^-1 (x - mean)|^2 - sum_i log L_ii - D/2 log(2 pi)

    Args:
        x: where, ``(*batch, D)``.
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
    """The three non-negative parts of the KL; of ``mixing`` only what is below its diagonal."""
    return kl_standard_log_std(delta, log_diagonal).sum(-1) + 0.5 * (
        mixing.tril(-1).square().sum((-2, -1))
    )


def _diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def checked(mean: Tensor, tril: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """One Gaussian, its factor masked so that gradients stay below the diagonal."""
    mean, tril = in_float32(mean), in_float32(tril)
    check_tril(tril, f"tril_{name}")
    check_vector(mean, tril.shape[-1], f"mean_{name}")
    return mean, tril.tril()
