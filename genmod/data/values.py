"""The values of data: finite reals, or integers in a range, checked before anything is rounded."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmod.arrays import as_tensor
from genmod.spec import Bins

Array: TypeAlias = NDArray[Any]

BYTE = 256
"""How many values fit in one byte."""


def storage(bins: int) -> torch.dtype:
    """The type that integers ``0 .. bins - 1`` are kept in: one byte where they fit, else 64 bits."""
    return torch.uint8 if bins <= BYTE else torch.int64


def check_values(x: Tensor, bins: int | None, name: str = "x") -> None:
    """Require finite reals (``bins=None``) or whole numbers in ``0 .. bins - 1``.

    Raises:
        ValueError: with how many values break the rule, and the index of the first.
    """
    if bins is None and not x.is_floating_point():
        raise ValueError(
            f"got {x.dtype} data in {name} and bins=None; expected floating point data, or integer data "
            "with their number of values; pass bins=... (largest possible value + 1) to keep integers a "
            "probability mass, or x.float() if they are measurements on a scale"
        )
    if x.is_floating_point():
        broken = ~torch.isfinite(x)
        _refuse(broken, x, name, "NaN or infinite", "finite numbers", "clean the data first")
    if bins is None:
        return
    integers = f"integers in 0..{Bins(bins).count - 1}"
    if x.is_floating_point():
        advice = (
            "keep integer data integer (do not scale to [0, 1]), or pass bins=None for a density"
        )
        _refuse(x != x.round(), x, name, "non-integer", integers, advice)
    # Two passes that allocate nothing: masks of 60,000 images cost more than reading them.
    if x.numel() == 0 or (int(x.min()) >= 0 and int(x.max()) < bins):
        return
    outside = (x < 0) | (x >= bins)
    _refuse(
        outside, x, name, "out-of-range", integers, "raise bins, or shift the data to begin at 0"
    )


def _refuse(broken: Tensor, x: Tensor, name: str, kind: str, expected: str, advice: str) -> None:
    """Raise, with the count and the first index, if any value is broken."""
    count = int(broken.sum())
    if count:
        first = tuple(torch.nonzero(broken)[0].tolist())
        raise ValueError(
            f"got {x.dtype} data with {kind} values in {name}: {count} of them, the first at index "
            f"{first}, which is {x[first].item()}; expected {expected}; {advice}"
        )


def checked_rows(x: object, bins: int | None, name: str = "x") -> Tensor:
    """Rows in the type that a data set keeps; values are checked in the type that they came in.

    Floating point tensors keep their type. Arrays and lists of reals take torch's default type, because
    float64 is their default more than a choice.

    Raises:
        ValueError: values that do not belong, in the type given or after rounding.
    """
    rows = as_tensor(x, name).detach()
    rows = rows.to(torch.uint8) if rows.dtype is torch.bool else rows
    check_values(rows, bins, name)
    if bins is not None:
        return rows.to(storage(bins))
    if isinstance(x, Tensor):
        return rows
    rounded = rows.to(torch.get_default_dtype())
    check_values(rounded, None, name)
    return rounded


def as_labels(labels: object) -> Tensor:
    """Labels in the type given; whole numbers of any width are ``torch.int64``."""
    found = as_tensor(labels, "labels").detach()
    return found if found.is_floating_point() else found.to(torch.int64)


def is_array(x: object) -> bool:
    """Whether something is a tensor or an array."""
    return isinstance(x, Tensor | np.ndarray)
