"""Columns of a table as they are read: what their cells spell, and the numbers that stand for them.

An empty cell is missing everywhere. Marks are read without regard to case and blanks around them:

| the other cells of the column | a mark, such as ``NA``, ``?`` or ``-`` |
|---|---|
| numbers | is missing |
| words | is a word; ``load`` warns of it, unless it is ``none``, ``-`` or ``.``, which can mean something |

The rules are the same for files, for text in frames, and for the estimators of :mod:`genmod.sklearn`. A
frame states the types of its columns: its text becomes numbers only where a mark stands among numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from numbers import Real

import numpy as np

from genmod.checks import invalid
from genmod.columns import CODED, Column
from genmod.data.values import Array

MOST_COLUMNS = 50_000
"""A table of more columns is refused: an array is meant for them."""


class Content(StrEnum):
    """What the cells of a column hold."""

    NUMBERS = "numbers"
    FLAGS = "flags"
    TEXT = "text"
    DATES = "dates"


@dataclass(frozen=True, eq=False)
class RawColumn:
    """One column of a table as it was read.

    Args:
        name: its name.
        cells: ``float64`` for numbers, Python objects else; missing cells hold 0 or "".
        observed: which cells are not missing.
        content: what the cells hold.
        order: the values of an ordered categorical, in order.
    """

    name: str
    cells: Array
    observed: Array
    content: Content
    order: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.cells)


MARKS = frozenset(
    {"na", "n/a", "nan", "-nan", "null", "none", "<na>", "#n/a", "#na", "?", "-", "."}
)
"""Cells that are missing in a column whose other cells are numbers, in lower case.

