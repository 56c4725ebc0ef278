"""Rows of numbers in memory as a data set: the layout of an event, and the split into three parts.

A split is random, by groups, or in time, and always reproducible.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import SupportsIndex

import torch
from torch import Tensor

from genmod.arrays import check_times, ranks
from genmod.checks import choice, invalid
from genmod.columns import Column
from genmod.data.datasets import SPLITS, Dataset
from genmod.data.values import BYTE, as_labels, checked_rows
from genmod.tensors import Shape


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
    """Check rows of numbers and divide them into train, validation and test.

    Args:
        x: rows ``(N, *event)``: a tensor, an array or a list. Floating point tensors keep their type;
            arrays and lists of reals take torch's default type.
        name: what reports call it.
        bins: how many values integers have. Whole numbers stored as floating point are converted
            exactly; others are refused.
        labels: one label a row, ``(N,)``.
        observed: which entries are not missing, like ``x``; the others may hold anything and become 0.
        validation: see :class:`Split`, also for the next four.
        test: fraction of all rows.
        seed: of the permutation.
        groups: one value a row.
        time: one value a row.
        layout: what the axes of one event mean, a :class:`Layout` or its name.

    Returns:
        The three parts, on the device of ``x``.

    Raises:
        ValueError: data that are not numbers, not finite, not rows of events; integers without
            ``bins``; values outside ``0 .. bins - 1``; a layout in doubt; too few rows for the split.
    """
    rows, mask = checked_rows(x, bins, observed)
    if rows.ndim < 2 or rows[:1].numel() == 0:
        raise invalid(
            f"x of shape {tuple(rows.shape)}",
            "rows of events, (N, *event), with at least one row and one number a row",
            "give scalars an axis of their own (x[:, None]), and a single row a batch axis "
            "(x[None])",
        )
    layout = choice(Layout, layout, "layout")
    shaped = _channels_first(rows, bins, layout)
    split = Split(validation, test, operator.index(seed), groups, time)
    marks = None if labels is None else as_labels(labels)
    if marks is not None and marks.shape[:1] != (len(rows),):
        raise invalid(
            f"labels of shape {tuple(marks.shape)}",
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
    axes = {Layout.GRAY: "(height, width)", Layout.CHANNELS_LAST: "(height, width, channels)"}
    expected = axes.get(layout, "")
    if expected and len(shape) != expected.count(",") + 1:
        got = f"layout={str(layout)!r} for events of shape {shape}"
        raise invalid(got, expected, "leave layout out")
    if layout is Layout.GRAY:
        return rows[:, None]
    return rows.permute(0, 3, 1, 2).contiguous() if layout is Layout.CHANNELS_LAST else rows


def _guess(shape: Shape, bins: int | None) -> Layout:
    """The layout that a shape can only mean; refuses shapes that can mean two things."""
    if len(shape) not in (2, 3) or min(shape[:2]) < _SIDE:
        return Layout.AS_GIVEN
    if len(shape) == 2 and (shape[0] == shape[1] or bins == BYTE):
        layout, meaning = Layout.GRAY, "a gray image or a sequence"
    elif len(shape) == 3 and shape[2] in _CHANNELS and shape[0] not in _CHANNELS:
        layout, meaning = Layout.CHANNELS_LAST, "an image with its channels last, or a volume"
    else:
        return Layout.AS_GIVEN
    if bins is None:
        raise invalid(
            f"real data with events of shape {shape}: {meaning}",
            "images as (channels, height, width), or a layout",
            f"pass layout={str(layout)!r} for images, or layout='as-given'",
        )
    return layout


@dataclass(frozen=True, eq=False)
class Split:
    """How rows are divided into train, validation and test.

    A random split depends on ``seed`` and the number of rows ``N`` alone. Of the permutation, the first
    ``round(test N)`` rows are the test part and the next ``round(validation (N - test rows))`` the
    validation part.

    Args:
        validation: fraction of the rows left by the test part, in [0, 1).
        test: fraction of all rows, in [0, 1).
        seed: of the permutation of rows, or of groups.
        groups: one value a row (a patient, a writer); rows of equal value stay in one part.
        time: one value a row that can be put in order; the latest rows are the test part, those before
            them the validation part, and rows of one time stay in one part.

    Raises:
        ValueError: a fraction out of range, groups and time together.
    """

    validation: float = 0.1
    test: float = 0.2
    seed: int = 0
    groups: object = None
    time: object = None

    def __post_init__(self) -> None:
        for fraction, split in ((self.validation, "validation"), (self.test, "test")):
            if not 0 <= fraction < 1:
                raise invalid(
                    f"{split}={fraction}",
                    "a fraction in [0, 1)",
                    "give the share of rows, not their number",
                )
        if self.groups is not None and self.time is not None:
            raise invalid("groups and time", "one of the two", "leave one out")

    def indices(self, count: int) -> list[Tensor]:
        """The row numbers of train, validation and test.

        Raises:
            ValueError: too few rows, groups or times for the parts asked for.
        """
        if self.groups is not None:
            return self._by_group(ranks(self.groups, count, "groups"))
        if self.time is not None:
            order = ranks(self.time, count, "time")
            check_times(self.time)
            return self._in_time(order)
        tested, validated = self._sizes(count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
        return [order[tested + validated :], order[tested : tested + validated], order[:tested]]

    def record(self) -> dict[str, object]:
        """The split as plain data."""
        kind = "random" if self.groups is None else "groups"
        kind = kind if self.time is None else "time"
        found = {"kind": kind, "validation": self.validation, "test": self.test}
        return found if self.time is not None else {**found, "seed": self.seed}

    def _sizes(self, count: int) -> tuple[int, int]:
        """How many rows to test and to validate on."""
        tested = round(self.test * count)
        validated = round(self.validation * (count - tested))
        self._check([count - tested - validated, validated, tested], f"{count} rows", 2)
        return tested, validated

    def _check(self, sizes: Sequence[int], what: str, least: int) -> None:
        trained, validated, tested = sizes
        if not (
            trained >= least
            and (tested >= 1 or self.test == 0)
            and (validated >= 1 or self.validation == 0)
        ):
            raise invalid(
                f"{what}, which validation={self.validation} and test={self.test} split into "
                f"{trained} train, {validated} validation and {tested} test",
                f"at least {least} to train on and 1 in every other part asked for",
                "bring more rows, or set a fraction to 0 to go without that part",
            )

    def _by_group(self, group: Tensor) -> list[Tensor]:
        """Whole groups, in random order, until a part has about its share of rows."""
        sizes = torch.bincount(group)
        order = torch.randperm(len(sizes), generator=torch.Generator().manual_seed(self.seed))
        upto = torch.cat([torch.zeros(1, dtype=torch.long), sizes[order].cumsum(0)])
        tested = _nearest(upto, self.test * len(group))
        left = upto[tested:] - upto[tested]
        validated = tested + _nearest(left, self.validation * int(left[-1]))
        cuts = [len(order) - validated, validated - tested, tested]
        self._check(cuts, f"{len(order)} groups", 1)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        rows = place[group]
        marks = (rows >= validated, (rows >= tested) & (rows < validated), rows < tested)
        return [mark.nonzero()[:, 0] for mark in marks]

    def _in_time(self, time: Tensor) -> list[Tensor]:
        """Rows in order of time, cut where the time changes."""
        tested, validated = self._sizes(len(time))
        order = time.argsort(stable=True)
        starts = torch.cat([torch.zeros(1, dtype=torch.bool), time[order].diff() > 0])
        cuts = [0, *starts.nonzero()[:, 0].tolist(), len(time)]
        ends = torch.tensor(cuts)
        second = int(ends[_nearest(ends, len(time) - tested)])
        first = int(ends[_nearest(ends, second - validated)])
        parts = [order[:first], order[first:second], order[second:]]
        self._check([len(part) for part in parts], f"{len(cuts) - 1} times", 1)
        return parts


def _nearest(ends: Tensor, wanted: float) -> int:
    """Which of some ascending numbers is nearest; 0 is kept for nothing wanted."""
    found = int((ends - wanted).abs().argmin())
    return found if found or not wanted else min(1, len(ends) - 1)


def cut(x: Tensor, indices: Sequence[Tensor]) -> dict[str, Tensor]:
    """The rows of each part."""
    return {s: x[i.to(x.device)] for s, i in zip(SPLITS, indices, strict=True)}


def divide(
    name: str,
    x: Tensor,
    indices: Sequence[Tensor],
    split: Mapping[str, object],
    *,
    bins: int | None = None,
    labels: Tensor | None = None,
    classes: tuple[str, ...] | None = None,
    columns: Sequence[Column] | None = None,
    observed: Tensor | None = None,
) -> Dataset:
    """A data set of rows, and of what goes with them, from the row numbers of each part."""
    train, validation, test = cut(x, indices).values()
    return Dataset(
        name,
        train,
        validation,
        test,
        bins,
        None if labels is None else cut(labels, indices),
        classes=classes,
        columns=columns,
        observed=None if observed is None else cut(observed, indices),
        split=split,
        rows=dict(zip(SPLITS, indices, strict=True)),
    )
