"""Posterior collapse as a heat map: the nats of every unit of every level of latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import invalid
from genmod.evaluation.verdict import ACTIVE, Collapse, LatentUse
from genmod.plots.style import INK, LABEL, NOTE, PALE, figure, label_axes, plain

_LABELED = 16
"""Units up to which each cell shows its number."""


@dataclass(frozen=True, eq=False)
class _Row:
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


def _rows(name: str, found: Collapse, several: bool) -> list[_Row]:
    """The rows of a model: its levels, and the linear forecast."""
    made = [_row(name, level, len(found.levels) > 1, several) for level in found.levels]
    if found.forecast is not None and found.variance is not None:
        units, nats = found.levels[0].units, found.forecast.kl(found.variance)
        whole = torch.cat([nats, nats.new_zeros(max(0, units - len(nats)))])[:units]
        note = f"{float(nats.sum()):.1f} nats, {len(nats)} of {units}"
        made.append(_Row("linear VAE", whole, whole > 0, note))
    return made


def _row(name: str, level: LatentUse, hierarchy: bool, several: bool) -> _Row:
    nats = level.activity if level.per_unit is None else level.per_unit
    order = nats.argsort(descending=True)
    words = [name] if several or not hierarchy else []
    label = ", ".join([*words, level.name] if hierarchy else words)
    note = f"{level.kl.mean:z.1f} nats, {level.active} of {level.units}"
    return _Row(label, nats[order], level.activity[order] > ACTIVE, note)


def _mark(axes: Axes, index: int, row: _Row, top: float, widest: int) -> None:
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
