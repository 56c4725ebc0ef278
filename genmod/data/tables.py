"""A table as a data set: columns by name and kind, missing cells, labels, and the units of real columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from genmod.arrays import ranks
from genmod.checks import invalid
from genmod.columns import CODED, Column, ColumnKind
from genmod.data.cells import Content, RawColumn, encode
from genmod.data.datasets import Dataset
from genmod.data.kinds import Kinds, check_known, describe, warn_of_row_numbers
from genmod.data.rows import Split, divide
from genmod.data.values import as_labels, check_seen
from genmod.spec import DataSpec
from genmod.units import Standardize


@dataclass(frozen=True, eq=False)
class TableSettings:
    """How a table becomes a data set.

    Args:
        kinds: kinds of columns by name, where the guess is not what is meant.
        drop: names of columns to leave out.
        standardize: whether models standardize real columns by their training rows, or the means and stds
            by which they do.
        labels: the name of the column of labels, or one label a row; ``None``: no labels.
        spec: the description of columns that are known already, of a data set or a model.
    """

    kinds: Kinds | None = None
    drop: Iterable[str] = ()
    standardize: bool | Standardize = True
    labels: object = None
    spec: DataSpec | None = None


def table_dataset(
    table: Sequence[RawColumn], name: str, settings: TableSettings, split: Split
) -> Dataset:
    """A table, checked and divided into train, validation and test.

    Args:
        table: its columns as they were read.
        name: what reports call it.
        settings: how columns are read.
        split: how rows are divided. ``groups`` and ``time`` may be names of columns.

    Returns:
        Rows ``(N, D)`` in torch's default type, in the data's own units, with ``columns``, and
        ``observed`` where cells are missing. The columns of labels, groups and time are left out.

    Raises:
        ValueError: names that the table lacks, text, columns of one value, rows without a value.
    """
    groups, at_groups = _taken(table, split.groups, "groups")
    time, at_time = _taken(table, split.time, "time")
    split = replace(split, groups=groups, time=time)
    marks, classes, at_labels = _labels(table, settings.labels)
    used = {name for name in (at_groups, at_time, at_labels) if name is not None}
    table = [raw for raw in table if raw.name not in used]
    rows, observed, columns = numbers(table, settings)
    indices = split.indices(len(rows))
    if settings.spec is None:
        train = indices[0]
        columns = with_moments(columns, rows[train], observed[train], settings.standardize)
    _check_precision(rows, observed, columns)
    return divide(
        name,
        rows.to(torch.get_default_dtype()),
        indices,
        {**split.record(), "columns": [at for at in (at_groups, at_time) if at is not None]},
        labels=marks,
        classes=classes,
        columns=columns,
        observed=None if bool(observed.all()) else observed,
    )


def numbers(
    table: Sequence[RawColumn], settings: TableSettings
) -> tuple[Tensor, Tensor, list[Column]]:
    """The rows of a table ``(N, D)`` in float64, which entries are observed, and its columns.

    Raises:
        ValueError: names that the table lacks, text, columns of one value, rows without a value.
    """
    names = [raw.name for raw in table]
    if not isinstance(settings.kinds or {}, Mapping):
        raise invalid(
            f"kinds={settings.kinds!r}",
            "kinds by the names of columns",
            "pass kinds={'age': 'real'}; on the command line --kinds '{age: real}'",
        )
    kinds, drop = dict(settings.kinds or {}), _names(settings.drop)
    check_known(names, list(kinds), "kinds")
    check_known(names, drop, "drop")
    if settings.spec is None:
        kept = [raw for raw in table if raw.name not in set(drop)]
        columns = [describe(raw, kinds.get(raw.name)) for raw in kept]
        warn_of_row_numbers([raw for raw in kept if raw.name not in kinds])
    else:
        columns = list(_of_spec(settings.spec, names))
        by_name = {raw.name: raw for raw in table}
        kept = [by_name[column.name] for column in columns]
    if not kept:
        raise invalid("a table without columns", "at least one", "drop fewer")
    pairs = [encode(raw, column) for raw, column in zip(kept, columns, strict=True)]
    rows = torch.from_numpy(np.stack([cells for cells, _ in pairs], 1))
    observed = torch.from_numpy(np.stack([mask for _, mask in pairs], 1))
    check_seen(observed, "the table")
    return rows, observed, columns


def _of_spec(spec: DataSpec, names: Sequence[str]) -> Sequence[Column]:
    """The columns of a model or a data set, which the table must have."""
    columns = spec.columns or ()
    if spec.columns is None:
        raise invalid(
            f"a table for data of {spec}",
            "a model of columns",
            "pass an array of its numbers, or build the model from the table: "
            "VAE(data.load(table))",
        )
    lacking = [column.name for column in columns if column.name not in names]
    if lacking:
        raise invalid(
            f"a table without the column {lacking[:1]}",
            f"the columns {', '.join(column.name for column in columns)}",
            "add it, with empty cells where it is missing",
        )
    return columns


def _names(drop: Iterable[str]) -> list[str]:
    return [drop] if isinstance(drop, str) else list(drop)


def _taken(table: Sequence[RawColumn], given: object, setting: str) -> tuple[object, str | None]:
    """The values of groups or times, and the name of their column if they were given by name."""
    if not isinstance(given, str):
        return given, None
    raw = _column(table, given, setting)
    if not raw.observed.all():
        raise invalid(
            f"{setting}={given!r}, a column with {int((~raw.observed).sum())} missing cells",
            "a value in each row",
            "fill them, or remove these rows",
        )
    return raw.cells if raw.content is Content.NUMBERS else raw.cells.astype(str), given


def _labels(
    table: Sequence[RawColumn], given: object
) -> tuple[Tensor | None, tuple[str, ...] | None, str | None]:
    """Labels, the classes that they stand for, and the name of their column."""
    if given is None:
        return None, None, None
    if not isinstance(given, str):
        count = len(table[0])
        marks, classes = labels_of(given)
        if marks.shape[:1] != (count,):
            raise invalid(
                f"labels of shape {tuple(marks.shape)}",
                f"one label for each of the {count} rows",
                "pass them in the order of the rows",
            )
        return marks, classes, None
    cells, _ = _taken(table, given, "labels")
    marks, classes = labels_of(cells)
    return marks, classes, given


def labels_of(given: object) -> tuple[Tensor, tuple[str, ...] | None]:
    """Labels as numbers; text becomes codes ``0, 1, ...`` in alphabetical order, and their classes."""
    series = getattr(given, "to_numpy", None)
    found = series() if callable(series) else given
    if isinstance(found, list | tuple) and found and all(isinstance(each, str) for each in found):
        found = np.array(found)
    if isinstance(found, np.ndarray) and found.dtype.kind in "OUS":
        holes = sum(each is None or each != each for each in found.tolist())
        if holes != 0:
            got = f"labels with {holes} missing values"
            raise invalid(got, "a label for each row", "fill them, or remove these rows")
        text = found.astype(str)
        return ranks(text, len(text), "labels"), tuple(np.unique(text).tolist())
    if (
        isinstance(found, np.ndarray)
        and found.dtype.kind == "f"
        and bool((found == found.round()).all())
    ):
        return as_labels(found.astype(np.int64)), None
    return as_labels(found), None


def _column(table: Sequence[RawColumn], name: str, setting: str) -> RawColumn:
    check_known([raw.name for raw in table], [name], setting)
    return next(raw for raw in table if raw.name == name)


def _check_precision(rows: Tensor, observed: Tensor, columns: Sequence[Column]) -> None:
    """Refuse a real column whose values torch's default type would round to a few."""
    kind = torch.get_default_dtype()
    for place, column in enumerate(columns):
        if column.kind is not ColumnKind.REAL:
            continue
        seen = rows[observed[:, place], place]
        lost = float((seen.to(kind).double() - seen).abs().max()) if len(seen) else 0.0
        if len(seen) > 1 and not lost <= 1e-3 * float(seen.std(correction=0)):
            # Near the largest or the smallest number of the type.
            extreme = not 1e-30 < float(seen.abs().max()) < 1e30
            first = "rescale it" if extreme else f"subtract {float(seen.mean()):.8g}"
            raise invalid(
                f"column {column.name!r} around {float(seen.mean()):.8g}, which {kind} rounds by "
                f"{lost:.2g}",
                f"rounding far below its standard deviation {float(seen.std(correction=0)):.2g}",
                f"{first} first, or use torch.set_default_dtype(torch.float64)",
            )


