"""Tables as text: comma-, semicolon- or tab-separated values. What cells spell is in ``cells.py``."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from genmod.checks import invalid
from genmod.data.cells import number_of
from genmod.data.readers import Content, RawColumn, check_names, check_width, text_column

_LONGEST_LINE = 1 << 26
_A_TABLE = ("a table of comma-separated values with a header", "write it again as CSV in UTF-8")


def read_csv(path: Path) -> list[RawColumn]:
    """The columns of a file of comma-, semicolon- or tab-separated values in UTF-8.

    The first line holds the names, unless all its cells are numbers. Empty cells are missing. In a column
    of numbers, so are the marks of :mod:`genmod.data.cells`. Warns of a first line of numbers that look
    like names.

    Raises:
        ValueError: what is no text, a line with another number of cells, too many columns, a first line
            that is a row.
    """
    text, first_line, named = _text(path)
    columns = [text_column(name, [cell.strip() for cell in cells]) for name, cells in text.items()]
    if named:
        _refuse_row(first_line, columns, path)
    else:
        _warn_of_names(first_line, columns, path)
    return columns


def read_text_cells(path: Path) -> dict[str, list[str]]:
    """The text of all cells of such a file, as it stands there, by the names of the columns."""
    return _text(path)[0]


def _text(path: Path) -> tuple[dict[str, list[str]], list[str], bool]:
    """The text of all cells by column, the first line, and whether it holds the names."""
    try:
        with path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
            torn = len(first) == _LONGEST_LINE or b"\0" in first or b"\0" in file.read(1 << 16)
        if torn:
            raise invalid(f"{path}, which is no text file", *_A_TABLE)
        delimiter = _delimiter(first.decode("utf-8-sig"))
        with path.open(encoding="utf-8-sig", newline="") as text:
            rows = list(_lines(csv.reader(text, delimiter=delimiter, strict=True), path))
    except UnicodeDecodeError:
        got = f"{path}, which is not in UTF-8"
        raise invalid(got, "a text file in UTF-8", "save it as CSV UTF-8") from None
    except csv.Error as error:
        raise invalid(f"{path}, which is no whole table ({error})", *_A_TABLE) from None
    if not rows:
        raise invalid(f"{path}, which is empty", *_A_TABLE)
    named = not all(number_of(cell) is not None for cell in rows[0])
    first_line = [cell.strip() for cell in rows[0]]
    names = first_line if named else [""] * len(first_line)
    names = [name or f"column {place}" for place, name in enumerate(names, 1)]
    check_names(names, str(path))
    if named and len(rows) == 1:
        raise invalid(f"{path} with a header and no rows", "at least one row", "add the rows")
    pairs = zip(names, zip(*rows[named:], strict=True), strict=True)
    return {name: list(cells) for name, cells in pairs}, first_line, named


def _refuse_row(first_line: Sequence[str], columns: Sequence[RawColumn], path: Path) -> None:
    """Refuse a first line that is a row: its numbers lie among those below, and its words repeat below."""
    numbers = [number_of(cell) for cell in first_line]
    spelled = [each for each in numbers if each is not None]
    if not spelled or spelled == list(range(len(spelled))):
        return
    for cell, number, column in zip(first_line, numbers, columns, strict=True):
        seen = column.cells[column.observed]
        if number is not None:
            if column.content is not Content.NUMBERS or not len(seen):
                return
            if not seen.min() <= number <= seen.max():
                return
        elif cell and (column.content is Content.NUMBERS or cell not in seen.tolist()):
            return
    raise invalid(
        f"{path} whose first line, {','.join(first_line)[:60]}, is like the rows below",
        "names in the first line",
        "write names above it; names that are numbers: put a word before them",
    )


def _warn_of_names(first_line: Sequence[str], columns: Sequence[RawColumn], path: Path) -> None:
    """Warn of a first line of numbers that count, or ascend and differ from the rows below."""
    numbers = [float(cell) for cell in first_line]
    if len(numbers) < 3 or any(a >= b for a, b in pairwise(numbers)):
        return
    below = [each.cells[1:][each.observed[1:]] for each in columns]
    outside = sum(
        bool(len(seen)) and not seen.min() <= number <= seen.max()
        for number, seen in zip(numbers, below, strict=True)
    )
    counts = numbers[0] in (0.0, 1.0) and numbers[-1] - numbers[0] == len(numbers) - 1
    if counts or 2 * outside > len(numbers):
        warnings.warn(
            f"got {path} whose first line, {','.join(first_line)[:40]}, was read as a row; expected names "
            "in it, unless it is one; names that are numbers: put a word before them, such as nm400",
            stacklevel=2,
        )


def _lines(reader: Any, path: Path) -> Iterator[list[str]]:
    """The lines of a table that are not blank, all of one length."""
    width = 0
    for cells in reader:
        if not cells:
            continue
        if not width:
            width = len(cells)
            check_width(width, str(path))
        if len(cells) != width:
            raise invalid(
                f"{path} with {len(cells)} cells in line {reader.line_num}",
                f"{width}, as in the first line",
                "correct that line: it may be cut short, or hold an unquoted delimiter",
            )
        yield cells


def _delimiter(line: str) -> str:
    """The delimiter that a line holds most of, outside of quotes."""
    return max(",;\t|", key=re.sub(r'"[^"]*"', "", line).count)
