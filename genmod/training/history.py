"""The record of a run: its steps, and their history, as a table and as a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genmod.elbo import ELBO, Measure
from genmod.model import LatentModel
from genmod.training.config import Cycle
from genmod.training.validation import Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = 12
"""The most lines of a printed table, not counting the best one."""
_NO_RATE = 0.1
"""Nats of rate below which the latents carry nothing."""


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """The record of one optimizer step.

    Args:
        number: the number of the step, from 1.
        loss: the minimized loss of the batch, before the step.
        elbo: the bound of each sample of the batch, before the step, without gradients.
        validation: the bound on the validation data, at the steps that measure it, else ``None``.
        stage: the name of the stage, for a model that is trained in stages.
        skipped: whether the batch was skipped, because its loss or gradient was not finite.
    """

    number: int
    loss: float
    elbo: ELBO
    validation: Validation | None
    stage: str
    skipped: bool = False
    _averaged: Callable[[], LatentModel] = field(kw_only=True)

    @property
    def bound(self) -> float:
        """The mean bound of the batch, in nats. Reading it makes a GPU wait."""
        return float(self.elbo.value.mean())

    @property
    def averaged(self) -> LatentModel:
        """A model with the averaged weights, in evaluation mode.

        Raises:
            ValueError: parts that cannot be copied; weights that are spread over processes.
        """
        return self._averaged()

    def __repr__(self) -> str:
        name = "log p(x|z)" if self.elbo.measure is Measure.NONE else "bound"
        scores = f"loss {self.loss:.5g}, {name} {self.bound:.5g} nats"
        valid = "" if self.validation is None else f", validation {self.validation}"
        return f"Step({self.stage} {self.number}: {scores}{valid})"


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """The history of a training run: its losses and validations. ``print`` shows it as a table.

    A model that is trained in stages has one history a stage, in :attr:`stages`. The losses and
    validations here are those of the last stage, which trains the final model.

    Args:
        name: the name of the model that was trained.
        cycles: the cycles of the learning rate: more than one where the run was extended.
        losses: the minimized loss of each step (nats a sample, for the bound).
        validations: the bounds on the validation data, in order of their steps.
        earlier: the histories of the stages before the last one.
        stopped: whether early stopping has ended the run.
        skipped: the steps whose batch was skipped, because its loss or gradient was not finite. The loss
            of such a step is recorded as it was.

    >>> history = History("VAE", (Cycle(0, 3),), (3.0, 2.0, 1.0))
    >>> history
    History(VAE: 3 of 3 steps, last loss 1)
    >>> print(history)
    VAE: 3 of 3 steps
           step          loss  validation
              1             3
              2             2
              3             1
    """

    name: str
    cycles: tuple[Cycle, ...]
    losses: Sequence[float]
    validations: Sequence[Validation] = ()
    earlier: tuple[History, ...] = field(default=())
    stopped: bool = False
    skipped: tuple[int, ...] = ()

    @property
    def stages(self) -> tuple[History, ...]:
        """The history of each stage, the last one included."""
        return (*self.earlier, self)

    @property
    def best(self) -> Validation | None:
        """The highest validation, whose averaged weights the model holds; ``None`` if there was none."""
        known = [v for v in self.validations if not math.isnan(v.score)]
        # The last of equal ones, as in TrainingState.record.
        return max(reversed(known), key=lambda v: v.score, default=None)

    def plot(self, title: str = "", caption: str = "") -> Figure:
        """The training curve, a matplotlib figure: losses and validations, a row a stage.

        The loss is a mean over runs of steps, at most 400 of them.

        >>> History("VAE", (Cycle(0, 3),), (3.0, 2.0, 1.0)).plot().axes[0].get_ylabel()
        'loss'
        """
        return _curve(self, title, caption)

    def __repr__(self) -> str:
        made = self._made()
        if self.best is not None:
            return f"History({self.name}: {made}, best {self.best} at step {self.best.step})"
        last = f", last loss {self.losses[-1]:.4g}" if self.losses else ""
        return f"History({self.name}: {made}{last})"

    def __str__(self) -> str:
        return "\n".join(line for stage in self.stages for line in stage._lines())

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>"

    def _made(self) -> str:
        early = ", stopped early" if self.stopped else ""
        spoiled = f", {len(self.skipped)} skipped (not finite)" if self.skipped else ""
        return f"{len(self.losses)} of {self.cycles[-1].last} steps{early}{spoiled}"

    def _lines(self) -> Iterator[str]:
        """The lines of the table of one stage."""
        yield f"{self.name}: {self._made()}"[:80]
        if len(self.cycles) > 1:
            for cycle in self.cycles[1:]:
                yield f"  extended at step {cycle.first} to {cycle.last} steps: another learning-rate cycle"
        shown = {v.step: v for v in self.validations}
        yield f"  {'step':>9}  {'loss':>12}  validation{self._scored()}".rstrip()
        steps = _spread(sorted(shown)) if shown else _spread(_even(len(self.losses)))
        best = self.best
        if best is not None:
            steps = sorted({*steps, best.step})
        before = 0
        for step in steps:
            recent = finite(self.losses[before:step]) or (math.nan,)
            before = step
            mark = "  best" if best is not None and step == best.step else ""
            loss = sum(recent) / len(recent)
            yield f"  {step:>9}  {loss:>12.5g}  {shown.get(step, '')}{mark}".rstrip()
        rate = None if best is None else best.rate
        if rate is not None and rate < _NO_RATE:
            yield f"  {rate:z.2f} nats of rate: the decoder ignores the latents. For a remedy call"
            yield "  evaluation.collapse(model, data)."

    def _scored(self) -> str:
        """How many rows the validations scored, where these are not all."""
        last = self.validations[-1] if self.validations else None
        if last is None or last.rows is None or last.total in (None, last.rows):
            return ""
        return f" ({last.rows:,} of {last.total:,} rows)"


def finite(losses: Sequence[float]) -> list[float]:
    """The losses without those of skipped batches, which are NaN or infinite."""
    return [loss for loss in losses if math.isfinite(loss)]


def _even(count: int) -> list[int]:
    every = max(1, count // _LINES)
    return sorted({*range(every, count + 1, every), count} - {0})


def _spread(steps: list[int]) -> list[int]:
    """At most ``_LINES`` of the steps, evenly spaced, the last one included."""
    every = -(-len(steps) // _LINES)
    return steps[::-1][:: every or 1][::-1]


# ---------------------------------------------------------------------- the training curve

_POINTS = 400
"""The most points of a curve of losses: each is the mean of a run of steps."""


def _curve(history: History, title: str, caption: str) -> Figure:
    """Losses on the left, validations on the right, a row a stage."""
    # Not at the top: training needs no matplotlib.
    from genmod.plots.style import figure, plain

    stages = history.stages
    made = figure(9.6, 3.2 * len(stages) + 0.4 * bool(caption), title, caption)
    for row, stage in enumerate(stages):
        left = plain(made.add_subplot(len(stages), 2, 2 * row + 1))
        _draw_losses(left, stage)
        right = plain(made.add_subplot(len(stages), 2, 2 * row + 2))
        _draw_validations(right, stage)
    return made


def _draw_losses(axes: Axes, stage: History) -> None:
    from genmod.plots.style import COLORS, INK, NOTE, label_axes

    steps, means = averages(stage.losses)
    axes.plot(steps, means, color=COLORS[0], lw=1.2)
    # The first losses are often far above the rest, and would hide it.
    known = sorted(finite(means))
    if len(known) >= 20:
        low, high = known[0], known[int(0.95 * (len(known) - 1))]
        margin = 0.05 * max(high - low, 1e-9)
        axes.set_ylim(low - margin, high + margin)
    axes.set_title(stage.name, loc="left", fontsize=NOTE, color=INK)
    label_axes(axes, "step", "loss")


def _draw_validations(axes: Axes, stage: History) -> None:
    from genmod.plots.style import COLORS, NOTE, PALE, label_axes

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
