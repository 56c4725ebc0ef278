"""The values of data: real numbers, or whole numbers of a few levels, said at once where they are not."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmod.checks import require

Array: TypeAlias = NDArray[Any]


def check_values(x: Tensor, bins: int | None, name: str = "x") -> None:
    """Require finite reals (``bins=None``) or whole numbers in ``0 .. bins - 1``.

    Raises:
        ValueError: with how many values broke the rule, and the index of the first.
    """
    if bins is None:
        require(
            x.is_floating_point(),
            f"{x.dtype} data in {name} and bins=None",
            "floating point data, or integer data with its number of levels",
            "pass bins=... (largest possible value + 1) to keep integers a probability mass, "
            "or x.float() if they are measurements on a scale",
        )
    if x.is_floating_point():
        _refuse(
            ~torch.isfinite(x), x, name, "NaN or infinite", "finite numbers", "clean the data first"
        )
    if bins is None:
        return
    require(bins >= 2, f"bins={bins}", "at least 2 levels", "pass the number of possible values")
    levels = f"integers in 0..{bins - 1}"
    if x.is_floating_point():
        advice = (
            "keep integer data integer (do not scale to [0, 1]), or pass bins=None for a density"
        )
        _refuse(x != x.round(), x, name, "non-integer", levels, advice)
    # Two looks that need no memory of their own: masks of 60,000 images cost more than reading them.
    if x.numel() == 0 or (int(x.min()) >= 0 and int(x.max()) < bins):
        return
    outside = (x < 0) | (x >= bins)
    _refuse(outside, x, name, "out-of-range", levels, "raise bins, or shift the data to begin at 0")


def _refuse(broken: Tensor, x: Tensor, name: str, kind: str, expected: str, advice: str) -> None:
    """Raise, with the count and the first index, if any value is broken."""
    count = int(broken.sum())
    if count:
        first = tuple(torch.nonzero(broken)[0].tolist())
        got = (
            f"got {x.dtype} data with {kind} values in {name}: {count} of them, the first at index "
        )
        raise ValueError(f"{got}{first}, which is {x[first].item()}; expected {expected}; {advice}")


def numbers(x: Tensor | Array, name: str) -> Tensor:
    """A detached tensor of real numbers; arrays of reals take torch's default type."""
    if isinstance(x, np.ndarray):
        require(
            x.dtype.kind in "biuf",
            f"an array {name} of type {x.dtype}",
            "an array of numbers",
            "select and encode the columns you mean to model",
        )
        if x.dtype.kind == "f":
            return torch.tensor(x.astype(np.float64)).to(torch.get_default_dtype())
        return torch.tensor(x.astype(np.int64))
    require(
        isinstance(x, Tensor),
        f"{name} of type {type(x).__name__}",
        "a torch tensor or a NumPy array",
        "convert it with torch.tensor or numpy.asarray, and split labels from data yourself",
    )
    require(not x.is_complex(), f"complex {name}", "real numbers", "use torch.view_as_real first")
    real = x.detach()
    return real if real.is_floating_point() else real.to(torch.int64)
