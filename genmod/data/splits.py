"""From rows to a data set: which axis holds the channels, and a reproducible split."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import SupportsIndex

import torch
from torch import Tensor

from genmod.checks import choice, require
from genmod.data.datasets import SPLITS, Dataset
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
    validation: float = 0.1,
    test: float = 0.2,
    seed: SupportsIndex = 0,
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
        validation: fraction of the rows left by the test part, in [0, 1).
        test: fraction of all rows, in [0, 1).
        seed: of the permutation.
        layout: what the axes of one event mean, a :class:`Layout` or its name. By default images of
            integers may be ``(height, width)`` or ``(height, width, channels)``: the channels are moved
            first. Real data of such shapes are refused unless the layout is given.

    Returns:
        The three parts, on the device of ``x``.

    Raises:
        ValueError: data that are not numbers, not finite, not rows of events; integers without
            ``bins``; values outside ``0 .. bins - 1``; a layout in doubt; too few rows for the split.

    >>> dataset(torch.randn(100, 2), name="plane").summary()
    'plane (72 train + 8 validation + 20 test rows of (2,), real numbers)'
    """
    rows = checked_rows(x, bins)
    require(
        rows.ndim >= 2 and rows[:1].numel() > 0,
        f"x of shape {tuple(rows.shape)}",
        "rows of events, (N, *event), with at least one row and one number a row",
        "give scalars an axis of their own (x[:, None]), and a single row a batch axis (x[None])",
    )
    rows = _channels_first(rows, bins, choice(Layout, layout, "layout"))
    indices = split_rows(len(rows), validation, test, operator.index(seed))
    parts = _split_labels(labels, len(rows), indices)
    train, held_out, tested = (rows[index.to(rows.device)] for index in indices)
    return Dataset(name, train, held_out, tested, bins, parts)


def split_rows(count: int, validation: float, test: float, seed: int) -> list[Tensor]:
    """Row indices of train, validation and test: see :func:`dataset`."""
    for fraction, split in ((validation, "validation"), (test, "test")):
        require(
            0 <= fraction < 1,
            f"{split}={fraction}",
            "a fraction in [0, 1)",
            "give the share of rows, not their number",
        )
    tested = round(test * count)
    validated = round(validation * (count - tested))
    trained = count - tested - validated
    require(
        trained >= 2 and (tested >= 1 or test == 0) and (validated >= 1 or validation == 0),
        f"{count} rows, which validation={validation} and test={test} split into {trained} train, "
        f"{validated} validation and {tested} test",
        "at least 2 rows to train on and 1 in every other part asked for",
        "bring more rows, or set a fraction to 0 to go without that part",
    )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return [order[tested + validated :], order[tested : tested + validated], order[:tested]]


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


def _split_labels(labels: object, count: int, indices: list[Tensor]) -> dict[str, Tensor] | None:
    if labels is None:
        return None
    found = as_labels(labels)
    require(
        found.shape[:1] == (count,),
        f"labels of shape {tuple(found.shape)}",
        f"one label for each of the {count} rows of x",
        "pass them in the order of the rows",
    )
    parts = (found[index.to(found.device)] for index in indices)
    return dict(zip(SPLITS, parts, strict=True))
