"""What a network is told when it is told nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.checks import require


def nothing_like(context: Tensor) -> Tensor:
    """The context that says nothing, row by row: labels of -1, or numbers that are all NaN.

    Raises:
        ValueError: a type that can hold neither (booleans, unsigned integers).

    >>> nothing_like(torch.tensor([3, 7]))
    tensor([-1, -1])
    """
    if context.is_floating_point():
        return torch.full_like(context, torch.nan)
    require(
        context.dtype in (torch.int8, torch.int16, torch.int32, torch.int64),
        f"a context of type {context.dtype}",
        "labels as signed integers, or floating point numbers",
        "convert it: labels.long(), or vectors.float()",
    )
    return torch.full_like(context, -1)
