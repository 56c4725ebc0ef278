"""Cells of a table as numbers, by the descriptions of its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Real

import numpy as np

from genmod.checks import invalid
from genmod.columns import CODED, Column
from genmod.data.cells import is_mark, number_of, numbers_of
from genmod.data.kinds import listed
from genmod.data.readers import Content, RawColumn, numeric_column
from genmod.data.values import Array


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
