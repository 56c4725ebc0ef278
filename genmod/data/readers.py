"""Readers of tables: CSV and Parquet files, and frames of pandas, polars and Arrow.

A table becomes a list of :class:`RawColumn`: numbers, text, flags or dates, with the cells that were
observed. What kind of variable each one is, is decided afterwards (:mod:`genmod.data.kinds`).
"""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from genmod.checks import invalid
from genmod.data.cells import (
    Content,
    RawColumn,
    check_names,
    check_width,
    is_mark,
    number_of,
    numbers_of,
    numeric_column,
)
from genmod.data.values import Array, check_memory

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


def text_column(name: str, cells: list[str]) -> RawColumn:
    """A column of a file of text: numbers where all cells are numbers or missing, text otherwise."""
    numbers = numbers_of(cells)
    if numbers is not None:
        return numeric_column(name, numbers, ~np.isnan(numbers))
    text = np.array(cells, dtype=object)
    return RawColumn(name, text, text != "", Content.TEXT)


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


def read_parquet(path: Path) -> list[RawColumn]:
    """The columns of a Parquet file.

    Raises:
        ValueError: pyarrow is not installed; a torn file; a file larger than the memory.
    """
    try:
        # Not at the top: an extra, and slow to import.
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise invalid(
            f"{path}, but pyarrow is not installed",
            "it for Parquet files",
            "install it with pip install 'genmod-torch[parquet]', or save the table as CSV",
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            shape = (file.metadata.num_rows, len(file.schema_arrow.names))
            check_width(shape[1], str(path))
            check_memory(8 * shape[0] * shape[1], str(path))
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        got = f"{path}, which is no whole Parquet file ({' '.join(str(error).split())})"
        raise invalid(got, "one", "write it again") from None
    return from_frame(table)


def is_frame(x: object) -> bool:
    """Whether something is a data frame of pandas, polars, Arrow or a like library."""
    if type(x).__module__.partition(".")[0] in ("torch", "numpy", "builtins"):
        return False
    # Not at the top: only frames need it.
    from narwhals import dependencies

    return bool(dependencies.is_into_dataframe(x)) or type(x).__name__ == "LazyFrame"


def from_frame(frame: Any) -> list[RawColumn]:
    """The columns of a frame of pandas, polars, Arrow or a like library, through narwhals.

    Raises:
        ValueError: a lazy frame, no rows, columns without a name of their own, cells that are lists.
    """
    import narwhals as nw

    lazy = type(frame).__name__ == "LazyFrame"
    if lazy:
        raise invalid("a lazy frame", "one whose rows are computed", "call .collect() first")
    try:
        found = nw.from_native(frame, eager_only=True)
        names = [str(name) for name in found.columns]
    except (TypeError, nw.exceptions.NarwhalsError) as error:
        reason = " ".join(str(error).split())
        raise invalid(
            f"a frame that cannot be read ({reason})",
            "columns with names of their own",
            "rename them, or pass an array",
        ) from None
    check_names(names, "a frame")
    if len(found) == 0:
        raise invalid("a frame without rows", "at least one row", "check how it was made")
    return [
        _from_series(name, each) for name, each in zip(names, found.iter_columns(), strict=True)
    ]


def _from_series(name: str, series: Any) -> RawColumn:
    """A column of a frame: a narwhals Series."""
    import narwhals as nw

    kind, observed = series.dtype, ~np.asarray(series.is_null().to_list(), dtype=bool)
    if kind.is_numeric():
        filled = series.cast(nw.Float64).fill_null(float("nan")).to_numpy()
        return numeric_column(name, np.array(filled, dtype=np.float64), observed)
    cells = np.array(series.to_list(), dtype=object)
    if kind.is_temporal():
        cells = np.array([str(cell) for cell in cells], dtype=object)
        return RawColumn(name, np.where(observed, cells, ""), observed, Content.DATES)
    if isinstance(kind, nw.Enum):
        order = tuple(str(value) for value in kind.categories)
        return _objects(name, [str(cell) for cell in cells], observed, order)
    dictionary = _order(series.to_native())
    if dictionary is not None or isinstance(kind, nw.Categorical):
        return _objects(name, [str(cell) for cell in cells], observed, dictionary)
    return _objects(name, cells.tolist(), observed, plain=True)


def _order(column: Any) -> tuple[str, ...] | None:
    """The values of an ordered dictionary column of Arrow, in order; ``None`` for other columns."""
    if not getattr(getattr(column, "type", None), "ordered", False):
        return None
    values = column.unify_dictionaries().chunk(0).dictionary.to_pylist()
    return tuple(str(value) for value in values)


def _objects(
    name: str,
    cells: Sequence[object],
    observed: Array,
    order: tuple[str, ...] | None = None,
    plain: bool = False,
) -> RawColumn:
    """A column of Python objects: all text, all flags, or all numbers.

    Args:
        name: its name.
        cells: one a row.
        observed: which of them are not missing.
        order: the values of an ordered categorical, in order.
        plain: whether numbers and marks for missing cells may stand among text: not in a categorical.
    """
    seen = [cell for cell, there in zip(cells, observed, strict=True) if there]
    if seen and all(isinstance(cell, bool | np.bool_) for cell in seen):
        flags = [bool(cell) if there else "" for cell, there in zip(cells, observed, strict=True)]
        return RawColumn(name, np.array(flags, dtype=object), observed, Content.FLAGS)
    if all(isinstance(cell, Real) for cell in seen):
        pairs = zip(cells, observed, strict=True)
        numbers = [cell if there else np.nan for cell, there in pairs]
        return numeric_column(name, np.array(numbers, dtype=np.float64), observed)
    if plain and any(map(is_mark, seen)):
        pairs = zip(cells, observed, strict=True)
        spelled = numbers_of([str(cell).strip() if there else "" for cell, there in pairs])
        if spelled is not None:
            return numeric_column(name, spelled, observed)
    other = next((cell for cell in seen if not isinstance(cell, str)), None)
    if other is not None:
        raise invalid(
            f"column {name!r} with a cell of type {type(other).__name__}",
            "numbers, flags or text in a column, and nothing else",
            f"convert it, or leave it out: drop=[{name!r}]",
        )
    pairs = zip(cells, observed, strict=True)
    text = np.array([str(cell).strip() if there else "" for cell, there in pairs], dtype=object)
    return RawColumn(name, text, observed & (text != ""), Content.TEXT, order)
