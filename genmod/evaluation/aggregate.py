r"""The aggregate posterior of a data set, and the mutual information of data and latent.

Over rows :math:`x_1 \dots x_N`, :math:`q(z) = \frac1N \sum_n q(z | x_n)`, and

.. math:: \frac1N \sum_n \mathrm{KL}(q(z|x_n) \,\|\, p(z)) = I(x; z) + \mathrm{KL}(q(z) \,\|\, p(z)),
    \qquad I(x; z) = \frac1N \sum_n \mathbb{E}_{q(z|x_n)} \log \frac{q(z|x_n)}{q(z)} \le \log N.

Each row's own posterior is one of the ``N`` terms of :math:`q(z)`, so the bound holds at every draw.

Reference: Hoffman, Johnson, "ELBO surgery: yet another way to carve up the variational evidence lower
bound" (2016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.distributions import Normal
from genmod.distributions.base import elementwise, is_factorized
from genmod.gaussian.kernels import HALF_LOG_TAU

_PAIRS = 1 << 27
"""Pairs of a draw and a posterior at most: about three seconds."""
_TOGETHER = 1 << 22
"""Pairs that are computed at a time: 32 MB."""


def information(laws: Sequence[Distribution], z: Tensor) -> tuple[Tensor, Tensor]:
    r"""The nats by which each draw is likelier under its own row's posterior than under the aggregate.

    .. math:: \log q(z_n | x_n) - \log \tfrac1N \textstyle\sum_m q(z_n | x_m) \le \log N

    The aggregate is that of all ``N`` rows. Where draws times rows are too many, some draws are used,
    those of rows spread evenly over all.

    Args:
        laws: the posteriors of all rows, in order, in one or more pieces.
        z: ``K`` draws of each row, ``(K, N, *event)``.

    Returns:
        The mean over the draws of each row used, ``(M,)`` nats in float64, and the rows, ``(M,)``.
    """
    laws, z = _centered(laws, z)
    draws, rows = z.shape[:2]
    used = min(rows, max(1, _PAIRS // (draws * rows)))
    chosen = torch.arange(used) * rows // used
    found = [
        _log_ratio(laws, z[:, part].flatten(0, 1), part.repeat(draws), rows).reshape(draws, -1)
        for part in chosen.split(max(1, _TOGETHER // (draws * rows)))
    ]
    return torch.cat(found, 1).mean(0), chosen


def _centered(laws: Sequence[Distribution], z: Tensor) -> tuple[list[Distribution], Tensor]:
    """Gaussians as one, on the CPU in float64; any other laws as they are.

    The mean of all posteriors is moved to zero: the pairs below are products of matrices, and squares of
    large means divided by small variances would lose the digits of their differences.
    """
    normals = [law for law in laws if type(law) is Normal]
    if len(normals) < len(laws):
        return list(laws), z
    mean = torch.cat([law.loc for law in normals]).cpu().double()
    log_std = torch.cat([law.log_std for law in normals]).cpu().double()
    return [Normal(mean - mean.mean(0), log_std)], z.cpu().double() - mean.mean(0)


def _log_ratio(laws: Sequence[Distribution], z: Tensor, own: Tensor, rows: int) -> Tensor:
    """``log q(z | x_own) - log q(z)`` of each draw, ``(M,)``."""
    pairs = torch.cat([_log_probs(law, z) for law in laws], 1).double().cpu()
    at_own = pairs[torch.arange(len(own)), own]
    return (at_own - pairs.logsumexp(1) + math.log(rows)).clamp(max=math.log(rows))


def _log_probs(law: Distribution, z: Tensor) -> Tensor:
    """``log q(z_i | x_j)`` of each draw under each row's law, ``(M, B)``."""
    if type(law) is Normal:
        mean, log_std = law.loc.flatten(1), law.log_std.flatten(1)
        precision, flat = (-2 * log_std).exp(), z.flatten(1)
        constant = -0.5 * (mean.square() * precision).sum(1) - log_std.sum(1)
        cross = flat @ (mean * precision).T - 0.5 * flat.square() @ precision.T
        return cross + constant - HALF_LOG_TAU * mean.shape[1]
    if is_factorized(law):
        wide = z[:, None].expand(len(z), law.batch_shape[0], *z.shape[1:])
        return elementwise(law, wide).flatten(2).sum(2)
    return law.log_prob(z[:, None])
