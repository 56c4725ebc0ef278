"""Columns of a table as they are read, and what their cells spell: numbers, dates, missing values.

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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from genmod.checks import invalid
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


def text_column(name: str, cells: list[str]) -> RawColumn:
    """A column of a file of text: numbers where all cells are numbers or missing, text otherwise."""
    numbers = numbers_of(cells)
    if numbers is not None:
        return numeric_column(name, numbers, ~np.isnan(numbers))
    text = np.array(cells, dtype=object)
    return RawColumn(name, text, text != "", Content.TEXT)


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
