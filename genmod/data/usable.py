"""Rows that a model can have: which rows of a file hold values that are not in its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genmod.arrays import as_tensor
from genmod.checks import invalid
from genmod.columns import CODED, Column
from genmod.data.cells import numbers_of
from genmod.data.encoding import as_described, code_of, codes_of
from genmod.data.readers import Content, RawColumn
from genmod.data.sources import RowsSource, Source, TableSource
from genmod.data.values import Array
from genmod.spec import DataSpec


def usable(source: Source, spec: DataSpec) -> tuple[Source, dict[int, str]]:
    """A source with another row's values in place of each row that a model of ``spec`` cannot have.

    The rows stay where they are, so that the noise of all others, and their labels, stay the same.

    Returns:
        The source, with as many rows; and the reason for each row that was replaced, by its number.

    Raises:
        ValueError: no row fits.
    """
    if isinstance(source, TableSource):
        found = _faults(source.columns, spec.columns or ())
        take = _instead(len(source.columns[0]), found, source.title)
        return replace(source, columns=_without(source.columns, spec.columns or (), take)), found
    if isinstance(source, RowsSource) and source.observed is None:
        rows = as_tensor(source.rows)
        found = _outside(rows, spec) if rows.shape[1:] == spec.shape else {}
        take = _instead(len(rows), found, source.title)
        return (replace(source, rows=rows[torch.from_numpy(take)]) if found else source), found
    return source, {}


def _instead(count: int, reasons: Mapping[int, str], title: str) -> Array:
    """Which row to use in place of each."""
    if len(reasons) == count:
        raise invalid(
            f"{title} without a row that the model can have (row 0: {reasons[0]})",
            "rows like those of the training data",
            "correct these cells, or train a model on rows like these",
        )
    take = np.arange(count)
    take[list(reasons)] = next(place for place in range(count) if place not in reasons)
    return take


def _outside(rows: Tensor, spec: DataSpec) -> dict[int, str]:
    """The rows of an array that hold a value outside the range: the reason for each."""
    flat = rows.flatten(1).double()
    broken = ~flat.isfinite()
    if spec.bins is not None:
        broken |= (flat < 0) | (flat >= spec.bins) | (flat != flat.round())
    wide = "finite numbers" if spec.bins is None else f"whole numbers 0 to {spec.bins - 1}"
    return {
        row: f"{float(flat[row][broken[row]][0]):.6g}, outside the {wide} of the training data"
        for row in broken.any(1).nonzero().flatten().tolist()
    }


def _faults(table: Sequence[RawColumn], columns: Sequence[Column]) -> dict[int, str]:
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


def _without(table: Sequence[RawColumn], columns: Sequence[Column], take: Array) -> list[RawColumn]:
    """The table with the described cells of the rows ``take``."""
    names = {column.name for column in columns}
    return [
        replace(raw, cells=raw.cells[take], observed=raw.observed[take])
        if raw.name in names
        else raw
        for raw in table
    ]


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
