"""The training curve: the loss of each step and the validations, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genmod.elbo import Measure
from genmod.plots.style import COLORS, INK, NOTE, PALE, figure, label_axes, plain
from genmod.training.history import finite

if TYPE_CHECKING:
    from genmod.training.history import History

_POINTS = 400
"""The most points of a curve of losses: each is the mean of a run of steps."""


def training_curve(history: History, title: str = "", caption: str = "") -> Figure:
    """The figure of :meth:`History.plot`: losses on the left, validations on the right, a row a stage."""
    stages = history.stages
    made = figure(9.6, 3.2 * len(stages) + 0.4 * bool(caption), title, caption)
    for row, stage in enumerate(stages):
        left = plain(made.add_subplot(len(stages), 2, 2 * row + 1))
        _losses(left, stage)
        right = plain(made.add_subplot(len(stages), 2, 2 * row + 2))
        _validations(right, stage)
    return made


def _losses(axes: Axes, stage: History) -> None:
    steps, means = averages(stage.losses)
    axes.plot(steps, means, color=COLORS[0], lw=1.2)
    # The first losses are often far above the rest, and would hide it.
    finite = sorted(value for value in means if math.isfinite(value))
    if len(finite) >= 20:
        low, high = finite[0], finite[int(0.95 * (len(finite) - 1))]
        margin = 0.05 * max(high - low, 1e-9)
        axes.set_ylim(low - margin, high + margin)
    axes.set_title(stage.name, loc="left", fontsize=NOTE, color=INK)
    label_axes(axes, "step", "loss")


def _validations(axes: Axes, stage: History) -> None:
    found = [v for v in stage.validations if math.isfinite(v.nats)]
    if not found:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no validation data", ha="center", fontsize=NOTE, color=PALE)
        return
    bits = found[0].measure is Measure.MASS
    scale = -1 / (found[0].dims * math.log(2)) if bits else 1.0
    values = [scale * v.nats for v in found]
    errors = [0.0 if math.isnan(v.error) else abs(scale) * v.error for v in found]
    axes.errorbar([v.step for v in found], values, errors, color=COLORS[2], lw=1.2, marker=".")
    best = stage.best
    if best is not None:
        axes.plot(best.step, scale * best.nats, "o", color=COLORS[1], label=f"best: {best}")
        axes.legend(fontsize=NOTE, frameon=False)
    label_axes(axes, "step", "validation, " + ("bits/dim" if bits else "nats"))


def averages(losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """The last step and the mean loss of each run of steps, at most 400 of them.

    Losses that are not finite, those of skipped batches, are left out.

    >>> averages([3.0, 1.0])
    ([1.0, 2.0], [3.0, 1.0])
    """
    every = max(1, -(-len(losses) // _POINTS))
    runs = [losses[start : start + every] for start in range(0, len(losses), every)]
    ends = [float(min(len(losses), (number + 1) * every)) for number in range(len(runs))]
    kept = [finite(run) for run in runs]
    return ends, [sum(run) / len(run) if run else math.nan for run in kept]
