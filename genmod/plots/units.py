"""Units of latents: the nats of each as a heat map, and what each does to the data, a latent traversal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
from genmod.evaluation.verdict import ACTIVE, Collapse, LatentUse
from genmod.plots.images import Row, strips
from genmod.plots.style import INK, LABEL, NOTE, PALE, figure, label_axes, plain
from genmod.signatures import checked

_LABELED = 16
"""Units up to which each cell shows its number."""


@dataclass(frozen=True, eq=False)
class _HeatRow:
    """A row of the heat map: nats of the units, largest first, and which of them are active."""

    label: str
    nats: Tensor
    active: Tensor
    note: str


def latent_use(found: Mapping[str, Collapse], *, title: str = "", caption: str = "") -> Figure:
    """The use of latents as a heat map: a row for each level, a column for each unit, in nats.

    The units of a level are sorted by their nats. A cross marks a unit that is not active: its posterior
    mean hardly varies over the data. Below a VAE whose Gaussian decoder has one variance stands what a
    linear VAE would do with that variance on the same data.

    Args:
        found: for each model, the result of :func:`genmod.evaluation.collapse`. Levels whose laws do not
            factorize have no nats for a unit; their activities are drawn in place of nats.
        title: the title of the figure.
        caption: the text below the figure.

    >>> from genmod import evaluation, plots
    >>> from genmod.models import VAE
    >>> report = evaluation.collapse(VAE(2, latents=3, width=8), torch.randn(50, 2))
    >>> plots.latent_use({"VAE": report}).axes[0].get_xlabel()
    'unit, largest first'
    """
    if len(found) == 0:
        raise invalid("no models", "at least one", "pass evaluation.collapse(model, data)")
    rows = [row for name, each in found.items() for row in _rows(name, each, len(found) > 1)]
    widest = max(len(row.nats) for row in rows)
    made = figure(10.0, 1.3 + 0.4 * len(rows) + 0.5 * bool(caption), title, caption)
    axes = plain(made.add_subplot())
    table = torch.full((len(rows), widest), torch.nan, dtype=torch.float64)
    for index, row in enumerate(rows):
        table[index, : len(row.nats)] = row.nats
    top = float(table.nan_to_num(0.0).max())
    image = axes.imshow(
        table.clamp(min=0).numpy(), cmap=colormaps["Blues"], aspect="auto", vmin=0, vmax=max(top, 1e-3)
    )  # fmt: skip
    for index, row in enumerate(rows):
        _mark(axes, index, row, top, widest)
    axes.set_xticks(range(widest) if widest <= _LABELED else range(9, widest, 10))
    axes.xaxis.set_major_formatter(lambda place, _: f"{place + 1:.0f}")
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=NOTE)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    label_axes(axes, "unit, largest first", "")
    bar = made.colorbar(image, ax=axes, pad=0.17, fraction=0.04)
    bar.set_label("nats", fontsize=LABEL, color=INK)
    bar.ax.tick_params(labelsize=NOTE)
    return made


def _rows(name: str, found: Collapse, several: bool) -> list[_HeatRow]:
    """The rows of a model: its levels, and the linear forecast."""
    made = [_row(name, level, len(found.levels) > 1, several) for level in found.levels]
    if found.forecast is not None and found.variance is not None:
        units, nats = found.levels[0].units, found.forecast.kl(found.variance)
        whole = torch.cat([nats, nats.new_zeros(max(0, units - len(nats)))])[:units]
        note = f"{float(nats.sum()):.1f} nats, {len(nats)} of {units}"
        made.append(_HeatRow("linear VAE", whole, whole > 0, note))
    return made


def _row(name: str, level: LatentUse, hierarchy: bool, several: bool) -> _HeatRow:
    nats = level.activity if level.per_unit is None else level.per_unit
    order = nats.argsort(descending=True)
    words = [name] if several or not hierarchy else []
    label = ", ".join([*words, level.name] if hierarchy else words)
    note = f"{level.kl.mean:z.1f} nats, {level.active} of {level.units}"
    return _HeatRow(label, nats[order], level.activity[order] > ACTIVE, note)


def _mark(axes: Axes, index: int, row: _HeatRow, top: float, widest: int) -> None:
    """The numbers of a row, crosses on units that are not active, and its sum at the right."""
    for unit, (nats, active) in enumerate(zip(row.nats.tolist(), row.active.tolist(), strict=True)):
        text = f"{nats:z.1f}" if widest <= _LABELED else ""
        if not active:
            text = "×"
        dark = active and nats > 0.6 * top
        color = "white" if dark else INK if active else PALE
        axes.text(unit, index, text, ha="center", va="center", fontsize=NOTE, color=color)
    axes.annotate(
        row.note, (widest - 0.5, index), (6, 0), textcoords="offset points", va="center",
        fontsize=NOTE, color=INK, annotation_clip=False,
    )  # fmt: skip


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
