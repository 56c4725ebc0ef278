"""Columns of a table: the name and kind of each, checks of its values, and features for networks.

A table is a batch ``(B, D)`` of floating point numbers, one for each column, in the data's own units.
Categories and ordinals are codes ``0 .. n - 1``. Missing entries are 0 and not observed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from genmod.checks import can_read, check_real, choice, invalid
from genmod.signatures import check_fields
from genmod.tensors import Shape

__all__ = ["Column", "ColumnKind"]

Value: TypeAlias = str | int | float | bool
"""A value that a code stands for."""


def shorten(text: str, most: int) -> str:
    """A name, of a column or of a data set, in at most so many characters.

    >>> shorten("price of the house", 8), shorten("price", 8)
    ('price o…', 'price')
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


class ColumnKind(StrEnum):
    """The kind of values in a column. It decides their likelihood."""

    REAL = "real"
    """A measurement on a scale: it has a density."""
    INTEGER = "integer"
    """A whole number of either sign, such as a year: it has a mass."""
    COUNT = "count"
    """How many: 0, 1, 2, ..."""
    CATEGORY = "category"
    """One of ``n`` values without an order, held as a code ``0 .. n - 1``."""
    ORDINAL = "ordinal"
    """One of ``n`` values in order, held as a code ``0 .. n - 1``."""


