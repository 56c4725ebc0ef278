"""Rows of numbers in memory as a data set: which axis holds the channels, and what looks wrong in them."""

from __future__ import annotations

import operator
import warnings
from enum import StrEnum
from typing import SupportsIndex

from torch import Tensor

from genmod.checks import choice, require
from genmod.data.datasets import Dataset
from genmod.data.splits import Split, divide
from genmod.data.values import BYTE, as_labels, checked_rows
from genmod.shapes import Shape


class Layout(StrEnum):
    """What the axes of one event mean."""

    AUTO = "auto"
    """Taken from the shape and the kind of the values where they leave no doubt."""
    AS_GIVEN = "as-given"
    """Vectors ``(d,)``, sequences ``(length, features)``, images ``(channels, height, width)``, volumes."""
    GRAY = "gray"
    """Images ``(height, width)``; they get a channel axis."""
    CHANNELS_LAST = "channels-last"
    """Images ``(height, width, channels)``; the channels are moved first."""


def dataset(
    x: object,
    *,
    name: str = "data",
    bins: int | None = None,
    labels: object = None,
    observed: object = None,
    validation: float = 0.1,
    test: float = 0.2,
    seed: SupportsIndex = 0,
    groups: object = None,
    time: object = None,
    layout: Layout | str = Layout.AUTO,
) -> Dataset:
    """Check rows of numbers and split them into train, validation and test.

    The permutation depends on ``seed`` and the number of rows alone, so that two data sets of one
    length are split alike. Its first ``round(test N)`` rows are the test part, the next
    ``round(validation (N - test rows))`` the validation part, the rest is for training.

    Args:
        x: rows ``(N, *event)``: a tensor, an array or a list. Floating point tensors keep their type;
            arrays and lists of reals take torch's default type.
        name: what reports call it.
        bins: the number of values, for integer data (17 for digits, 256 for 8-bit images). Whole
            numbers stored as floating point are converted exactly; others are refused.
        labels: one label a row, ``(N,)``.
        observed: which entries are not missing, like ``x``; the others may hold anything and become 0.
        validation: fraction of the rows left by the test part, in [0, 1).
        test: fraction of all rows, in [0, 1).
        seed: of the permutation.
        groups: one value a row (a patient, a writer): rows of equal value stay in one part.
        time: one value a row: the latest rows are the test part, those before them the validation part.
        layout: what the axes of one event mean, a :class:`Layout` or its name. By default images of
            integers may be ``(height, width)`` or ``(height, width, channels)``: the channels are moved
            first. Real data of such shapes are refused unless the layout is given.

    Returns:
        The three parts, on the device of ``x``.

    Raises:
        ValueError: data that are not numbers, not finite, not rows of events; integers without
            ``bins``; values outside ``0 .. bins - 1``; a layout in doubt; too few rows for the split.

    >>> import torch
    >>> dataset(torch.randn(100, 2), name="plane").summary()
    'plane (72 train + 8 validation + 20 test rows of (2,), real numbers)'
    """
    rows, mask = checked_rows(x, bins, observed)
    require(
        rows.ndim >= 2 and rows[:1].numel() > 0,
        f"x of shape {tuple(rows.shape)}",
        "rows of events, (N, *event), with at least one row and one number a row",
        "give scalars an axis of their own (x[:, None]), and a single row a batch axis (x[None])",
    )
    layout = choice(Layout, layout, "layout")
    shaped = _channels_first(rows, bins, layout)
    split = Split(validation, test, operator.index(seed), groups, time)
    marks = None if labels is None else as_labels(labels)
    require(
        marks is None or marks.shape[:1] == (len(rows),),
        f"labels of shape {None if marks is None else tuple(marks.shape)}",
        f"one label for each of the {len(rows)} rows of x",
        "pass them in the order of the rows",
    )
    mask = None if mask is None else _channels_first(mask, 2, layout)
    indices = split.indices(len(rows))
    return divide(name, shaped, indices, split.record(), bins=bins, labels=marks, observed=mask)


_CHANNELS = (1, 3, 4)
"""Gray, red-green-blue, and the latter with opacity."""
_SIDE = 8
"""From how many entries a side on a matrix of integers is taken for an image."""


def _channels_first(rows: Tensor, bins: int | None, layout: Layout) -> Tensor:
    """Images with their channels first; other events as they are."""
    shape = tuple(rows.shape[1:])
    if layout is Layout.AUTO:
        layout = _guess(shape, bins)
    match layout:
        case Layout.GRAY:
            require(
                len(shape) == 2,
                f"layout='gray' for events of shape {shape}",
                "(height, width)",
                "leave layout out",
            )
            return rows[:, None]
        case Layout.CHANNELS_LAST:
            require(
                len(shape) == 3,
                f"layout='channels-last' for events of shape {shape}",
                "(height, width, channels)",
                "leave layout out",
            )
            return rows.permute(0, 3, 1, 2).contiguous()
        case _:
            return rows


def _guess(shape: Shape, bins: int | None) -> Layout:
    """The layout that a shape can only mean; refuses shapes that can mean two things."""
    wide = len(shape) in (2, 3) and min(shape[:2]) >= _SIDE
    if wide and len(shape) == 2 and (shape[0] == shape[1] or bins == BYTE):
        _refuse_reals(shape, bins, "a gray image or a sequence", Layout.GRAY)
        return Layout.GRAY
    if wide and len(shape) == 3 and shape[2] in _CHANNELS and shape[0] not in _CHANNELS:
        _refuse_reals(
            shape, bins, "an image with its channels last, or a volume", Layout.CHANNELS_LAST
        )
        return Layout.CHANNELS_LAST
    return Layout.AS_GIVEN


def _refuse_reals(shape: Shape, bins: int | None, meaning: str, layout: Layout) -> None:
    require(
        bins is not None,
        f"real data with events of shape {shape}: {meaning}",
        "images as (channels, height, width), or a layout",
        f"pass layout={str(layout)!r} for images, or layout='as-given'",
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