Those of ``pandas.read_csv``; the question mark of the UCI tables; the hyphen; the dot of SAS and Stata.
"""
DOUBTFUL = MARKS - {"none", "-", "."}
"""Cells that probably stand for a missing value among words, where they are taken for words."""


def is_mark(cell: object) -> bool:
    """Whether a cell is text that stands for a missing value among numbers: one of :data:`MARKS`.

    >>> [is_mark(cell) for cell in ("NA", " ? ", "none", "", "0", 0.0)]
    [True, True, True, False, False, False]
    """
    return isinstance(cell, str) and cell.strip().lower() in MARKS


def numbers_of(cells: Sequence[str], described: bool = False) -> Array | None:
    """All cells of a column as numbers, NaN where one is missing; ``None`` if one of them is a word.

    Args:
        cells: text without blanks around it.
        described: whether the column is known to hold numbers. Without that, a column of marks alone is
            one of words.

    >>> numbers_of(["1.5", "NA", "", "2"])
    array([1.5, nan, nan, 2. ])
    >>> numbers_of(["NA", "?"]) is None
    True
    """
    if "_" not in "".join(cells):
        try:
            return np.array([cell or "nan" for cell in cells], dtype=np.float64)
        except ValueError:
            pass
    known = {cell: number_of(cell) for cell in set(cells) - {""}}
    rest = [cell for cell, number in known.items() if number is None]
    if not described and len(rest) == len(known):
        return None
    if not all(map(is_mark, rest)):
        return None
    return np.array([known.get(cell) for cell in cells], dtype=np.float64)


def number_of(cell: str) -> float | None:
    """The number that a cell spells; ``None`` for text."""
    try:
        # Python also reads the name 2020_1 as a number.
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


_LOOSE = re.compile(r"[-+−–]?\d[\d.,'’  ]*\s?%?")
_DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ].*)?")


def spells_number(cell: str) -> bool:
    """Whether a cell is a number in another notation: 1,5 or 1 000 or 12 % or a long minus.

    >>> [spells_number(cell) for cell in ("1,5", "1'000.5", "12%", "1.5", "v1,5", "12:30")]
    [True, True, True, False, False, False]
    """
    return number_of(cell) is None and _LOOSE.fullmatch(cell) is not None and cell.count(".") < 2


def spells_date(cell: str) -> bool:
    """Whether a cell is a date: 2020-01-31, 31.1.2020 or 1/31/20, perhaps with a time.

    >>> [spells_date(cell) for cell in ("2020-01-31", "31.1.2020 12:00", "20-30", "1.5")]
    [True, True, False, False]
    """
    return _DATE.fullmatch(cell) is not None


def numeric_column(name: str, cells: Array, observed: Array) -> RawColumn:
    """A column of numbers: NaN is missing, infinite values are refused."""
    observed = observed & ~np.isnan(cells)
    broken = int(np.isinf(cells[observed]).sum())
    if broken > 0:
        raise invalid(
            f"column {name!r} with {broken} infinite values",
            "finite numbers",
            f"correct them, empty these cells, or drop=[{name!r}]",
        )
    return RawColumn(name, np.where(observed, cells, 0.0), observed, Content.NUMBERS)


def check_width(count: int, name: str) -> None:
    if count > MOST_COLUMNS:
        raise invalid(
            f"{name} with {count:,} columns",
            f"at most {MOST_COLUMNS:,}",
            "save so wide a table as an array with numpy.save, or check the delimiter",
        )


def check_names(names: Iterable[str], what: str) -> None:
    found = list(names)
    check_width(len(found), what)
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        raise invalid(
            f"{what} with more than one column named {', '.join(map(repr, twice[:3]))}",
            "a name of its own for each column",
            "rename them",
        )


def encode(raw: RawColumn, column: Column) -> tuple[Array, Array]:
    """The cells of a column as numbers, ``float64`` (codes of a category), and which are observed.

    Raises:
        ValueError: cells that the column cannot have.
    """
    raw = as_described(raw, column)
    if column.kind not in CODED:
        if raw.content is not Content.NUMBERS and raw.observed.any():
            raise invalid(
                f"column {raw.name!r} of {raw.content}",
                f"numbers, because it is described as {column.kind}",
                "correct its cells",
            )
        cells = raw.cells if raw.content is Content.NUMBERS else np.zeros(len(raw))
        return cells.astype(np.float64), raw.observed
    codes = codes_of(column)
    seen = raw.cells[raw.observed].tolist()
    known = {cell: code_of(codes, cell) for cell in set(seen)}
    unknown = [cell for cell, code in known.items() if code is None]
    if unknown:
        raise invalid(
            f"column {raw.name!r} with {len(unknown)} unknown values, such as {unknown[:1]}",
            f"one of {listed([repr(value) for value in column.values or ()])}",
            "correct these cells, or empty them, which makes them missing",
        )
    numbers = np.zeros(len(raw), dtype=np.float64)
    numbers[raw.observed] = [known[cell] for cell in seen]
    return numbers, raw.observed


def as_described(raw: RawColumn, column: Column) -> RawColumn:
    """The cells of a column: where it is described by numbers, marks are missing, even if alone."""
    numbers = column.kind not in CODED or all(
        isinstance(value, Real) and not isinstance(value, bool) for value in column.values or ()
    )
    if not numbers or raw.content is not Content.TEXT:
        return raw
    found = numbers_of(raw.cells.tolist(), described=True)
    if found is not None:
        return numeric_column(raw.name, found, raw.observed)
    marked = np.array([is_mark(cell) for cell in raw.cells.tolist()], dtype=bool)
    return replace(raw, cells=np.where(marked, "", raw.cells), observed=raw.observed & ~marked)


def faults(table: Sequence[RawColumn], columns: Sequence[Column]) -> dict[int, str]:
    """Why some rows of a table cannot be encoded: the reason for each, by the number of the row.

    Args:
        table: the columns as they were read, at least those that are described.
        columns: the descriptions.
    """
    by_name = {raw.name: raw for raw in table}
    kept = [
        (as_described(by_name[column.name], column), column)
        for column in columns
        if column.name in by_name
    ]
    found: dict[int, str] = {}
    for raw, column in kept:
        for place, reason in _faults_of(raw, column):
            found.setdefault(place, reason)
    seen = np.stack([raw.observed for raw, _ in kept], 1) if kept else np.ones((0, 1), dtype=bool)
    for place in np.flatnonzero(~seen.any(1)).tolist():
        found[place] = "no observed entry"
    return dict(sorted(found.items()))


def _faults_of(raw: RawColumn, column: Column) -> list[tuple[int, str]]:
    """The cells of a column that its description does not have: row and reason."""
    places = np.flatnonzero(raw.observed)
    cells = raw.cells[places]
    if column.kind in CODED:
        codes = codes_of(column)
        known = {cell: code_of(codes, cell) is not None for cell in set(cells.tolist())}
        wrong = np.array([not known[cell] for cell in cells.tolist()], dtype=bool)
        reason = f"which is none of the {column.count} values of the training data"
    elif raw.content is not Content.NUMBERS:
        numbers = [numbers_of([str(cell)], described=True) for cell in cells.tolist()]
        wrong = np.array([each is None or np.isinf(each[0]) for each in numbers], dtype=bool)
        reason = "which is no finite number"
    else:
        low, high = column.limits
        whole = column.is_real | (cells == np.round(cells))
        wrong = (cells < low) | (cells > high) | ~whole
        span = "whole numbers from 0 on" if column.low is None else f"whole numbers {low} to {high}"
        reason = f"outside the {span} of the training data"
    return [
        (int(place), f"{column.name}={_shown(cell)}, {reason}")
        for place, cell in zip(places[wrong].tolist(), cells[wrong].tolist(), strict=True)
    ]


def _shown(cell: object) -> str:
    return f"{cell:.6g}" if isinstance(cell, float) else repr(cell)


def codes_of(column: Column) -> dict[object, int]:
    """The code of each value of a category or an ordinal."""
    return {_key(value): code for code, value in enumerate(column.values or ())}


def code_of(codes: Mapping[object, int], cell: object) -> int | None:
    """The code of a cell; ``None`` for a value that has none."""
    return codes.get(_key(cell), codes.get(_other_key(cell)))


def _key(value: object) -> object:
    """A key that is equal for equal cells of different sources: True and "True", 1 and 1.0."""
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    return float(value) if isinstance(value, Real) else value


def _other_key(value: object) -> object:
    """The key of a number that another source holds as text, or of text that it holds as a number."""
    if isinstance(value, str):
        return number_of(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def listed(words: Sequence[str]) -> str:
    """Some words, separated by commas."""
    return ", ".join([*words[:8], *(["..."] if len(words) > 8 else [])])
