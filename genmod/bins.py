"""Integers on the real line: evenly spaced centers on [-1, 1], each with an interval around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.checks import require


@dataclass(frozen=True)
class Bins:
    """The integers ``0 .. count - 1`` as evenly spaced centers on [-1, 1].

    Value ``k`` has the center ``2 k / (count - 1) - 1``, and owns the interval of :attr:`width` around it.
    The first and the last interval are infinite, so that the masses of any density sum to one.

    >>> Bins(17).center(torch.tensor([0, 8, 16]))
    tensor([-1.,  0.,  1.])
    """

    count: int

    def __post_init__(self) -> None:
        require(
            self.count >= 2,
            f"bins={self.count}",
            "at least 2 values",
            "pass the number of distinct integers the data can hold (17 for the digits, 256 for "
            "8-bit images)",
        )

    @property
    def width(self) -> float:
        """The distance between neighboring centers."""
        return 2.0 / (self.count - 1)

    def center(self, x: Tensor) -> Tensor:
        """The center of each integer; floating point tensors keep their type."""
        if x.is_floating_point():
            return x * self.width - 1.0
        return x.to(torch.get_default_dtype()).mul_(self.width).sub_(1.0)

    def value(self, real: Tensor) -> Tensor:
        """The integer whose interval holds each real number: the inverse of :meth:`center`."""
        return ((real + 1.0) / self.width).round().clamp(0, self.count - 1).long()

    def edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and upper end of each integer's interval; infinite for the first and the last."""
        real = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        # In half-widths centers are whole numbers, so neighbors share their edge to the last bit:
        # else a scale of 1e-5 in float32 loses or doubles 1e-3 of the mass between them.
        halves = 2 * real - (self.count - 1)
        lower = torch.where(x <= 0, -torch.inf, (halves - 1) * (self.width / 2))
        upper = torch.where(x >= self.count - 1, torch.inf, (halves + 1) * (self.width / 2))
        return lower, upper
