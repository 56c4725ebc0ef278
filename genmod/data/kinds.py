"""The kinds of a table's columns: guessed by fixed rules, overruled by the user, printed as a table.

| the cells of a column | guess |
|---|---|
| flags (true, false) | category |
| an ordered categorical of a frame | ordinal |
| text: at most 50 values, most of them in more than one row | category |
| other text, dates | refused: leave the column out, or encode it |
| whole numbers of at most 10 values | category |
| whole numbers from 0 on with a long tail: the largest lies 3 std or more above the mean | count |
| other whole numbers that span at most 65,536 values | integer |
| other numbers | real |

A column of one value is refused: its density would have no bound.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from genmod.checks import choice, invalid
from genmod.columns import CODED, Column, ColumnKind, Value, shorten
from genmod.data.cells import (
    DOUBTFUL,
    Content,
    RawColumn,
    listed,
    number_of,
    spells_date,
    spells_number,
)

Kinds: TypeAlias = Mapping[str, "ColumnKind | str | Sequence[Value]"]
"""Kinds by the names of columns; a list of values is an ordinal in that order."""

MOST_TEXTS = 50
"""Text of more different values is not taken for a category, unless the user asks for it."""
FEW = 10
"""Whole numbers of at most so many different values are taken for a category."""
WIDEST = 1 << 16
"""Whole numbers that span more are taken for real numbers."""


def describe(raw: RawColumn, kind: ColumnKind | str | Sequence[Value] | None = None) -> Column:
    """The description of a column: its kind, guessed unless given, and its values or limits.

    Args:
        raw: the column.
        kind: a kind, its name, or the values of an ordinal in order.

    Raises:
        ValueError: text, dates, a column of one value or of none, cells that the kind cannot have.
    """
    found = _distinct(raw)
    if len(found) == 0:
        raise invalid(
            f"column {raw.name!r} without a value",
            "at least two values in a column",
            f"leave it out: drop=[{raw.name!r}]",
        )
    if len(found) <= 1:
        raise invalid(
            f"column {raw.name!r} with one value only, {found[0]!r}",
            "at least two values in a column",
            f"leave it out: drop=[{raw.name!r}]",
        )
    if kind is not None and not isinstance(kind, str):
        return Column(raw.name, ColumnKind.ORDINAL, tuple(kind))
    kind = guess(raw, found) if kind is None else choice(ColumnKind, kind, f"kinds[{raw.name!r}]")
    if kind in CODED:
        return Column(raw.name, kind, _in_order(raw, found, kind))
    if raw.content is not Content.NUMBERS:
        raise invalid(
            f"column {raw.name!r} of {raw.content} as {kind}",
            "numbers",
            f"pass kinds={{{raw.name!r}: 'category'}}, or leave it out: drop=[{raw.name!r}]",
        )
    if kind is ColumnKind.REAL:
        return Column(raw.name, kind)
    _check_whole(raw, found, kind)
    if kind is ColumnKind.COUNT:
        return Column(raw.name, kind)
    return Column(raw.name, kind, low=int(found[0]), high=int(found[-1]))


def guess(raw: RawColumn, found: Sequence[Value]) -> ColumnKind:
    """The kind of a column by the rules of this module.

    Args:
        raw: the column.
        found: its distinct values in ascending order.

    Raises:
        ValueError: text of many values, dates.
    """
    if raw.content is Content.FLAGS:
        return ColumnKind.CATEGORY
    if raw.content is not Content.NUMBERS:
        return _guess_text(raw, found)
    cells = raw.cells[raw.observed]
    if bool((cells != np.round(cells)).any()):
        return ColumnKind.REAL
    if len(found) <= FEW:
        return ColumnKind.CATEGORY
    low, high = float(found[0]), float(found[-1])
    if low == 0 and high >= cells.mean() + 3 * cells.std():
        return ColumnKind.COUNT
    exact = max(abs(low), abs(high)) < _exact()
    return ColumnKind.INTEGER if high - low < WIDEST and exact else ColumnKind.REAL


def table_of(columns: Sequence[Column], observed: Mapping[str, Tensor] | None) -> list[str]:
    """The columns as lines of text of at most 80 characters: name, kind, values, missing cells.

    Args:
        columns: the columns.
        observed: which entries are observed in each part; ``None``: all.
    """
    holes = [0] * len(columns)
    if observed is not None:
        holes = (~torch.cat(list(observed.values()))).sum(0).tolist()
    names = [shorten(column.name, 24) for column in columns[:MOST_TEXTS]]
    width = max(map(len, names), default=0)
    lines = []
    for name, column, missing in zip(names, columns, holes, strict=False):
        note = f"; {missing:,} missing" if missing else ""
        start = f"    {name:<{width}}  {column.kind:<8}  "
        lines.append(start + shorten(_values(column), 80 - len(start) - len(note)) + note)
    if len(columns) > len(names):
        lines.append(f"    and {len(columns) - len(names):,} more columns")
    return lines


def _values(column: Column) -> str:
    """The values of a column in a few words."""
    if column.kind in CODED:
        mark = " < " if column.kind is ColumnKind.ORDINAL else ", "
        return f"{column.count}: " + mark.join(map(str, column.values or ()))
    if column.kind is ColumnKind.INTEGER and column.low is not None:
        return f"{column.low} to {column.high}"
    if column.kind is ColumnKind.REAL and (column.mean, column.std) == (0.0, 1.0):
        return "as given"
    return f"mean {column.mean:.4g}, std {column.std:.4g}"


def _guess_text(raw: RawColumn, found: Sequence[Value]) -> ColumnKind:
    if raw.order is not None:
        return ColumnKind.ORDINAL
    cells = raw.cells[raw.observed]
    seen = dict(zip(*np.unique(cells.astype(str), return_counts=True), strict=True))
    repeated = sum(int(count) > 1 for count in seen.values())
    wrong = _other_than_words(raw, found)
    if wrong is None and len(found) <= MOST_TEXTS and 2 * repeated > len(found):
        _warn_of_markers(raw, seen)
        return ColumnKind.CATEGORY
    what, remedy = wrong or (f"text of {len(found):,} values", "")
    raise invalid(
        f"column {raw.name!r} of {what}",
        f"numbers, or at most {MOST_TEXTS} repeated values",
        f"{remedy}leave it out: drop=[{raw.name!r}], or keep it as a category: "
        f"kinds={{{raw.name!r}: 'category'}}",
    )


def _other_than_words(raw: RawColumn, found: Sequence[Value]) -> tuple[str, str] | None:
    """What most values are that are not words, and the remedy: dates, or numbers among other text."""
    texts = [str(value) for value in found]
    if raw.content is Content.DATES or 2 * sum(map(spells_date, texts)) > len(texts):
        return "dates", ""
    words = [text for text in texts if number_of(text) is None]
    other = [text for text in words if spells_number(text)]
    plain = len(texts) - len(words)
    if other and 2 * (plain + len(other)) > len(texts):
        remedy = "write numbers with a decimal point alone (pandas.read_csv(..., decimal=',')), "
        return f"text such as {other[0]!r}, a number in another notation", remedy
    if plain == len(texts) > MOST_TEXTS:
        return "text that spells numbers", "convert it, with pandas.to_numeric for example, "
    if plain > FEW and 0 < len(words) < plain:
        what = f"numbers and {len(words)} values that are none, such as {words[0]!r}"
        return what, "correct these cells, "
    return None


def _warn_of_markers(raw: RawColumn, seen: Mapping[str, int]) -> None:
    """Warn of text that often marks a missing cell, and was taken for a category of its own."""
    found = [text for text in seen if text.lower() in DOUBTFUL]
    if found:
        count = sum(int(seen[text]) for text in found)
        warnings.warn(
            f"got column {raw.name!r} with {count} cells such as '{found[0]}', taken for a category; "
            "expected empty cells where a value is missing; empty them, or pass "
            f"kinds={{{raw.name!r}: 'category'}} to keep them",
            stacklevel=2,
        )


_COUNTED = 10
"""Rows from which on a column of the numbers of the rows is no chance."""


def warn_of_row_numbers(table: Sequence[RawColumn]) -> None:
    """Warn of a column that numbers the rows, such as the index that pandas writes."""
    for raw in table:
        if raw.content is not Content.NUMBERS or len(raw) < _COUNTED:
            continue
        if bool((raw.cells - raw.cells[0] == np.arange(len(raw))).all()) and raw.cells[0] in (0, 1):
            warnings.warn(
                f"got column {raw.name!r}, which numbers the rows; expected measurements, because a model "
                f"learns the numbers too; leave it out: drop=[{raw.name!r}]",
                stacklevel=2,
            )


def _distinct(raw: RawColumn) -> list[Value]:
    """The distinct values of a column in ascending order; whole numbers as ``int``."""
    cells = raw.cells[raw.observed]
    if raw.content is not Content.NUMBERS:
        return sorted(set(cells.tolist()))
    found = np.unique(cells)
    return [int(value) if value == round(value) else value for value in found.tolist()]


def _in_order(raw: RawColumn, found: Sequence[Value], kind: ColumnKind) -> tuple[Value, ...]:
    """The values that the codes 0, 1, ... stand for."""
    if raw.order is not None:
        seen = set(found)
        return tuple(value for value in raw.order if value in seen)
    if kind is not ColumnKind.CATEGORY and raw.content is not Content.NUMBERS:
        raise invalid(
            f"kinds[{raw.name!r}]='ordinal' for text",
            "the order of its values",
            f"pass kinds={{{raw.name!r}: [...]}} with the values from low to high",
        )
    return tuple(found)


def _check_whole(raw: RawColumn, found: Sequence[Value], kind: ColumnKind) -> None:
    numbers = np.array(found, dtype=np.float64)
    wrong = (numbers != np.round(numbers)) | (np.abs(numbers) >= _exact())
    if kind is ColumnKind.COUNT:
        wrong |= numbers < 0
    if wrong.any():
        raise invalid(
            f"column {raw.name!r} as {kind} with values such as {numbers[wrong][:1].tolist()}",
            f"whole numbers {'from 0 on ' if kind is ColumnKind.COUNT else ''}below {_exact():,}",
            f"pass kinds={{{raw.name!r}: 'real'}}",
        )


def _exact() -> int:
    """Whole numbers below it are exact in torch's default type."""
    return int(2 / torch.finfo(torch.get_default_dtype()).eps)


def check_known(names: Sequence[str], asked: Sequence[str], setting: str) -> None:
    """Require names of columns that the table has."""
    for name in asked:
        near = difflib.get_close_matches(name, names, 1)
        if name not in names:
            raise invalid(
                f"{setting} for a column {name!r}",
                f"one of {listed([repr(each) for each in names])}",
                f"did you mean {near[0]!r}?" if near else "check the name",
            )
