"""Checks of data: values before they are rounded, parts of a data set, memory; and two warnings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genmod.arrays import as_tensor
from genmod.checks import all_finite, check_mask, invalid
from genmod.spec import Bins

if TYPE_CHECKING:
    from genmod.data.datasets import Dataset

Array: TypeAlias = NDArray[Any]

BYTE = 256
"""How many values fit in one byte."""


def storage(bins: int) -> torch.dtype:
    """The type that integers ``0 .. bins - 1`` are stored in: one byte where they fit, else 64 bits."""
    return torch.uint8 if bins <= BYTE else torch.int64


def check_values(x: Tensor, bins: int | None, name: str = "x") -> None:
    """Require finite reals (``bins=None``) or whole numbers in ``0 .. bins - 1``.

    Raises:
        ValueError: with how many values break the rule, and the index of the first.
    """
    if bins is None and not x.is_floating_point():
        raise invalid(
            f"{x.dtype} data in {name} and bins=None",
            "floating point data, or integer data with their number of values",
            "pass bins=... (largest possible value + 1) to keep integers a probability mass, or "
            "x.float() if they are measurements on a scale",
        )
    if x.is_floating_point() and not all_finite(x):
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
        raise invalid(
            f"{x.dtype} data with {kind} values in {name}: {count} of them, the first at index "
            f"{first}, which is {x[first].item()}",
            expected,
            advice,
        )


def checked_rows(
    x: object, bins: int | None, observed: object = None, name: str = "x"
) -> tuple[Tensor, Tensor | None]:
    """Rows in the type that a data set stores, and the mask. Values are checked before they are converted.

    Floating point tensors keep their type. Arrays and lists of reals take torch's default type, because
    NumPy and Python make float64 unasked. Entries that are not observed become 0.

    Raises:
        ValueError: values that are not allowed, in the type given or after rounding.
    """
    rows = as_tensor(x, name).detach()
    rows = rows.to(torch.uint8) if rows.dtype is torch.bool else rows
    mask = None
    if observed is not None:
        mask = as_tensor(observed, "observed").to(rows.device)
        check_mask(mask, rows)
        check_seen(mask, name)
        rows = torch.where(mask, rows, 0)
        mask = None if bool(mask.all()) else mask
    check_values(rows, bins, name)
    if bins is not None:
        return rows.to(storage(bins)), mask
    if isinstance(x, Tensor):
        return rows, mask
    rounded = rows.to(torch.get_default_dtype())
    if rounded is not rows:
        check_values(rounded, None, name)
    return rounded, mask


def as_labels(labels: object) -> Tensor:
    """Labels in the type given; whole numbers of any width are ``torch.int64``."""
    found = as_tensor(labels, "labels").detach()
    return found if found.is_floating_point() else found.to(torch.int64)


def is_array(x: object) -> bool:
    """Whether something is a tensor or an array."""
    return isinstance(x, Tensor | np.ndarray)


def pair(x: object) -> tuple[object, object]:
    """Rows and labels: a tuple of two whose first part is rows of events; else rows alone."""
    if isinstance(x, tuple) and len(x) == 2 and _holds_rows(x[0]) and not _holds_rows(x[1], 3):
        rows, labels = x
        if len(rows) == len(labels):
            return rows, labels
    return x, None


def _holds_rows(x: object, axes: int = 2) -> bool:
    """Whether something has at least so many axes."""
    if is_array(x):
        return isinstance(x, Tensor | np.ndarray) and x.ndim >= axes
    depth = 0
    while isinstance(x, list | tuple) and x:
        depth, x = depth + 1, x[0]
    if isinstance(x, Tensor | np.ndarray):
        depth += x.ndim
    return depth >= axes


def byte(x: object) -> int | None:
    """The number of values that a type implies: 256 for bytes, 2 for booleans."""
    if isinstance(x, Tensor | np.ndarray):
        kind = str(x.dtype).removeprefix("torch.")
        return {"uint8": BYTE, "bool": 2}.get(kind)
    return None


def check_memory(size: int, what: str) -> None:
    """Require a number of bytes to fit in half of the free memory: a small file can unpack to more.

    Raises:
        ValueError: before anything is read.
    """
    free = free_memory()
    if size > free // 2:
        raise invalid(
            f"{what}, which takes {size / 2**20:,.0f} MB in memory",
            f"at most {free / 2**21:,.0f} MB, half of what is free",
            "save its rows with numpy.save: large .npy files are read in place; or take fewer rows",
        )


def free_memory() -> int:
    """The bytes of memory that programs can still take."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_part(split: str, part: Tensor, train: Tensor, bins: int | None) -> None:
    if not (
        part.ndim >= 2
        and part.shape[1:] == train.shape[1:]
        and (bins is not None or part.dtype == train.dtype)
    ):
        raise invalid(
            f"a {split} part of shape {tuple(part.shape)} and type {part.dtype}",
            f"rows (N, *event) like the training part: {tuple(train.shape)}, {train.dtype}",
            "cut all parts from one tensor, or use genmod.data.load",
        )


