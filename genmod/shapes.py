"""Shapes: a batch has its rows first; everything after the first dimension is one event."""

from __future__ import annotations

import math

from torch import Tensor

from genmod.types import Shape


def size(shape: Shape) -> int:
    """The number of dimensions of one event: the product of its shape.

    >>> size((1, 28, 28))
    784
    """
    return math.prod(shape)


def event_sum(values: Tensor) -> Tensor:
    """The sum over each row's event: ``(B, *event)`` to ``(B,)``."""
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def expand_like(scale: Tensor, batch: Tensor) -> Tensor:
    """One number a row, ``(B,)``, shaped and typed to broadcast against ``(B, *event)``."""
    return scale.to(batch.dtype).reshape(-1, *[1] * (batch.ndim - 1))


def repeat(batch: Tensor, times: int) -> Tensor:
    """Each row ``times`` times in a row: ``(B, *event)`` to ``(B * times, *event)``."""
    return batch if times == 1 else batch.repeat_interleave(times, 0)
