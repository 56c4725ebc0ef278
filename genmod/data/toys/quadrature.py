"""Deterministic integrals over a line and over the plane, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_CHUNK = 1 << 21  # pairs (point, node) held at once: 16 MB in float64


def gauss_legendre(low: float, high: float, panels: int, order: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of composite Gauss-Legendre quadrature on [low, high].

    >>> nodes, weights = gauss_legendre(0.0, 1.0, panels=3, order=4)
    >>> round(float((weights * nodes**7).sum()), 12)
    0.125
    """
    nodes, weights = np.polynomial.legendre.leggauss(order)
    edges = torch.linspace(low, high, panels + 1, dtype=torch.float64)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    centers = (edges[1:] + edges[:-1])[:, None] / 2
    return (
        (centers + half * torch.from_numpy(nodes)).flatten(),
        (half * torch.from_numpy(weights)).flatten(),
    )


def plane_entropy(
    log_density: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, step: float
) -> float:
    """``-int p log p`` over a box by the trapezoid rule.

    The mass of a density smoothed by a Gaussian is then off by ``exp(-2 (pi std / step)^2)``; its
    entropy by more, for ``log p`` has singularities near the real plane where curves meet.

    Args:
        log_density: nats ``(N,)`` at points ``(N, 2)``.
        low: its lower left corner, ``(2,)``.
        high: its upper right corner, ``(2,)``.
        step: distance between neighboring points of the grid.
    """
    axes = [
        torch.arange(start, end + step, step, dtype=torch.float64)
        for start, end in zip(low.tolist(), high.tolist(), strict=True)
    ]
    total = 0.0
    for x in axes[0].split(max(1, 4096 // len(axes[1]))):
        log_p = log_density(torch.cartesian_prod(x, axes[1]))
        total -= float((log_p.exp() * log_p).sum())
    return total * step * step


def smoothed_log_density(points: Tensor, nodes: Tensor, log_weights: Tensor, std: float) -> Tensor:
    """``log sum_j w_j N(x; node_j, std^2 I)`` at points ``(N, 2)``, in the points' own type.

    Differences are squared one by one: the expansion ``|x|^2 - 2 x c + |c|^2`` loses in float32 all
    digits that matter once ``|x|`` is a hundred times ``std``.
    """
    nodes, log_weights = nodes.to(points), log_weights.to(points)
    norm = torch.log(torch.tensor(2 * torch.pi * std**2, dtype=torch.float64)).item()
    pieces = []
    for piece in points.split(max(1, _CHUNK // len(nodes))):
        across = (piece[:, :1] - nodes[:, 0]) / std
        along = (piece[:, 1:] - nodes[:, 1]) / std
        pieces.append(torch.logsumexp(log_weights - 0.5 * (across**2 + along**2), -1) - norm)
    return torch.cat(pieces)