def check_labels(labels: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> None:
    sizes = {split: len(part) for split, part in parts.items()}
    got = {split: len(marks) for split, marks in labels.items()}
    if got != sizes:
        raise invalid(f"labels per part {got}", f"{sizes}", "give one label a row of each part")


def check_observed(observed: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> None:
    """Require a mask for each part, and an observed entry in every row."""
    if observed.keys() != parts.keys():
        raise invalid(
            f"observed for {', '.join(observed)}",
            f"a mask for each of {', '.join(parts)}",
            "give an empty one for an empty part",
        )
    for split, part in parts.items():
        check_mask(observed[split], part)
        check_seen(observed[split], split)


def check_seen(observed: Tensor, name: str) -> None:
    """Require an observed entry in every row of a mask ``(N, *event)``."""
    empty = (~observed).flatten(1).all(1) if len(observed) else observed.flatten(1).any(1)
    count = int(empty.sum())
    first = int(empty.nonzero()[0]) if count else 0
    if count > 0:
        raise invalid(
            f"{count} rows of {name} without an observed entry, the first at row {first}",
            "at least one observed entry in each row",
            "remove these rows (of a pandas frame: .dropna(how='all'))",
        )


def check_dropout(rate: float, labels: Mapping[str, Tensor] | None) -> None:
    if labels is None or not 0 <= rate <= 1:
        raise invalid(
            f"context_dropout={rate} with{'out' if labels is None else ''} labels",
            "a rate in [0, 1], and labels to give as the context",
            "use genmod.data.conditional",
        )


_SPREAD = (0.1, 10.0)
"""Standard deviations outside of it are warned of: networks and step sizes are made for values near one."""
_LOOKED_AT = 10_000
"""Rows of which the spread is measured."""


def warn_of_spread(
    x: Tensor, name: str, advice: str = "pass standardize=True, or rescale it"
) -> None:
    """Warn of a column of a table of real numbers ``(N, D)`` whose spread is far from one.

    Args:
        x: rows; only vectors of real numbers are looked at.
        name: what the message calls them.
        advice: what to do.
    """
    if x.ndim != 2 or not x.is_floating_point() or len(x) < 2:
        return
    std = x[:: max(1, len(x) // _LOOKED_AT)].double().std(0, correction=0)
    wrong = ((std < _SPREAD[0]) | (std > _SPREAD[1])).nonzero()[:, 0]
    if not len(wrong):
        return
    first = int(wrong[std[wrong].log().abs().argmax()])
    warnings.warn(
        f"got {len(wrong)} of {x.shape[1]} columns of {name} with a standard deviation far from one, such "
        f"as {float(std[first]):.3g} in column {first}; expected {_SPREAD[0]} to {_SPREAD[1]:.0f}, or "
        f"training is slow and may diverge; {advice}",
        stacklevel=4,
    )


def warn_of_duplicates(data: Dataset) -> None:
    """Warn of rows of the validation and test parts that the training part holds too.

    A score on them measures memory. Tables of whole numbers that have few distinct rows repeat
    themselves by chance: they are not warned of.
    """
    train = set(_digests(data.train))
    if data.spec.is_discrete and len(data.shape) == 1 and 2 * len(train) < len(data.train):
        return
    others = _digests(data.validation) + _digests(data.test)
    count = sum(row in train for row in others)
    if count:
        warnings.warn(
            f"got {count} of the {len(others)} validation and test rows of {data.name} in the training "
            "part; expected rows that a model has not seen; remove duplicates, or keep them in one part: "
            "groups=...",
            stacklevel=4,
        )


def _digests(x: Tensor) -> list[int]:
    """A hash of each row's bytes."""
    rows = x.detach().cpu().flatten(1).contiguous().numpy()
    return [hash(row.tobytes()) for row in rows]