CODED = (ColumnKind.CATEGORY, ColumnKind.ORDINAL)
"""Kinds whose entries are codes."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: what messages and reports call it.
        kind: a :class:`ColumnKind` or its name.
        values: of a category or an ordinal: what the codes ``0 .. n - 1`` stand for, in this order.
        mean: of a real column, an integer or a count: its mean over the training rows, in its own units.
        std: of a real column or an integer: its standard deviation over the training rows, in its own
            units. Models standardize real columns by ``mean`` and ``std``: ``(x - mean) / std``.
        low, high: of an integer: the smallest and the largest value it can have; ``None``: any.

    Raises:
        ValueError: an unknown kind; values for a kind that has none; a std that is not positive.

    >>> Column("size", "ordinal", ("small", "medium", "large")).count
    3
    """

    name: str
    kind: ColumnKind | str = ColumnKind.REAL
    values: Sequence[Value] | None = None
    mean: float = 0.0
    std: float = 1.0
    low: int | None = None
    high: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "kind", choice(ColumnKind, self.kind, "kind"))
        object.__setattr__(self, "mean", float(self.mean))
        object.__setattr__(self, "std", float(self.std))
        if self.values is not None:
            plain = [v.item() if isinstance(v, np.generic) else v for v in self.values]
            object.__setattr__(self, "values", tuple(plain))
        label = f"column {self.name!r} ({self.kind})"
        coded = self.kind in CODED
        if coded != bool(self.values):
            raise invalid(
                f"{label} with values={self.values}",
                "the values of a category or an ordinal, and of no other kind",
                "list what the codes 0, 1, 2, ... stand for",
            )
        got = f"{label} with mean={self.mean:g} and std={self.std:g}"
        finite = math.isfinite(self.mean) and 0 < self.std < math.inf
        if not finite:
            raise invalid(
                got, "a finite mean and a positive std", "leave out a column without spread"
            )
        bounded = self.low is not None or self.high is not None
        ordered = self.low is None or self.high is None or self.low < self.high
        if not (ordered and (not bounded or self.kind is ColumnKind.INTEGER)):
            raise invalid(
                f"{label} with low={self.low} and high={self.high}",
                "low < high, and bounds of an integer alone",
                "leave them out",
            )

    @property
    def count(self) -> int:
        """How many codes it has; 0 for a column without codes."""
        return len(self.values or ())

    @property
    def is_real(self) -> bool:
        """Whether it has a density, and not a mass."""
        return self.kind is ColumnKind.REAL

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value it can have."""
        if self.kind in CODED:
            return 0, self.count - 1
        if self.kind is ColumnKind.COUNT:
            return 0, math.inf
        low = -math.inf if self.low is None else self.low
        return low, math.inf if self.high is None else self.high

    def __str__(self) -> str:
        shown = f" of {self.count}" if self.kind in CODED else ""
        return f"{self.name}: {self.kind}{shown}"


def as_columns(columns: Sequence[Column], shape: Shape, bins: int | None) -> tuple[Column, ...]:
    """The columns of a table as a tuple, one for each entry of an event."""
    found = tuple(columns)
    if not all(isinstance(column, Column) for column in found) or shape != (len(found),):
        raise invalid(
            f"{len(found)} columns for events of shape {shape}",
            "one Column for each entry of a vector",
            "pass the number of columns as the shape",
        )
    if bins is not None:
        raise invalid(f"bins={bins} beside columns", "one of them", "leave bins out")
    twice = [name for name, count in Counter(c.name for c in found).items() if count > 1]
    if twice:
        got, advice = f"two columns named {twice[:1]}", "rename one of them"
        raise invalid(got, "a name for each column", advice)
    return found


def check_columns(
    x: Tensor, columns: Sequence[Column], observed: Tensor | None = None, name: str = "x"
) -> None:
    """Require a batch ``(B, D)`` whose values belong to their columns.

    Raises:
        ValueError: integers in place of floating point; values that are not finite; fractions, negative
            counts or unknown codes where a column has none. The message names the column.
    """
    if not x.is_floating_point():
        raise invalid(
            f"{name} of type {x.dtype}",
            "floating point numbers, because the data are described by columns",
            f"pass {name}.float(); categories are codes 0, 1, 2, ...",
        )
    check_real(x, observed, name)
    if not can_read(x):
        return
    counted = torch.ones_like(x, dtype=torch.bool) if observed is None else observed
    whole = torch.tensor([not column.is_real for column in columns], device=x.device)
    broken = (x != x.round()) & whole & counted
    _refuse(broken, x, columns, name, "whole numbers")
    low, high = x.new_tensor([column.limits for column in columns]).unbind(-1)
    _refuse(((x < low) | (x > high)) & counted, x, columns, name, "values of the column")


def _refuse(broken: Tensor, x: Tensor, columns: Sequence[Column], name: str, expected: str) -> None:
    """Raise, naming the first column that has a broken value."""
    if not bool(broken.any()):
        return
    place = int(broken.any(0).nonzero()[0])
    column, wrong = columns[place], broken[:, place]
    low, high = column.limits
    span = f" from {low:g} to {high:g}" if math.isfinite(low) or math.isfinite(high) else ""
    raise invalid(
        f"{int(wrong.sum())} values of {name} in column {column.name!r} ({column.kind}) such as "
        f"{float(x[wrong, place][0]):g}",
        f"{expected}{span}",
        "correct them, pass observed=... to leave entries out, or describe the column by another "
        "kind",
    )


def count_features(columns: Sequence[Column]) -> int:
    """How many features :func:`features` gives a row."""
    return sum(column.count if column.kind is ColumnKind.CATEGORY else 1 for column in columns)


def features(x: Tensor, columns: Sequence[Column], observed: Tensor | None = None) -> Tensor:
    """What networks get of a table, ``(B, D)`` to ``(B, F)``: numbers of spread near one.

    Integers are standardized, counts become ``log1p(x) - log1p(mean)``, ordinals lie on [-1, 1], and each
    category is one-hot. Real columns stay as they are: a model has standardized them. All features of
    an entry that was not observed are 0.

    Args:
        x: a table whose real columns are standardized.
        columns: of the table.
        observed: which entries were observed, ``(B, D)``.

    >>> table = [Column("age"), Column("color", "category", ("red", "green", "blue"))]
    >>> features(torch.tensor([[0.5, 2.0]]), table).tolist()
    [[0.5, 0.0, 0.0, 1.0]]
    """
    scalar = [place for place, c in enumerate(columns) if c.kind is not ColumnKind.CATEGORY]
    found = []
    if scalar:
        found.append(_scalars(x[:, scalar], [columns[place] for place in scalar]))
        if observed is not None:
            found[0] = torch.where(observed[:, scalar], found[0], 0.0)
    slots = [
        (place, code)
        for place, column in enumerate(columns)
        if column.kind is ColumnKind.CATEGORY
        for code in range(column.count)
    ]
    if slots:
        places = [place for place, _ in slots]
        hit = x[:, places] == x.new_tensor([code for _, code in slots])
        found.append((hit if observed is None else hit & observed[:, places]).to(x.dtype))
    return torch.cat(found, 1)


def _scalars(x: Tensor, columns: Sequence[Column]) -> Tensor:
    """One feature for each column that is no category: ``(f(x) - shift) / scale``."""
    if all(column.is_real for column in columns):
        return x
    shift, scale = x.new_tensor([_affine(column) for column in columns]).unbind(-1)
    counts = [column.kind is ColumnKind.COUNT for column in columns]
    if any(counts):
        mask = torch.tensor(counts, device=x.device)
        # Clamped, because the entries of other columns may lie below -1, whose log is NaN.
        x = torch.where(mask, x.clamp(min=0).log1p(), x)
    return (x - shift) / scale


def _affine(column: Column) -> tuple[float, float]:
    """The shift and the scale of a column's feature."""
    if column.kind is ColumnKind.INTEGER:
        return column.mean, column.std
    if column.kind is ColumnKind.COUNT:
        return math.log1p(max(column.mean, 0.0)), 1.0
    if column.kind is ColumnKind.ORDINAL:
        half = max(column.count - 1, 1) / 2
        return half, half
    return 0.0, 1.0
