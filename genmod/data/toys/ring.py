"""A circle blurred by Gaussian noise."""

from __future__ import annotations

import math
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from genmod.checks import check_positive, require
from genmod.data.toys.quadrature import gauss_legendre
from genmod.data.toys.toy import Toy


@final
class Ring(Toy):
    r"""A circle of radius R with isotropic Gaussian noise; the distance from 0 has Rice's density.

    ``p(x) = exp(-(|x|^2 + R^2) / (2 s^2)) I_0(|x| R / s^2) / (2 pi s^2)``. The entropy is one
    radial integral, by Gauss-Legendre quadrature to 1e-12 nats.

    Args:
        radius: R, zero (a Gaussian) or more.
        std: s, of the noise in each coordinate.
        dtype: of samples.

    Reference:
        Rice 1945, Mathematical analysis of random noise, eq. 3.10-11.

    >>> Ring(radius=0.0, std=1.0, dtype=torch.float64).entropy()  # 1 + log(2 pi)
    tensor(2.8379, dtype=torch.float64)
    """

    def __init__(
        self, radius: float = 1.5, std: float = 0.15, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(dtype)
        require(0 <= radius < math.inf, f"radius={radius}", "a finite number >= 0", "use 1.5")
        check_positive(std, "std")
        self.radius, self.std = radius, std

    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        angle = 2 * math.pi * self._uniform(count, generator)[:, 0]
        circle = torch.stack([angle.cos(), angle.sin()], -1)
        return self.radius * circle + self.std * self._normal(count, generator)

    def _log_density(self, points: Tensor) -> Tensor:
        # The gradient of a plain norm is NaN at 0, where this density is smooth.
        r = points.square().sum(-1).clamp(min=torch.finfo(points.dtype).tiny).sqrt()
        return self._radial(r)

    def _radial(self, r: Tensor) -> Tensor:
        variance = self.std**2
        # i0e(a) = exp(-a) I_0(a): I_0 itself overflows at |x| R = 90 s^2 in float32.
        bessel = torch.special.i0e(r * (self.radius / variance)).log()
        square = ((r - self.radius) / self.std).square()
        log_p: Tensor = bessel - 0.5 * square - math.log(2 * math.pi * variance)
        return log_p

    @cached_property
    def _entropy_nats(self) -> float:
        low = max(0.0, self.radius - 12 * self.std)
        r, weight = gauss_legendre(low, self.radius + 12 * self.std, panels=24, order=16)
        log_p = self._radial(r)
        return -2 * math.pi * float((weight * r * log_p.exp() * log_p).sum())

    def _nats(self) -> float:
        return self._entropy_nats
