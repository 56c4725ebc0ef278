"""Dividing rows into train, validation and test: at random, by groups, or in time; always reproducible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genmod.checks import require
from genmod.columns import Column
from genmod.data.datasets import SPLITS, Dataset


@dataclass(frozen=True, eq=False)
class Split:
    """How rows are divided into train, validation and test.

    Args:
        validation: fraction of the rows left by the test part, in [0, 1).
        test: fraction of all rows, in [0, 1).
        seed: of the permutation of rows, or of groups.
        groups: one value a row; rows of equal value stay in one part.
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
            require(
                0 <= fraction < 1,
                f"{split}={fraction}",
                "a fraction in [0, 1)",
                "give the share of rows, not their number",
            )
        require(
            self.groups is None or self.time is None,
            "groups and time",
            "one of the two",
            "leave one out",
        )

    def indices(self, count: int) -> list[Tensor]:
        """The row numbers of train, validation and test.

        Raises:
            ValueError: too few rows, groups or times for the parts asked for.
        """
        if self.groups is not None:
            return self._by_group(ranks(self.groups, count, "groups"))
        if self.time is not None:
            return self._in_time(ranks(self.time, count, "time"))
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
        require(
            trained >= least
            and (tested >= 1 or self.test == 0)
            and (validated >= 1 or self.validation == 0),
            f"{what}, which validation={self.validation} and test={self.test} split into {trained} "
            f"train, {validated} validation and {tested} test",
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


def ranks(values: object, count: int, name: str) -> Tensor:
    """Values of any kind that can be put in order, as whole numbers in that order, ``(count,)``.

    >>> ranks(["b", "a", "b"], 3, "groups")
    tensor([1, 0, 1])
    """
    found = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    require(
        found.shape == (count,),
        f"{name} of shape {found.shape}",
        f"one value for each of the {count} rows",
        "pass them in the order of the rows",
    )
    holes = int((found != found).sum()) if found.dtype.kind in "fmM" else 0
    require(holes == 0, f"{name} with {holes} missing values", "a value a row", "fill them")
    try:
        inverse = np.unique(found, return_inverse=True)[1]
    except TypeError:
        raise ValueError(
            f"got {name} of several types; expected numbers, text or dates alone; convert them"
        ) from None
    return torch.from_numpy(inverse.reshape(-1).astype(np.int64))


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
