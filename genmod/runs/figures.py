"""Figures of one run: samples beside data, as pictures, as points of the plane, or column by column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from genmod.data import Dataset
from genmod.elbo import Measure
from genmod.files import write_atomically
from genmod.model import LatentModel
from genmod.models.sampling import DiffusionBased
from genmod.plots import Row, strips
from genmod.plots.style import COLORS, NOTE, figure, label_axes, plain
from genmod.samplers import DPMSolver
from genmod.spec import Column, DataSpec
from genmod.tensors import is_image

_STEPS = 20
"""Steps of a diffusion's sampler: fewer than for a result, so that a figure is cheap."""
_IMAGES, _ROWS = 12, 500
"""Images in a row, and rows of a table in a histogram."""
_COLUMNS, _ACROSS = 12, 4
"""Columns of a table that are drawn at most, and how many side by side."""
_VALUES, _BINS = 30, 30
"""Different whole numbers with a bar each, and bins of a histogram of anything else."""


def draw_samples(path: Path, model: LatentModel, data: Dataset, title: str) -> bool:
    """Draw samples beside data into a PNG file; ``False`` for data that no figure shows.

    Images are drawn as pictures, rows of two real numbers as points, and other vectors and tables by a
    histogram of each column. A model that has no samples, an autoencoder, shows reconstructions.
    """
    picture, vector = is_image(data.shape), len(data.shape) == 1
    if not picture and not vector:
        return False
    count = _IMAGES if picture else _ROWS
    part = "validation" if len(data.validation) >= count else "train"
    real = data.parts()[part][:count]
    context, observed = (
        None if each is None else each[: len(real)]
        for each in (data.context(part), data.mask(part))
    )
    made, name = _made(model, real, context, observed)
    rows = {"data": real, name: made.cpu()}
    if picture:
        draw_images(path, rows, data.spec, title)
    elif data.shape == (2,) and data.bins is None and data.spec.columns is None:
        save_figure(_scatter(rows, title), path)
    else:
        save_figure(_histograms(rows, observed, data.spec, title), path)
    return True


def _made(
    model: LatentModel, real: Tensor, context: Tensor | None, observed: Tensor | None
) -> tuple[Tensor, str]:
    """As many samples as there are real rows, the same noise each time; or reconstructions."""
    context, observed = (
        None if each is None else each.to(model.device) for each in (context, observed)
    )
    if model.measure is Measure.NONE:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return model.reconstruct(real.to(model.device), context, observed), "reconstructions"
    seeds = range(len(real))
    if isinstance(model, DiffusionBased):
        sampler = DPMSolver(order=2)
        made = model.sample(len(real), context, sampler=sampler, steps=_STEPS, seeds=seeds)
        return made, "samples"
    return model.sample(len(real), context, seeds=seeds), "samples"


def draw_images(path: Path, rows: Mapping[str, Tensor], spec: DataSpec, title: str) -> None:
    """Draw rows of images, each with its name: integers scaled to their range, reals to that of row one."""
    lowest, highest = 0.0, float((spec.bins or 2) - 1)
    if spec.bins is None:
        first = next(iter(rows.values()))
        lowest, highest = float(first.min()), float(first.max())
    scaled = {
        name: ((images.cpu().float() - lowest) / (highest - lowest or 1.0)).clamp(0, 1)
        for name, images in rows.items()
    }
    save_figure(strips([Row(name, images) for name, images in scaled.items()], title=title), path)


def _scatter(rows: Mapping[str, Tensor], title: str) -> Figure:
    made = figure(5, 4.5, title)
    axes = made.add_subplot()
    for color, (name, points) in zip(COLORS, rows.items(), strict=False):
        axes.scatter(points[:, 0], points[:, 1], s=12, color=color, label=name)
    axes.legend()
    return made


def _histograms(
    rows: Mapping[str, Tensor], observed: Tensor | None, spec: DataSpec, title: str
) -> Figure:
    """The distribution of each column in the data and in the samples, missing entries left out."""
    shown = min(spec.size, _COLUMNS)
    across = min(shown, _ACROSS)
    down = -(-shown // across)
    caption = f"The first {shown} of {spec.size} columns." if shown < spec.size else ""
    made = figure(2.9 * across + 0.6, 2.4 * down + 0.8, title, caption)
    for place in range(shown):
        axes = plain(made.add_subplot(down, across, place + 1))
        column = None if spec.columns is None else spec.columns[place]
        values = {name: each[:, place].double() for name, each in rows.items()}
        if observed is not None:
            values["data"] = values["data"][observed[:, place]]
        whole = spec.bins is not None or (column is not None and not column.is_real)
        _histogram(axes, values, column, whole)
        label_axes(
            axes, f"x{place}" if column is None else column.name, "share" if place == 0 else ""
        )
        if place == 0:
            axes.legend(fontsize=NOTE, frameon=False)
    return made


def _histogram(
    axes: Axes, values: Mapping[str, Tensor], column: Column | None, whole: bool
) -> None:
    """One column over the range of the data: a bar for each of few whole numbers, else bins."""
    known = next((each for each in values.values() if len(each)), torch.zeros(1))
    low, high = float(known.min()), float(known.max())
    bars = whole and high - low < _VALUES
    if bars:
        edges = [low - 0.5 + place for place in range(int(high - low) + 2)]
    else:
        width = 1.4 * (high - low or 1.0) / _BINS
        edges = [low - 0.2 * (high - low) + place * width for place in range(_BINS + 1)]
    for color, (name, each) in zip(COLORS, values.items(), strict=False):
        share = np.histogram(each.numpy(), edges)[0] / max(len(each), 1)
        # One outline instead of a rectangle for each bin: a figure takes a fifth of the time.
        axes.stairs(share, edges, fill=True, color=color, alpha=0.5, label=name)
    if bars and column is not None and column.values is not None:
        places = range(int(low), int(high) + 1)
        words = [str(column.values[place])[:10] for place in places]
        axes.set_xticks(list(places), words, rotation=45 if len(words) > 4 else 0)


def save_figure(made: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all."""
    with write_atomically(path) as beside:
        # The format is named here, because the temporary file ends in ".writing".
        made.savefig(beside, format="png")
