"""Isotropic Gaussians side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from genmod.checks import check_positive, require
from genmod.data.toys.quadrature import smoothed_log_density
from genmod.data.toys.toy import Toy


@final
class GaussianMixture(Toy):
    """``p(x) = sum_k w_k N(x; m_k, s^2 I)``.

    The entropy is ``sum_k w_k E_k[-log p]``, each expectation by the trapezoid rule on a grid of
    step s / 8 that reaches 9 s from ``m_k``: to 1e-10 nats. Equal weights far apart give
    ``log K + log(2 pi e s^2)``.

    Args:
        means: the ``m_k``, K pairs of numbers.
        std: ``s``, common to all.
        weights: the ``w_k``, positive, of any sum; ``None`` for equal ones.
        dtype: of samples.

    >>> GaussianMixture.circle().means.shape
    torch.Size([8, 2])
    """

    def __init__(
        self,
        means: Sequence[tuple[float, float]] | Tensor,
        std: float,
        weights: Sequence[float] | Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dtype)
        check_positive(std, "std")
        self.means = torch.as_tensor(means, dtype=torch.float64)
        require(
            self.means.ndim == 2 and self.means.shape[1] == 2 and len(self.means) >= 1,
            f"means of shape {tuple(self.means.shape)}",
            "K points of the plane, (K, 2)",
            "give a pair of numbers for each component",
        )
        count = len(self.means)
        given = torch.ones(count) if weights is None else torch.as_tensor(weights)
        require(
            given.shape == (count,) and bool((given > 0).all() & given.isfinite().all()),
            f"weights {given.tolist()}",
            f"{count} positive finite numbers, one for each mean",
            "leave out components without weight",
        )
        self.weights = given.to(torch.float64) / given.to(torch.float64).sum()
        self.std = std

    @classmethod
    def circle(
        cls,
        count: int = 8,
        radius: float = 2.0,
        std: float = 0.2,
        dtype: torch.dtype | None = None,
    ) -> GaussianMixture:
        """``count`` equal Gaussians on a circle."""
        require(count >= 1, f"count={count}", "at least 1 component", "use 8")
        angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
        return cls(radius * torch.stack([angle.cos(), angle.sin()], -1), std, dtype=dtype)

    @classmethod
    def grid(
        cls,
        side: int = 5,
        spacing: float = 1.0,
        std: float = 0.1,
        dtype: torch.dtype | None = None,
    ) -> GaussianMixture:
        """``side * side`` equal Gaussians on a square grid centered at 0."""
        require(side >= 1, f"side={side}", "at least 1 component along an edge", "use 5")
        axis = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
        return cls(torch.cartesian_prod(axis, axis), std, dtype=dtype)

    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        noise = self._normal(count, generator)
        weights = self.weights.to(noise.device)
        index = torch.multinomial(weights, count, replacement=True, generator=generator)
        return self.means.to(noise)[index] + self.std * noise

    def _log_density(self, points: Tensor) -> Tensor:
        return smoothed_log_density(points, self.means, self.weights.log(), self.std)

    @cached_property
    def _entropy_nats(self) -> float:
        step = 1 / 8
        axis = torch.arange(-9, 9 + step, step, dtype=torch.float64)
        mass = torch.exp(-0.5 * axis.square()) * (step / math.sqrt(2 * math.pi))
        offset, mass = torch.cartesian_prod(axis, axis), torch.outer(mass, mass).flatten()
        return -sum(
            float(weight * (mass * self._log_density(mean + self.std * offset)).sum())
            for mean, weight in zip(self.means, self.weights, strict=True)
        )

    def _nats(self) -> float:
        return self._entropy_nats
