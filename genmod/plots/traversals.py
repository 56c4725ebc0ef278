"""Latent traversals: a row of images for each unit, or a heat map of how each column follows it."""

from __future__ import annotations

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from genmod.checks import invalid
from genmod.columns import shorten
from genmod.evaluation.traversal import Traversal
from genmod.plots.images import Row, strips
from genmod.plots.style import INK, LABEL, NOTE, figure, label_axes, plain
from genmod.signatures import checked

_FEATURES, _ACROSS = 24, 4
"""Features of a heat map at most, those that change most; and heat maps side by side."""


@checked
def traversal(found: Traversal, *, title: str = "", caption: str = "") -> Figure:
    """A latent traversal: of images a row for each unit, of vectors and tables a heat map for each.

    A row or a heat map is labeled with its unit and the nats that it carries, and with the values of the
    unit. A heat map shows how far the mean of each column moves from where it is at the code itself, in
    standard deviations of the data; of a category, the probability of each value.

    Args:
        found: from :func:`genmod.evaluation.traverse`.
        title: the title of the figure.
        caption: the text below the figure; by default what was moved, and over which quantiles.

    >>> from genmod import evaluation, plots
    >>> from genmod.models import VAE
    >>> found = evaluation.traverse(VAE(3, latents=2, width=8), torch.randn(50, 3), count=5)
    >>> len(plots.traversal(found).axes)
    3
    """
    if len(found.units) == 0:
        raise invalid("a traversal without units", "at least one", "pass units=1")
    caption = caption or _caption(found)
    if found.changes is None:
        return _pictures(found, title, caption)
    return _maps(found, found.changes, title, caption)


def _caption(found: Traversal) -> str:
    law = "prior" if found.over == "prior" else "aggregate posterior"
    low, high = (100 * float(found.probabilities[end]) for end in (0, -1))
    text = (
        f"One unit at a time over quantiles of its {law}, {low:.1f} % to {high:.1f} %, around the code of "
        f"row {found.row}; the most used unit first. "
    )
    if found.changes is None:
        return text + "Under each image: the value of the unit."
    return text + "Color: the change of the decoder's mean, in standard deviations of the data."


def _pictures(found: Traversal, title: str, caption: str) -> Figure:
    low, high = 0.0, float((found.spec.bins or 2) - 1)
    if found.spec.bins is None:
        low, high = float(found.means.min()), float(found.means.max())
    rows = []
    for label, images, values in zip(found.labels, found.means, found.values, strict=True):
        scaled = ((images.double() - low) / (high - low or 1.0)).clamp(0, 1)
        under = [f"{value:.1f}" for value in values.tolist()]
        rows.append(Row(label.replace(", ", "\n"), scaled, under=under))
    return strips(rows, title=title, caption=caption)


def _maps(found: Traversal, changes: Tensor, title: str, caption: str) -> Figure:
    largest = changes.abs().amax((0, 1))
    shown = largest.argsort(descending=True, stable=True)[:_FEATURES].sort().values
    names = [shorten(found.features[place], 24) for place in shown.tolist()]
    if len(shown) < len(found.features):
        caption += f" The {len(shown)} of {len(found.features)} features that change most."
    count = len(found.units)
    across = min(count, _ACROSS)
    down = -(-count // across)
    tall = 0.9 + 0.22 * len(names)
    wide = 2.3 * across + 2.2
    made = figure(wide, tall * down + 0.35 * bool(title) + 0.6, title, caption)
    norm = CenteredNorm(0.0, max(float(largest.max()), 1e-6))
    drawn, last = [], None
    for index, label in enumerate(found.labels):
        axes = plain(made.add_subplot(down, across, index + 1))
        last = _map(axes, changes[index][:, shown].T, norm, found.values[index])
        axes.set_title(label.replace(", ", "\n"), fontsize=LABEL, color=INK)
        axes.set_yticks(range(len(names)), names if index % across == 0 else [""] * len(names))
        drawn.append(axes)
    assert last is not None
    bar = made.colorbar(last, ax=drawn, pad=0.02, fraction=0.05, aspect=30)
    bar.set_label("change, std of the data", fontsize=LABEL, color=INK)
    bar.ax.tick_params(labelsize=NOTE)
    return made


def _map(axes: Axes, values: Tensor, norm: CenteredNorm, ticks: Tensor) -> AxesImage:
    image = axes.imshow(values.numpy(), cmap=colormaps["RdBu_r"], norm=norm, aspect="auto")
    ends = torch.tensor([0, len(ticks) // 2, len(ticks) - 1]).unique().tolist()
    axes.set_xticks(ends, [f"{float(ticks[place]):.1f}" for place in ends])
    axes.tick_params(length=0, labelsize=NOTE)
    axes.spines[["left", "bottom"]].set_visible(False)
    label_axes(axes, "value of the unit", "")
    axes.xaxis.label.set_fontsize(NOTE)
    return image
