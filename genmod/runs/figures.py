"""Figures of one run: samples, pairs, and ways between two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod.data import Dataset
from genmod.elbo import Measure
from genmod.files import write_atomically
from genmod.model import LatentModel
from genmod.models.sampling import DiffusionBased
from genmod.plots import Row, strips
from genmod.plots.style import COLORS, figure
from genmod.samplers import DPMSolver

_STEPS = 20
"""Steps of a diffusion's sampler, for a look on the way."""


def sample_some(model: LatentModel, context: Tensor | None, count: int) -> Tensor:
    """A few samples, the same noise each time; a diffusion takes a fast sampler."""
    seeds = range(count)
    if isinstance(model, DiffusionBased):
        return model.sample(count, context, sampler=DPMSolver(order=2), steps=_STEPS, seeds=seeds)
    return model.sample(count, context, seeds=seeds)


def draw_samples(path: Path, model: LatentModel, data: Dataset, title: str) -> bool:
    """Samples beside data, as a figure; ``False`` for data that no figure shows.

    A model that cannot be sampled shows reconstructions.
    """
    count = 12
    labels = data.context("validation") if len(data.validation) else data.context("train")
    shown = data.validation if len(data.validation) >= count else data.train
    real = shown[:count].to(model.device)
    context = None if labels is None else labels[: len(real)].to(model.device)
    with torch.random.fork_rng(devices=[]):
        if model.measure is Measure.NONE:
            made, name = model.reconstruct(real, context), "reconstructions"
        else:
            made, name = sample_some(model, context, len(real)), "samples"
    rows = {"data": real.cpu(), name: made.cpu()}
    if is_image(data.shape):
        return draw_images(path, rows, data, title)
    if data.shape == (2,):
        _scatter(path, rows, title)
        return True
    return False


def is_image(shape: Sequence[int]) -> bool:
    """Whether events are drawn as pictures: one or three channels of at least 4 x 4 pixels."""
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= 4


def draw_images(path: Path, rows: dict[str, Tensor], data: Dataset, title: str) -> bool:
    """Rows of images, each with its name; values are scaled to the range of the data."""
    lowest, highest = 0.0, float((data.bins or 2) - 1)
    if data.bins is None:
        lowest, highest = float(data.train.min()), float(data.train.max())
    scaled = {
        name: ((images.float() - lowest) / (highest - lowest or 1.0)).clamp(0, 1).mean(1, True)
        for name, images in rows.items()
    }
    save_figure(strips([Row(name, images) for name, images in scaled.items()], title=title), path)
    return True


def _scatter(path: Path, rows: dict[str, Tensor], title: str) -> None:
    made = figure(5, 4.5, title)
    axes = made.add_subplot()
    for color, (name, points) in zip(COLORS, rows.items(), strict=False):
        axes.scatter(points[:, 0], points[:, 1], s=12, color=color, label=name)
    axes.legend()
    save_figure(made, path)


def save_figure(made: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all."""
    with write_atomically(path) as beside:
        made.savefig(beside, format="png")
