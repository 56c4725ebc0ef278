"""The figures of a comparison: all those of the lecture that the trained models allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from matplotlib.figure import Figure

from genmod import plots
from genmod.compare.drawing import Look, chains, latent, levels, pictures
from genmod.data import Dataset
from genmod.evaluation import Report
from genmod.evaluation.batching import evaluating
from genmod.model import LatentModel

FIGURES: Mapping[str, tuple[str, Callable[[Look], Figure | None]]] = {
    "Samples": ("samples", pictures.samples),
    "Why a prior": ("why_a_prior", pictures.why_a_prior),
    "Latent spaces": ("latent_spaces", latent.latent_spaces),
    "Reconstructions": ("reconstructions", pictures.reconstructions),
    "Blur, measured": ("sharpness", pictures.sharpness),
    "Nats per level": ("rates", levels.rates),
    "Forward process": ("forward", chains.forward),
    "Reverse process": ("reverse", chains.reverse),
    "Different draws of noise": ("draws", chains.draws),
    "Noise schedules": ("schedules", levels.schedules),
    "Loss weights": ("weights", levels.weights),
    "Nats per noise level": ("steps", levels.step_profile),
    "Rate and distortion": ("rate_distortion", levels.rate_distortion),
}
"""By title: the file's name, and what makes the figure, or nothing where no model has what it shows."""

PICTURES = frozenset(
    {
        "Samples",
        "Why a prior",
        "Reconstructions",
        "Blur, measured",
        "Forward process",
        "Reverse process",
        "Different draws of noise",
    }
)
"""Titles of the figures that show images, and need gray ones."""


def draw_all(
    models: Mapping[str, LatentModel], reports: Mapping[str, Report], data: Dataset, folder: Path
) -> dict[str, Path]:
    """Draw every figure of a comparison: of data that are no gray images, those that show none.

    Figures ask models without telling them anything: a conditional family is not drawn.

    Args:
        models: the trained family, by name; any part of it.
        reports: their reports, by name.
        data: integers, with labels or without.
        folder: where the figures go.

    Returns:
        The files, by title.
    """
    look, files = Look(models, reports, data), dict[str, Path]()
    if data.context_dropout is not None:
        return files
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluating(model))
        for title, (name, make) in FIGURES.items():
            figure = make(look) if look.gray or title not in PICTURES else None
            if figure is not None:
                files[title] = plots.save(figure, folder / f"{name}.png")
    return files
