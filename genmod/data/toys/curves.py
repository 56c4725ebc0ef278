"""Curves blurred by Gaussian noise: a ring, two moons, and spirals.

For moons and spirals a point is ``c_k(u) + s e`` with a curve ``k`` and a place ``u`` on it drawn
uniformly and ``e ~ N(0, I)``, so ``p(x) = mean_k int_0^1 N(x; c_k(u), s^2 I) du``. The integral is a
composite Gauss-Legendre sum with panels no longer than ``2 s`` on the curve: the log-density is off by
less than 1e-9 within ``10 s`` of a curve and by less than 1e-4 within ``20 s``, where it is near -200.
The ring has a closed density.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from genmod.checks import check_at_least, check_positive, invalid
from genmod.data.toys.toy import Toy, gauss_legendre, plane_entropy, smoothed_log_density

_ORDER = 12


class _Arcs(Toy, ABC):
    """Curves ``c_k(v)``, ``v`` in [0, 1], with a density of ``v`` on them, blurred by noise."""

    def __init__(self, curves: int, length: float, std: float, dtype: torch.dtype | None) -> None:
        super().__init__(dtype)
        check_positive(std, "std")
        self.curves, self.std = curves, std
        place, weight = gauss_legendre(0.0, 1.0, math.ceil(length / (2 * std)), _ORDER)
        weight = weight * self._rate(place) / curves
        index = torch.arange(curves).repeat_interleave(len(place))
        self._nodes = self._curve(place.repeat(curves), index)
        self._log_weights = weight.repeat(curves).log()

    @abstractmethod
    def _curve(self, v: Tensor, index: Tensor) -> Tensor:
        """The point at ``v`` of the curve with that index, ``(N, 2)``."""

    @abstractmethod
    def _rate(self, v: Tensor) -> Tensor:
        """The density of ``v`` on [0, 1]."""

    @abstractmethod
    def _place(self, u: Tensor) -> Tensor:
        """``v`` at which the distribution function of that density is ``u``."""

    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        uniform = self._uniform(count, generator)
        index = (self.curves * uniform[:, 1]).long()
        points = self._curve(self._place(uniform[:, 0]), index)
        return points + self.std * self._normal(count, generator)

    def _log_density(self, points: Tensor) -> Tensor:
        return smoothed_log_density(points, self._nodes, self._log_weights, self.std)

    @cached_property
    def _entropy_nats(self) -> float:
        low = self._nodes.amin(0) - 9 * self.std
        high = self._nodes.amax(0) + 9 * self.std
        return plane_entropy(self._log_density, low, high, self.std / 2)

    def _nats(self) -> float:
        return self._entropy_nats


@final
class Moons(_Arcs):
    """Two interleaved half circles of radius 1, centered at (0, 0) and (1, 1/2), blurred by noise.

    The arcs of scikit-learn's ``make_moons``, places on them drawn at random. Entropy by the
    trapezoid rule on the plane, to 1e-6 nats.

    Args:
        std: of the noise in each coordinate; below 0.05 the entropy takes seconds.
        dtype: of samples.

    >>> Moons().sample((5,)).shape
    torch.Size([5, 2])
    """

    def __init__(self, std: float = 0.1, dtype: torch.dtype | None = None) -> None:
        super().__init__(2, math.pi, std, dtype)

    def _curve(self, v: Tensor, index: Tensor) -> Tensor:
        angle, lower = math.pi * v, index == 1
        upper = torch.stack([angle.cos(), angle.sin()], -1)
        center = torch.tensor([1.0, 0.5]).to(upper)
        return torch.where(lower[:, None], center - upper, upper)

    def _rate(self, v: Tensor) -> Tensor:
        return torch.ones_like(v)

    def _place(self, u: Tensor) -> Tensor:
        return u


@final
class Spiral(_Arcs):
    """Arms of an Archimedean spiral, ``radius v`` at angle ``2 pi turns v``, blurred by noise.

    The place has density ``2 v``, so points are spread nearly evenly along an arm. A few arms and a
    fraction of a turn give a pinwheel. Entropy by the trapezoid rule on the plane, to 1e-6 nats.

    Args:
        arms: how many, evenly turned around 0.
        turns: of each arm around 0.
        radius: where an arm ends.
        std: of the noise in each coordinate; the entropy's cost grows like ``length / std^3``.
        dtype: of samples.
    """

    def __init__(
        self,
        arms: int = 2,
        turns: float = 1.0,
        radius: float = 2.0,
        std: float = 0.12,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_at_least(arms, 1, "arms", "use 2")
        if not 0 <= turns < math.inf:
            raise invalid(f"turns={turns}", "a finite number >= 0", "use 1.0")
        check_positive(radius, "radius")
        self.arms, self.turns, self.radius = arms, turns, radius
        # Panels are even in v and the curve is fastest at its outer end: count them by that speed.
        super().__init__(arms, radius * math.hypot(1.0, 2 * math.pi * turns), std, dtype)

    def _curve(self, v: Tensor, index: Tensor) -> Tensor:
        # Integers divide to torch's default type: a third of a turn in float32 is off by 1e-8.
        angle = 2 * math.pi * (self.turns * v + index.to(v) / self.arms)
        return (self.radius * v)[:, None] * torch.stack([angle.cos(), angle.sin()], -1)

    def _rate(self, v: Tensor) -> Tensor:
        return 2 * v

    def _place(self, u: Tensor) -> Tensor:
        return u.sqrt()


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
        if not 0 <= radius < math.inf:
            raise invalid(f"radius={radius}", "a finite number >= 0", "use 1.5")
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
