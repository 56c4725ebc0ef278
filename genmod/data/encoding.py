"""Cells of a table as numbers, by the descriptions of its columns, and cells that no description has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real

import numpy as np

from genmod.checks import invalid
from genmod.columns import CODED, Column
from genmod.data.cells import Content, RawColumn, is_mark, number_of, numbers_of, numeric_column
from genmod.data.kinds import listed
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
