"""Predictive checks: each statistic of the data on the histogram of its replicates."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import invalid
from genmod.columns import shorten
from genmod.evaluation.predictive import PredictiveCheck
from genmod.plots.style import COLORS, INK, NOTE, figure, plain
from genmod.signatures import checked

_SHOWN, _ACROSS = 12, 4
"""Statistics that are drawn at most, the least likely first; and how many side by side."""


@checked
def predictive_check(found: PredictiveCheck, *, title: str = "", caption: str = "") -> Figure:
    """A predictive check: histograms of the replicates, with a line where the data are.

    The least likely statistics come first, twelve at most. A red line is a misfit: its tail probability,
    adjusted for the number of statistics, is at most 0.05.

    Args:
        found: from :func:`genmod.evaluation.predictive_check`.
        title: the title of the figure.
        caption: the text below the figure; by default the verdict.

    >>> from genmod import evaluation, plots
    >>> from genmod.models import VAE
    >>> import torch
    >>> model = VAE(1, latents=1, width=8)
    >>> found = evaluation.predictive_check(model, torch.randn(50, 1), replicates=39)
    >>> len(plots.predictive_check(found).axes)
    7
    """
    places = found.order()[:_SHOWN]
    if len(places) == 0:
        raise invalid("a check without statistics", "at least one", "check other data")
    across = min(len(places), _ACROSS)
    down = math.ceil(len(places) / across)
    wide = max(2.6 * across, 6.0)
    made = figure(wide, 2.15 * down + 0.35 * bool(title) + 0.8, title, caption or _caption(found))
    for index, place in enumerate(places):
        axes = plain(made.add_subplot(down, across, index + 1))
        misfit = found.names[place] in found.misfits
        _histogram(axes, found.replicated[:, place], float(found.observed[place]), misfit)
        name = found.names[place].replace(" of ", "\nof ", 1)
        lines = "\n".join(shorten(line, 32) for line in name.split("\n"))
        axes.set_title(lines, fontsize=NOTE, color=INK)
        text = f"tail {float(found.tail[place]):.2f}, adjusted {float(found.adjusted[place]):.2f}"
        axes.set_xlabel(text, fontsize=NOTE, color=INK)
    return made


def _caption(found: PredictiveCheck) -> str:
    return (
        f"Bars: {len(found.replicated)} replicates of {found.rows} rows. Line: the data; red where the "
        f"adjusted tail probability is at most 0.05. {found.verdict}"
    )


def _histogram(axes: Axes, replicated: Tensor, observed: float, misfit: bool) -> None:
    values = replicated.tolist()
    # NumPy refuses bins that are narrower than the last digit of the values.
    apart = max(values) - min(values) > 1e-9 * max(map(abs, values))
    bins = min(20, len(set(values))) if apart else 1
    axes.hist(values, bins=bins, color=COLORS[0], alpha=0.45)
    axes.axvline(observed, color=COLORS[1] if misfit else INK, lw=2.2)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=4)
