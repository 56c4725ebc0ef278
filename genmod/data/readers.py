"""Tables as they are read: Parquet, and frames of pandas, polars and Arrow (CSV: ``delimited.py``).

A table becomes a list of :class:`RawColumn`: numbers, text, flags or dates, with the cells that were
observed. What kind of variable each one is, is decided afterwards (:mod:`genmod.data.kinds`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from genmod.checks import invalid
from genmod.data.cells import is_mark, numbers_of
from genmod.data.values import Array, check_memory

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
