"""A data set: three checked tensors in memory, split by a permutation that everybody can redo.

``N`` rows, each an event of the same shape. Integer data are ``torch.int64`` whatever they came in:
``uint8`` would take an eighth of the memory, but its arithmetic wraps without a word
(``2 * 200 = 144``), and categorical masses and table look-ups want 64-bit indices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as frozen_record
from dataclasses import replace

import torch
from torch import Tensor

from genmod.checks import require
from genmod.data.coins import BernoulliPixels
from genmod.data.values import Array, check_values, numbers
from genmod.types import Shape

SPLITS = ("train", "validation", "test")


@frozen_record(frozen=True, eq=False)
class Dataset:
    """Three parts of one data set, checked when it is built.

    Args:
        name: what reports call it.
        train, validation, test: tensors ``(N, *event)`` of one event shape and type:
            ``torch.int64`` with values in ``0 .. bins - 1`` if ``bins`` is given, else finite
            floating point numbers. A part may be empty, the training part may not.
        bins: how many levels an entry can take; ``None`` for continuous data. It decides what a
            likelihood is: a mass for integers, a density otherwise.
        labels: one label a row for each part, keyed by ``"train"``, ``"validation"``, ``"test"``.
        redraw: the coins that ``train`` is one flip of, if training flips them anew at every visit
            (see :func:`~genmod.data.binarized`).
        floors: nats of each test row that no model can save, ``H(b | x)``, where the data are drawn
            from something known; ``None`` for all other data.
        context_dropout: the share of training rows whose label is kept from a model, if models are
            told labels at all (see :func:`~genmod.data.conditional`).

    Raises:
        ValueError: where the parts disagree, or values do not belong.

    >>> data = Dataset("coins", *torch.tensor([0, 1, 1, 0]).reshape(4, 1).split([2, 1, 1]), bins=2)
    >>> data
    Dataset(coins: 2 train + 1 validation + 1 test, event shape (1,), integers 0..1)
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    bins: int | None = None
    labels: Mapping[str, Tensor] | None = None
    redraw: BernoulliPixels | None = None
    floors: Tensor | None = None
    context_dropout: float | None = None

    def __post_init__(self) -> None:
        for split, part in self.parts().items():
            _check_part(split, part, self.train, self.bins)
            check_values(part, self.bins, split)
        require(
            len(self.train) >= 1,
            "an empty training part",
            "at least one row to learn from",
            "lower the fractions of validation and test",
        )
        if self.labels is not None:
            _check_labels(self.labels, self.parts())
        if self.redraw is not None:
            _check_redraw(self.redraw, self.train, self.bins)
        if self.context_dropout is not None:
            _check_dropout(self.context_dropout, self.labels)
        if self.floors is not None:
            _check_floors(self.floors, self.test)

    @property
    def shape(self) -> Shape:
        """The shape of one event: what ``model(shape=...)`` wants."""
        return tuple(self.train.shape[1:])

    def parts(self) -> dict[str, Tensor]:
        """The three tensors by name, training first."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def irreducible(self) -> float | None:
        """Nats a test row that no model can save, ``E_x H(b | x)``, where that is known."""
        if self.floors is None or not len(self.floors):
            return None
        return float(self.floors.mean())

    def cut(self, split: str, rows: int) -> Dataset:
        """The same with the first rows of a part, and all that goes with them: labels, coins, floors.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.
            rows: how many to keep; all of them where there are no more.

        Raises:
            ValueError: a part that there is not, or fewer than no rows.

        >>> from genmod.data import digits
        >>> digits().cut("test", 10)
        Dataset(digits: 1294 train + 144 validation + 10 test, event shape (1, 8, 8), integers 0..16)
        """
        require(split in SPLITS, f"split={split!r}", f"one of {SPLITS}", "spell it as there")
        require(rows >= 0, f"rows={rows}", "at least 0", "0 goes without the part")
        parts = {**self.parts(), split: self.parts()[split][:rows]}
        labels, redraw, floors = self.labels, self.redraw, self.floors
        if labels is not None:
            labels = {**labels, split: labels[split][:rows]}
        if redraw is not None and split == "train":
            redraw = BernoulliPixels(redraw.gray[:rows], redraw.bins)
        if floors is not None and split == "test":
            floors = floors[:rows]
        train, validation, test = parts.values()
        return replace(
            self,
            train=train,
            validation=validation,
            test=test,
            labels=labels,
            redraw=redraw,
            floors=floors,
        )

    def context(self, split: str) -> Tensor | None:
        """What models are told beside the rows of a part: their labels, or nothing."""
        return None if self.context_dropout is None or self.labels is None else self.labels[split]

    def __repr__(self) -> str:
        sizes = " + ".join(f"{len(part)} {split}" for split, part in self.parts().items())
        kind = "real numbers" if self.bins is None else f"integers 0..{self.bins - 1}"
        floor = "" if self.irreducible is None else f", {self.irreducible:.2f} nats irreducible"
        return f"Dataset({self.name}: {sizes}, event shape {self.shape}, {kind}{floor})"


def dataset(
    x: Tensor | Array,
    *,
    name: str = "data",
    bins: int | None = None,
    labels: Tensor | Array | None = None,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Check any tensor or NumPy array of rows and split it into train, validation and test.

    The permutation depends on ``seed`` and the number of rows alone, so that two data sets of one
    length are split alike. The first ``round(test N)`` rows of it are the test part, the next
    ``round(validation (N - test rows))`` the validation part, the rest is for training.

    Args:
        x: rows ``(N, *event)``. Floating point tensors keep their type; arrays, for which
            float64 is a default more than a choice, take torch's default type.
        name: what reports call it.
        bins: the number of levels, for integer data (17 for digits, 256 for 8-bit images). Whole
            numbers stored as floating point are converted exactly; others are refused.
        labels: one label a row, ``(N,)``.
        validation: fraction of the rows left by the test part, in [0, 1).
        test: fraction of all rows, in [0, 1).
        seed: of the permutation.

    Returns:
        The three parts, on the device of ``x``.

    Raises:
        ValueError: data that are not numbers, not finite, not rows of events; integers without
            ``bins``; values outside ``0 .. bins - 1``; too few rows for the split.

    >>> dataset(torch.randn(100, 2), name="plane")
    Dataset(plane: 72 train + 8 validation + 20 test, event shape (2,), real numbers)
    """
    rows = numbers(x, "x")
    require(
        rows.ndim >= 2 and rows[:1].numel() > 0,
        f"x of shape {tuple(rows.shape)}",
        "rows of events, (N, *event), with at least one row and one number a row",
        "give scalars an axis of their own (x[:, None]), and a single row a batch axis (x[None])",
    )
    check_values(rows, bins, "x")
    rows = rows if bins is None else rows.to(torch.int64)
    indices = split_rows(len(rows), validation, test, seed)
    marks = _split_labels(labels, len(rows), indices)
    train, held_out, tested = (rows[index.to(rows.device)] for index in indices)
    return Dataset(name, train, held_out, tested, bins, marks)


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


