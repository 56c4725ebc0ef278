"""A run that is read again: its model, and its data or other ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmod.checks import require
from genmod.data import Dataset
from genmod.data.splits import Split
from genmod.files import as_path
from genmod.model import LatentModel
from genmod.models import load as load_saved
from genmod.runs.config import RunConfig
from genmod.saving import WEIGHTS, read_config


def open_model(folder: Path | str, device: torch.device | str | None = None) -> LatentModel:
    """The trained model of a run; on a GPU if there is one.

    Raises:
        ValueError: no run; one whose training is not done.
    """
    place = as_path(folder)
    read_config(place)
    require(
        (place / WEIGHTS).exists(),
        f"{place}, whose training is not done",
        "a run with a model.safetensors",
        f"finish it: genmod train --resume --out {place}",
    )
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return load_saved(place, kind)


def open_data(folder: Path | str) -> Dataset:
    """The data that a run was trained on.

    Raises:
        ValueError: they have changed since.
    """
    place = as_path(folder)
    found = read_config(place)
    data = RunConfig.of(found).load_data()
    trained_on: dict[str, Any] = found.get("trained_on") or {}
    now = data.identity()
    changed = [name for name, value in trained_on.items() if now.get(name) != value]
    require(
        not changed,
        f"data that have changed since {place} was trained ({', '.join(changed)})",
        "the same rows",
        "put the old file back, or name the data to use: genmod evaluate RUN DATA",
    )
    return data


def open_rows(folder: Path | str, data: str | None) -> tuple[Dataset, Tensor, Tensor | None]:
    """Rows to score, and their context: the test part of a run's data, or all rows of a file, in order.

    Args:
        folder: of the run.
        data: a name or a file; ``None``: the run's own data.

    Returns:
        The data set, the rows, and their context for a conditional model.

    Raises:
        ValueError: data of another shape or kind than those of the run; an empty test part.
    """
    config = RunConfig.of(read_config(as_path(folder)))
    if data is None:
        found = open_data(folder)
        require(
            len(found.test) > 0, "a run without a test part", "rows", "name a file: ... RUN DATA"
        )
        return found, found.test, found.context("test")
    settings = {**config.data, "x": data}
    if not as_path(data).exists():
        found = RunConfig.of({**config.sections(), "data": settings}).load_data()
        return found, found.test, found.context("test")
    whole = {**settings, "validation": 0.0, "test": 0.0}
    found = RunConfig.of({**config.sections(), "data": whole}).load_data()
    order = Split(0.0, 0.0, int(settings.get("seed") or 0)).indices(len(found.train))[0]
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    context = found.context("train")
    return found, found.train[place], None if context is None else context[place]
