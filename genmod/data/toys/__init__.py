"""Densities on the plane whose entropy is known, so that a model's gap can be read in nats.

``data.load("moons")`` draws 10,000 points of one; :func:`density` gives the density itself. It is a
``torch.distributions.Distribution`` of events ``(2,)``: ``sample`` (with torch's API, or with a generator
of one's own), an exact ``log_prob``, and ``entropy`` in nats: closed form where there is one, else
deterministic quadrature. The mean of ``-log_prob`` over fresh samples is the entropy, so no model of these
data can have an expected log-density above minus that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from genmod.checks import check_at_least, check_positive, invalid, one_of
from genmod.data.toys.curves import Moons, Ring, Spiral
from genmod.data.toys.toy import Toy, smoothed_log_density

__all__ = ["density"]

_LOG_2PI = math.log(2 * math.pi)


@final
class Checkerboard(Toy):
    """Uniform on the dark squares of a board centered at 0: entropy ``log(dark squares * side^2)``.

    Args:
        squares: squares along each edge of the board.
        side: length of a square's side.
        dtype: of samples.

    >>> Checkerboard(squares=4, side=1.0).entropy()  # 8 dark squares of area 1
    tensor(2.0794)
    """

    def __init__(
        self, squares: int = 4, side: float = 1.0, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(dtype)
        if squares < 1:
            raise invalid(f"squares={squares}", "a board of at least 1 square", "use 4")
        check_positive(side, "side")
        self.squares, self.side = squares, side

    @property
    def _dark(self) -> int:
        return (self.squares**2 + 1) // 2

    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        device = None if generator is None else generator.device
        # Every second square in reading order is dark if a row has an odd number of squares; in an
        # even row the pattern shifts by one each row.
        index = 2 * torch.randint(self._dark, (count,), generator=generator, device=device)
        row, column = index // self.squares, index % self.squares
        column = column + (row % 2 if self.squares % 2 == 0 else 0)
        corner = torch.stack([row, column], -1).to(self.dtype) - self.squares / 2
        # Rounding may carry a point of [0, 1) over the edge into a light square, where the density
        # is zero (3 of 2 10^7 points in float32, 3 of 1000 in float16): keep off by that much.
        margin = self.squares * torch.finfo(self.dtype).eps
        inside = margin + (1 - 2 * margin) * self._uniform(count, generator)
        return self.side * (corner + inside)

    def _log_density(self, points: Tensor) -> Tensor:
        square = torch.floor(points / self.side + self.squares / 2)
        on_board = ((square >= 0) & (square < self.squares)).all(-1)
        dark = on_board & (square.sum(-1) % 2 == 0)
        zero = 0.0 * points.sum(-1)  # keeps the (zero) gradient and passes NaN on
        return torch.where(dark, zero - self._nats(), zero - torch.inf)

    def _nats(self) -> float:
        return math.log(self._dark * self.side**2)


@final
class Banana(Toy):
    """A Gaussian sheared along a parabola; the shear keeps areas, hence the Gaussian's entropy.

    ``x_1 = a e_1``, ``x_2 = b e_2 + c (x_1^2 - a^2)`` with ``e ~ N(0, I)``; the mean is 0 and
    the entropy ``log(2 pi e a b)``.

    Args:
        std: ``(a, b)``.
        curvature: ``c``, any number; 0 is a Gaussian.
        dtype: of samples.

    Reference:
        Haario, Saksman and Tamminen 1999, Adaptive proposal distribution for random walk Metropolis
        (their "banana", centered here).
    """

    def __init__(
        self,
        std: tuple[float, float] = (1.0, 0.5),
        curvature: float = 0.5,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dtype)
        for value in std:
            check_positive(value, "std")
        if not math.isfinite(curvature):
            raise invalid(f"curvature={curvature}", "a finite number", "use 0.5")
        self.std, self.curvature = std, curvature

    def _bend(self, x: Tensor) -> Tensor:
        return self.curvature * (x.square() - self.std[0] ** 2)

    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        straight = self._normal(count, generator)
        x, y = self.std[0] * straight[:, 0], self.std[1] * straight[:, 1]
        return torch.stack([x, y + self._bend(x)], -1)

    def _log_density(self, points: Tensor) -> Tensor:
        x, y = points.unbind(-1)
        unbent = y - self._bend(x)
        square = (x / self.std[0]).square() + (unbent / self.std[1]).square()
        return -0.5 * square - _LOG_2PI - math.log(self.std[0] * self.std[1])

    def _nats(self) -> float:
        return 1.0 + _LOG_2PI + math.log(self.std[0] * self.std[1])


@final
class Correlated(Toy):
    """A Gaussian with full covariance: entropy ``log(2 pi e a b sqrt(1 - r^2))``.

    Args:
        correlation: ``r``, in (-1, 1).
        std: ``(a, b)``.
        mean: of the two coordinates.
        dtype: of samples.
    """

    def __init__(
        self,
        correlation: float = 0.9,
        std: tuple[float, float] = (1.0, 1.0),
        mean: tuple[float, float] = (0.0, 0.0),
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dtype)
        if not abs(correlation) < 1:
            raise invalid(
                f"correlation={correlation}",
                "a number in (-1, 1)",
                "at the ends the density degenerates to a line",
            )
        for value in std:
            check_positive(value, "std")
        self.correlation, self.std, self.mean_point = correlation, std, mean
        self._rest = math.sqrt(1 - correlation**2)

    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        first, other = self._normal(count, generator).unbind(-1)
        second = self.correlation * first + self._rest * other
        return torch.stack(
            [
                self.mean_point[0] + self.std[0] * first,
                self.mean_point[1] + self.std[1] * second,
            ],
            -1,
        )

    def _log_density(self, points: Tensor) -> Tensor:
        first = (points[:, 0] - self.mean_point[0]) / self.std[0]
        second = (points[:, 1] - self.mean_point[1]) / self.std[1]
        other = (second - self.correlation * first) / self._rest
        return 1.0 - self._nats() - 0.5 * (first.square() + other.square())

    def _nats(self) -> float:
        return 1.0 + _LOG_2PI + math.log(self.std[0] * self.std[1] * self._rest)


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
        if self.means.ndim != 2 or self.means.shape[1] != 2 or len(self.means) == 0:
            raise invalid(
                f"means of shape {tuple(self.means.shape)}",
                "K points of the plane, (K, 2)",
                "give a pair of numbers for each component",
            )
        count = len(self.means)
        given = torch.ones(count) if weights is None else torch.as_tensor(weights)
        if given.shape != (count,) or not ((given > 0).all() & given.isfinite().all()):
            raise invalid(
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
        check_at_least(count, 1, "count", "use 8")
        angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
        return cls(radius * torch.stack([angle.cos(), angle.sin()], -1), std, dtype=dtype)

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


BY_NAME: Mapping[str, Callable[[], Toy]] = {
    "banana": Banana,
    "checkerboard": Checkerboard,
    "correlated": Correlated,
    "gaussian-mixture": GaussianMixture.circle,
    "moons": Moons,
    "ring": Ring,
    "spiral": Spiral,
}
"""What builds the density of each name that :func:`genmod.data.load` knows."""


def density(name: str) -> Toy:
    """The density of a name, as :func:`genmod.data.load` draws its points.

    Args:
        name: ``"banana"``, ``"checkerboard"``, ``"correlated"``, ``"gaussian-mixture"``, ``"moons"``,
            ``"ring"`` or ``"spiral"``.

    Raises:
        ValueError: another name.

    >>> density("checkerboard").entropy()  # 8 dark squares of area 1: log 8
    tensor(2.0794)
    """
    return BY_NAME[one_of(BY_NAME, name, "name")]()