def _split_labels(
    labels: Tensor | Array | None, count: int, indices: list[Tensor]
) -> dict[str, Tensor] | None:
    if labels is None:
        return None
    marks = numbers(labels, "labels")
    require(
        marks.shape[:1] == (count,),
        f"labels of shape {tuple(marks.shape)}",
        f"one label for each of the {count} rows of x",
        "pass them in the order of the rows",
    )
    parts = (marks[index.to(marks.device)] for index in indices)
    return dict(zip(SPLITS, parts, strict=True))


def _check_part(split: str, part: Tensor, train: Tensor, bins: int | None) -> None:
    require(
        part.ndim >= 2 and part.shape[1:] == train.shape[1:] and part.dtype == train.dtype,
        f"a {split} part of shape {tuple(part.shape)} and type {part.dtype}",
        f"rows (N, *event) like the training part: {tuple(train.shape)}, {train.dtype}",
        "cut all parts from one tensor, or use genmod.data.dataset",
    )
    require(
        bins is None or part.dtype is torch.int64,
        f"a {split} part of type {part.dtype} with bins={bins}",
        "torch.int64, whose arithmetic does not wrap",
        "convert it with .long(), or use genmod.data.dataset",
    )


def _check_labels(labels: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> None:
    sizes = {split: len(part) for split, part in parts.items()}
    got = {split: len(marks) for split, marks in labels.items()}
    require(got == sizes, f"labels per part {got}", f"{sizes}", "give one label a row of each part")


def _check_redraw(redraw: BernoulliPixels, train: Tensor, bins: int | None) -> None:
    require(
        bins == 2 and redraw.gray.shape == train.shape,
        f"coins of shape {tuple(redraw.gray.shape)} for a training part of shape "
        f"{tuple(train.shape)} with bins={bins}",
        "bits (bins=2), and a coin for each of them",
        "use genmod.data.binarized",
    )


def _check_floors(floors: Tensor, test: Tensor) -> None:
    require(
        floors.shape == (len(test),),
        f"floors of shape {tuple(floors.shape)} for a test part of {len(test)} rows",
        "one for each of them",
        "cut both with data.cut('test', rows), or cut the gray images before genmod.data.binarized",
    )
    wrong = int((~(floors.isfinite() & (floors >= 0))).sum())
    require(
        wrong == 0,
        f"{wrong} floors that are negative or not finite",
        "a cost in nats for each row, at least 0",
        "use genmod.data.binarized",
    )


def _check_dropout(rate: float, labels: Mapping[str, Tensor] | None) -> None:
    require(
        labels is not None and 0 <= rate <= 1,
        f"context_dropout={rate} with{'out' if labels is None else ''} labels",
        "a rate in [0, 1], and labels to tell",
        "use genmod.data.conditional",
    )
