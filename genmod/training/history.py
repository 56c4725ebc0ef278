"""The record of a run: its steps, its history, and the progress bar while it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from genmod.elbo import ELBO, Measure
from genmod.model import LatentModel
from genmod.training.config import Cycle
from genmod.training.state import Average
from genmod.training.validation import Validation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINES = 12
"""The most lines of a printed table, not counting the best one."""


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
    _average: Average = field(kw_only=True)

    @property
    def bound(self) -> float:
        """The mean bound of the batch, in nats. Reading it makes a GPU wait."""
        return float(self.elbo.value.mean())

    @property
    def averaged(self) -> LatentModel:
        """A model with the averaged weights, in evaluation mode.

        Raises:
            ValueError: parts that cannot be copied.
        """
        try:
            return self._average.model
        except RuntimeError as error:
            raise ValueError(
                f"got a model that cannot be copied ({error}); expected parts that copy.deepcopy copies; "
                "look at the model after the loop, when it holds the averaged weights"
            ) from error

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
        known = [v for v in self.validations if not math.isnan(v.nats)]
        # The last of equal ones, as in TrainingState.record.
        return max(reversed(known), key=lambda v: v.nats, default=None)

    def plot(self, title: str = "", caption: str = "") -> Figure:
        """The training curve, a matplotlib figure: losses and validations, a row a stage.

        The loss is a mean over runs of steps, at most 400 of them.

        >>> History("VAE", (Cycle(0, 3),), (3.0, 2.0, 1.0)).plot().axes[0].get_ylabel()
        'loss'
        """
        from genmod.training.curve import training_curve

        return training_curve(self, title, caption)

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


INTERVAL = 0.25
"""The least seconds between two updates, because reading the bound makes a GPU wait."""
WIDE = 110
"""A terminal with at least so many columns also shows the best validation."""

OnProgress: TypeAlias = Callable[[int, str], None]
"""Called with the number of steps so far, and a line with the loss, the bound and the best validation."""


def columns() -> list[ProgressColumn]:
    """The columns of a progress bar for a terminal of 80 characters; its task needs a field ``status``."""
    return [
        TextColumn("{task.description}"),
        BarColumn(bar_width=8),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[status]}"),
    ]


class Bar:
    """The progress bar of one run.

    Args:
        total: the number of steps.
        dims: the number of entries of one sample.
        title: the name of the model in training.
        shown: whether the bar is shown; or a function that is called instead, for a caller who
            shows several runs in one display.
        console: the console to print on; rich's own by default.
    """

    def __init__(
        self,
        total: int,
        dims: int,
        title: str,
        shown: bool | OnProgress,
        console: Console | None = None,
    ) -> None:
        self.total, self.dims = total, dims
        self.updated = -math.inf
        self.best: Validation | None = None
        self.progress = Progress(*columns(), console=console, disable=shown is not True)
        self.task = self.progress.add_task(title, total=total, status="")
        self.on_progress: OnProgress | None = shown if not isinstance(shown, bool) else None
        if shown is True:
            self.on_progress = self._show

    def start(self) -> None:
        """Show the bar."""
        self.progress.start()

    def stop(self) -> None:
        """Stop updating the bar. Its last line stays."""
        self.progress.stop()

    def note(self, step: int, line: str) -> None:
        """Print a line above the bar."""
        if self.on_progress is None:
            return
        if self.progress.disable:
            self.on_progress(step, line)
        else:
            self.progress.console.print(line)

    def show(
        self, step: int, loss: float, elbo: ELBO, validation: Validation | None = None
    ) -> None:
        """Show a step. The bound is read a few times a second only."""
        if validation is not None and (self.best is None or validation.nats >= self.best.nats):
            self.best = validation
        now = time.monotonic()
        due = now - self.updated >= INTERVAL or validation is not None or step == self.total
        if self.on_progress is None or not due:
            return
        self.updated = now
        self.on_progress(step, self._line(loss, float(elbo.value.mean()), elbo.measure))

    def _line(self, loss: float, nats: float, measure: Measure) -> str:
        """The loss and the bound in the same unit: bits per dimension for a mass, else nats."""
        bits = measure is Measure.MASS
        scale, unit = (1 / (self.dims * math.log(2)), "bits/dim") if bits else (1.0, "nats")
        bound = -nats * scale if bits else nats
        name = "log p(x|z)" if measure is Measure.NONE else "bound"
        line = f"loss {_short(loss * scale)}, {name} {_short(bound)} {unit}"
        wide = self.progress.disable or self.progress.console.width >= WIDE
        return f"{line}, best {self.best}" if self.best is not None and wide else line

    def _show(self, step: int, line: str) -> None:
        self.progress.update(self.task, completed=step, status=line)


def _short(value: float) -> str:
    """Five digits, so that a line fits a terminal.

    >>> _short(2.34567), _short(-1234.56), _short(123456.7)
    ('2.346', '-1234.6', '1.235e+05')
    """
    size = abs(value)
    if size >= 1e5 or not math.isfinite(value):
        return f"{value:.4g}"
    return f"{value:.3f}" if size < 100 else f"{value:.1f}"
