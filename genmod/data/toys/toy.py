"""The base class of the toy densities on the plane, and their integrals in float64."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from genmod.checks import invalid
from genmod.data.datasets import Dataset
from genmod.data.rows import dataset

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

    For a density smoothed by a Gaussian the error of the mass is ``exp(-2 (pi std / step)^2)``. That of the
    entropy is larger, because ``log p`` has complex singularities near the points where curves meet.

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


class Toy(Distribution, ABC):
    """A density over points of the plane, event shape ``(2,)``, with a known entropy.

    Args:
        dtype: the type of samples; ``None`` is torch's default. Densities are computed in the type
            of the points given.
    """

    has_rsample = False
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__(torch.Size(), torch.Size([2]), validate_args=False)
        self.dtype = torch.get_default_dtype() if dtype is None else dtype

    @torch.no_grad()
    def sample(
        self,
        sample_shape: torch.Size | list[int] | tuple[int, ...] = (),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Points ``(*sample_shape, 2)``; ``generator=None`` draws from torch's own generator."""
        count = torch.Size(sample_shape).numel()
        return self._draw(count, generator).reshape(*sample_shape, 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of points ``(..., 2)``, in nats, ``(...)``."""
        if value.shape[-1:] != (2,) or not value.is_floating_point():
            raise invalid(
                f"points of shape {tuple(value.shape)} and type {value.dtype}",
                "floating point coordinates, (..., 2)",
                "put the two coordinates on the last axis",
            )
        return self._log_density(value.reshape(-1, 2)).reshape(value.shape[:-1])

    def entropy(self) -> Tensor:
        """``-E log p`` in nats, a scalar: no expected log-density exceeds its negative."""
        return torch.tensor(self._nats(), dtype=self.dtype)

    @abstractmethod
    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        """``(count, 2)`` points of type ``self.dtype``."""

    @abstractmethod
    def _log_density(self, points: Tensor) -> Tensor:
        """``(N,)`` nats at points ``(N, 2)``."""

    @abstractmethod
    def _nats(self) -> float:
        """The entropy, in float64."""

    def _normal(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Standard normal noise, on the generator's device."""
        device = None if generator is None else generator.device
        return torch.randn(count, 2, generator=generator, dtype=self.dtype, device=device)

    def _uniform(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Uniform noise in [0, 1), two columns, on the generator's device."""
        device = None if generator is None else generator.device
        return torch.rand(count, 2, generator=generator, dtype=self.dtype, device=device)


def toy_dataset(toy: Toy, n: int, seed: int = 0) -> Dataset:
    """``n`` points of a toy density, drawn and split with one seed.

    Args:
        toy: the density.
        n: points in all three parts together.
        seed: of the draw and of the split.

    Raises:
        ValueError: if ``n`` is too small to be split.

    >>> from genmod.data.toys import density
    >>> print(toy_dataset(density("moons"), 1000).summary())
    moons (720 train + 80 validation + 200 test rows of (2,), real numbers)
    """
    if n < 1:
        raise invalid(f"n={n}", "a positive number of points", "ask for at least a dozen")
    points = toy.sample((n,), generator=torch.Generator().manual_seed(seed))
    return dataset(points, name=type(toy).__name__.lower(), seed=seed)
