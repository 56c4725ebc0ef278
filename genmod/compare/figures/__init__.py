"""The figures of a comparison, as far as its models and data allow them: pictures, graphs and chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from matplotlib.figure import Figure

from genmod.compare.figures import chains, graphs, pictures
from genmod.compare.figures.figure_data import FigureData
from genmod.compare.progress import Drawing, OnEvent
from genmod.data import Dataset
from genmod.evaluation import Report
from genmod.evaluation.batching import evaluating
from genmod.files import write_atomically
from genmod.model import LatentModel

FIGURES: Mapping[str, tuple[str, Callable[[FigureData], Figure | None]]] = {
    "Samples": ("samples", pictures.samples),
    "Why a prior": ("why_a_prior", pictures.why_a_prior),
    "Latent spaces": ("latent_spaces", graphs.latent_spaces),
    "Reconstructions": ("reconstructions", pictures.reconstructions),
    "Blur": ("sharpness", pictures.sharpness),
    "Nats per level": ("rates", graphs.rates),
    "Forward process": ("forward", chains.forward),
    "Reverse process": ("reverse", chains.reverse),
    "Different draws of noise": ("draws", chains.draws),
    "Noise schedules": ("schedules", graphs.schedules),
    "Loss weights": ("weights", graphs.weights),
    "Nats per noise level": ("steps", graphs.step_profile),
    "Rate and distortion": ("rate_distortion", graphs.rate_distortion),
}
"""By title: the name of the file, and the function that draws it (``None``: no model to draw)."""

PICTURES = frozenset(
    {
        "Samples",
        "Why a prior",
        "Reconstructions",
        "Blur",
        "Forward process",
        "Reverse process",
        "Different draws of noise",
    }
)
"""Titles of the figures that need gray images."""

_QUICK = ("Samples", "Nats per level")
_FAILURES = (ValueError, ArithmeticError, RuntimeError, IndexError)
"""Errors that a figure of degenerate data can raise: constant data, one class, too few rows."""


def titles(quick: bool) -> Sequence[str]:
    """The titles of the figures to draw."""
    return _QUICK if quick else tuple(FIGURES)


def draw_all(
    models: Mapping[str, LatentModel],
    reports: Mapping[str, Report],
    data: Dataset,
    folder: Path,
    wanted: Sequence[str],
    on_event: OnEvent,
) -> tuple[dict[str, Path], list[str]]:
    """Draw the figures of a comparison; figures with images only if the data are gray images.

    Figures call the models without a context, so there are none of a conditional suite.

    Args:
        models: the trained models, by name.
        reports: their reports, by name.
        data: integers, with or without labels.
        folder: the folder of the figures.
        wanted: the titles of the figures to draw.
        on_event: called with a :class:`Drawing` event before each figure.

    Returns:
        The files by title, and a note for each figure that could not be drawn.
    """
    found, files, left_out = FigureData(models, reports, data), dict[str, Path](), list[str]()
    if data.context_dropout is not None:
        return files, ["figures: left out: the models need a context"]
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluating(model))
        for place, title in enumerate(wanted):
            on_event(Drawing(title, place, len(wanted)))
            name, make = FIGURES[title]
            try:
                figure = make(found) if found.gray or title not in PICTURES else None
            except _FAILURES as error:
                left_out.append(f"{title}: left out: {error}")
                continue
            if figure is not None:
                files[title] = _save(figure, folder / f"{name}.png")
    return files, left_out


def _save(figure: Figure, path: Path) -> Path:
    with write_atomically(path) as beside:
        # The format is named here, because the temporary file ends in ".writing".
        figure.savefig(beside, format="png")
    return path
