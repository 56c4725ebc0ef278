"""How many rows go through a network at once, by the memory that they take."""

from __future__ import annotations

import torch

from genmod.shapes import size
from genmod.types import Shape

COPIES = 200
"""How many tensors of an event's size a network holds at once, as a rule (a U-Net of width 32)."""
LARGEST = 8192
"""Rows at most, however small an event is."""


def rows_per_chunk(shape: Shape, device: torch.device | None = None) -> int:
    """How many events of a shape go through a network together.

    Without gradients a network holds about :data:`COPIES` tensors of an event's size. The budget is 64 MB
    on a CPU, whose caches are small, and 2 GB elsewhere.

    >>> rows_per_chunk((1, 8, 8)), rows_per_chunk((3, 32, 32))
    (1310, 27)
    """
    budget = 64 << 20 if device is None or device.type == "cpu" else 2 << 30
    return max(1, min(LARGEST, budget // (4 * COPIES * size(shape))))
