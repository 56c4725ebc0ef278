"""The record of a run: its history, and the progress bar while it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from genmod.elbo import ELBO, Measure
from genmod.training.config import Leg
from genmod.training.validation import Validation

_LINES = 12
"""Lines of a printed table, at most, beside the best one."""


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """The record of a run. Printed, it is a table.

    A model that is trained in stages has one record a stage in :attr:`stages`; the losses and
    validations are those of the last stage, which trains the final model.

    Args:
        name: what was trained.
        legs: the legs of the run: more than one where it was extended.
        losses: the loss of each step.
        validations: the bounds on held-out data, in order.
        earlier: the records of the stages before the last one.

    >>> History("VAE", (Leg(0, 3),), (3.0, 2.0, 1.0))
    History(VAE: 3 of 3 steps, last loss 1)
    """

    name: str
    legs: tuple[Leg, ...]
    losses: Sequence[float]
    validations: Sequence[Validation] = ()
    earlier: tuple[History, ...] = field(default=())

    @property
    def stages(self) -> tuple[History, ...]:
        """The record of each stage, the last one included."""
        return (*self.earlier, self)

    @property
    def best(self) -> Validation | None:
        """The highest validation, whose averaged weights the model holds; ``None`` without any."""
        known = [v for v in self.validations if not math.isnan(v.nats)]
        # Of equal ones the last, as in training.
        return max(reversed(known), key=lambda v: v.nats, default=None)

    def __repr__(self) -> str:
        made = f"{len(self.losses)} of {self.legs[-1].last} steps"
        if self.best is not None:
            return f"History({self.name}: {made}, best {self.best} at step {self.best.step})"
        last = f", last loss {self.losses[-1]:.4g}" if self.losses else ""
        return f"History({self.name}: {made}{last})"

    def __str__(self) -> str:
        return "\n".join(line for stage in self.stages for line in stage._lines())

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>"

    def _lines(self) -> Iterator[str]:
        """The table of one stage."""
        yield f"{self.name}: {len(self.losses)} of {self.legs[-1].last} steps"[:80]
        if len(self.legs) > 1:
            for leg in self.legs[1:]:
                yield f"  extended at step {leg.first} to {leg.last} steps: the rate rises and falls again"
        shown = {v.step: v for v in self.validations}
        yield f"  {'step':>9}  {'loss':>12}  validation{self._scored()}".rstrip()
        steps = _spread(sorted(shown)) if shown else _spread(_even(len(self.losses)))
        best = self.best
        if best is not None:
            steps = sorted({*steps, best.step})
        before = 0
        for step in steps:
            recent = self.losses[before:step] or (math.nan,)
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


def _even(count: int) -> list[int]:
    every = max(1, count // _LINES)
    return sorted({*range(every, count + 1, every), count} - {0})


def _spread(steps: list[int]) -> list[int]:
    """At most so many of them, the last one included."""
    every = -(-len(steps) // _LINES)
    return steps[::-1][:: every or 1][::-1]


INTERVAL = 0.25
"""Seconds between two updates: reading the bound makes a GPU wait."""
WIDE = 110
"""Columns from which on the best validation is shown, too."""

OnProgress: TypeAlias = Callable[[int, str], None]
"""Called with the number of steps made, and a line with the loss, the bound and the best validation."""


def columns() -> list[ProgressColumn]:
    """The columns of a progress display that fits 80; its task needs a field ``status``."""
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
        total: how many steps.
        dims: the number of entries of one sample.
        title: what is trained.
        shown: whether anything is printed; or a function that is called instead, for a caller who
            shows several runs in one display.
        console: where; rich's own by default.
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
        self.looked = -math.inf
        self.best: Validation | None = None
        self.progress = Progress(*columns(), console=console, disable=shown is not True)
        self.task = self.progress.add_task(title, total=total, status="")
        self.on_progress: OnProgress | None = shown if not isinstance(shown, bool) else None
        if shown is True:
            self.on_progress = self._show

    def start(self) -> None:
        """Show it."""
        self.progress.start()

    def stop(self) -> None:
        """Leave the last line as it is."""
        self.progress.stop()

    def note(self, step: int, line: str) -> None:
        """A line that stays."""
        if self.on_progress is None:
            return
        if self.progress.disable:
            self.on_progress(step, line)
        else:
            self.progress.console.print(line)

    def show(
        self, step: int, loss: float, elbo: ELBO, validation: Validation | None = None
    ) -> None:
        """Show a step; reads the bound a few times a second only."""
        if validation is not None and (self.best is None or validation.nats >= self.best.nats):
            self.best = validation
        now = time.monotonic()
        news = now - self.looked >= INTERVAL or validation is not None or step == self.total
        if self.on_progress is None or not news:
            return
        self.looked = now
        self.on_progress(step, self._line(loss, float(elbo.value.mean()), elbo.measure))

    def _line(self, loss: float, nats: float, measure: Measure) -> str:
        """Loss and bound in one unit: bits per dimension for a mass, else nats."""
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
