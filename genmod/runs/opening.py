"""Read a run again: its trained model, the data that it was trained on, or other rows to score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genmod.arrays import as_device, as_tensor
from genmod.checks import invalid
from genmod.columns import Column
from genmod.config.plain import to_plain
from genmod.data import Dataset, GivenRows
from genmod.data.cells import RawColumn, faults
from genmod.data.sources import NAMES, RowsSource, Source, TableSource, source_of
from genmod.data.values import Array
from genmod.files import as_path
from genmod.model import LatentModel
from genmod.models import load as load_saved
from genmod.runs.config import RunConfig, plain_identity
from genmod.saving import WEIGHTS, read_config
from genmod.spec import DataSpec


def open_model(folder: Path | str, device: torch.device | str | None = None) -> LatentModel:
    """The trained model of a run; on a GPU if there is one.

    Raises:
        ValueError: no run; one whose training is not done.
    """
    place = as_path(folder)
    read_config(place)
    if not (place / WEIGHTS).exists():
        raise invalid(
            f"{place}, whose training is not done",
            "a run with a model.safetensors",
            f"finish it: genmod train --resume --out {place}",
        )
    kind = as_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return load_saved(place, kind)


def open_data(folder: Path | str) -> Dataset:
    """The data that a run was trained on.

    Raises:
        ValueError: they are not there, or have changed since.
    """
    place = as_path(folder)
    found = read_config(place)
    config = RunConfig.of(found)
    x = config.data.get("x")
    if isinstance(x, str) and x not in NAMES and not as_path(x).exists():
        raise invalid(
            f"{x}, on which {place} was trained, but nothing is there",
            "the data of the run, at that path from the working directory",
            "work where the run was trained, or name the data to use: genmod evaluate RUN DATA",
        )
    data = config.load_data()
    trained_on: dict[str, Any] = found.get("trained_on") or {}
    now = plain_identity(data)
    changed = [name for name, value in trained_on.items() if now.get(name) != value]
    if changed:
        raise invalid(
            f"data that have changed since {place} was trained ({', '.join(changed)})",
            "the same rows",
            "put the old file back, or name the data to use: genmod evaluate RUN DATA",
        )
    return data


def open_usable_rows(
    folder: Path | str, spec: DataSpec, data: str | None
) -> tuple[GivenRows, dict[int, str]]:
    """The rows of :func:`open_rows`, and why some of them cannot be scored, by their numbers.

    Rows that cannot be scored have the values of another row. Other data than files are all used.
    """
    if data is None or not as_path(data).exists():
        return open_rows(folder, spec, data)[1], {}
    source, reasons = _usable(source_of(data), spec)
    return open_rows(folder, spec, data, source)[1], reasons


def _usable(source: Source, spec: DataSpec) -> tuple[Source, dict[int, str]]:
    """A source with another row's values in place of each row that a model of ``spec`` cannot have.

    The rows stay where they are, so that the noise of all others, and their labels, stay the same.

    Returns:
        The source, with as many rows; and the reason for each row that was replaced, by its number.

    Raises:
        ValueError: no row fits.
    """
    if isinstance(source, TableSource):
        found = faults(source.columns, spec.columns or ())
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


def _without(table: Sequence[RawColumn], columns: Sequence[Column], take: Array) -> list[RawColumn]:
    """The table with the described cells of the rows ``take``."""
    names = {column.name for column in columns}
    return [
        replace(raw, cells=raw.cells[take], observed=raw.observed[take])
        if raw.name in names
        else raw
        for raw in table
    ]


def open_rows(
    folder: Path | str, spec: DataSpec, data: str | None, source: Source | None = None
) -> tuple[Dataset, GivenRows]:
    """Rows to score: the test part of a run's data, or all rows of a file, in order.

    Args:
        folder: the folder of the run.
        spec: the spec of its model: a table is read by its columns.
        data: a name, a file or a folder of data; ``None``: the run's own.
        source: what to use in place of what the file holds.

    Returns:
        The data set, and its rows with their contexts and their mask of observed entries.

    Raises:
        ValueError: data of another shape or kind than those of the run; no rows.
    """
    config, part = RunConfig.of(read_config(as_path(folder))), "test"
    if data is None:
        found = open_data(folder)
    elif not as_path(data).exists():
        found = RunConfig.of({**config.sections(), "data": {"x": data}}).load_data()
    else:
        part = "train"
        settings = _whole(config, spec, data)
        found = RunConfig.of({**config.sections(), "data": settings}).load_data(source)
    rows, mask, context = found.parts()[part], found.mask(part), found.context(part)
    if len(rows) == 0:
        advice = "name a file: genmod ... RUN DATA"
        raise invalid(f"{data or folder} without a test part", "rows", advice)
    if part == "train" and found.rows is not None:
        order = found.rows[part].argsort()
        rows = rows[order]
        mask = None if mask is None else mask[order]
        context = None if context is None else context[order]
        trained_on: dict[str, Any] = read_config(as_path(folder)).get("trained_on") or {}
        context = _in_codes_of(context, found.classes, trained_on.get("classes"))
    return found, GivenRows(rows, context, mask)


def _in_codes_of(
    context: Tensor | None, own: Sequence[str] | None, trained: Sequence[str] | None
) -> Tensor | None:
    """Labels of a file in the codes of the run: a file has codes of its own for the classes in it.

    Raises:
        ValueError: a class that the run was not trained on.
    """
    if context is None or own is None or trained is None:
        return context
    unknown = [name for name in own if name not in trained]
    if unknown:
        raise invalid(
            f"labels {', '.join(map(repr, unknown[:3]))}, which the run was not trained on",
            f"one of {', '.join(map(repr, trained[:8]))}",
            "correct these rows, or leave them out",
        )
    codes = torch.tensor([list(trained).index(name) for name in own], device=context.device)
    return codes[context.long()].to(context.dtype)


def _whole(config: RunConfig, spec: DataSpec, path: str) -> dict[str, Any]:
    """The settings that read a file as the run's own data were read, without a split."""
    known = source_of(path).known
    kept = {"layout", "size", "resize", "channels", "binarize", "context_dropout"}
    conditional = config.model.get("condition") is not None
    kept |= {"labels"} if conditional else set()
    settings = {name: value for name, value in config.data.items() if name in kept}
    if "spec" in known:
        settings["spec"] = to_plain(spec)
    if "bins" in known:
        settings["bins"] = spec.bins
    return {**settings, "x": path, "validation": 0.0, "test": 0.0}