def standardized(data: Dataset, standardize: bool | Standardize = True) -> Dataset:
    """A data set of real vectors with columns, by which models standardize them.

    Args:
        data: real vectors, without columns.
        standardize: the means and stds; ``True``: those of the training rows.

    Raises:
        ValueError: data that are no vectors of real numbers, a column of one value.
    """
    if data.bins is not None or len(data.shape) != 1:
        raise invalid(
            f"standardize={standardize} for {data.spec}", "vectors of real numbers", "leave it out"
        )
    columns = [Column(f"column {place}") for place in range(data.shape[0])]
    train = data.mask("train")
    observed = torch.ones_like(data.train, dtype=torch.bool) if train is None else train
    return replace(data, columns=with_moments(columns, data.train, observed, standardize))


def with_moments(
    columns: Sequence[Column], x: Tensor, observed: Tensor, standardize: bool | Standardize = True
) -> list[Column]:
    """Columns with the mean and the standard deviation of their observed training entries.

    Args:
        columns: of the table.
        x: its training rows, ``(N, D)``.
        observed: which entries are observed, like ``x``.
        standardize: whether real columns get them too: models then standardize by them. Or the means and
            stds that real columns get in place of their own.

    Raises:
        ValueError: a column without two values in the training rows; means for other columns.
    """
    counted = [place for place, column in enumerate(columns) if column.kind not in CODED]
    names = [columns[place].name for place in counted]
    own = Standardize.of(x[:, counted], observed[:, counted], names)
    moments = dict(zip(counted, zip(own.mean, own.std, strict=True), strict=True))
    given = standardize if isinstance(standardize, Standardize) else None
    if given is not None:
        if len(given.mean) != len(columns):
            raise invalid(
                f"standardize with {len(given.mean)} means for {len(columns)} columns",
                "one mean and one std for each column",
                "those of columns that are not real are not used",
            )
        moments |= {p: (given.mean[p], given.std[p]) for p in counted if columns[p].is_real}
    if standardize is False:
        moments = {p: pair for p, pair in moments.items() if not columns[p].is_real}
    return [
        replace(column, mean=moments[place][0], std=moments[place][1])
        if place in moments
        else column
        for place, column in enumerate(columns)
    ]
