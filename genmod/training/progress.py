"""How far a run is, with the loss and the true bound side by side: in a bar, or told to a caller."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from genmod.elbo import ELBO, Measure
from genmod.training.validation import Validation

INTERVAL = 0.25
"""Seconds between two looks at the loss: a look makes a GPU wait."""

Told: TypeAlias = Callable[[int, str], None]
"""What is told of a run: how many steps were made, and a line with the loss, the bound, the best."""


def columns() -> list[ProgressColumn]:
    """What a row of a progress display shows; its task needs a field ``said``."""
    return [
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    ]


class Bar:
    """The bar of one run; a context manager.

    Args:
        total: how many steps.
        dims: how many numbers one sample holds.
        title: what is being trained.
        shown: whether anything is printed; or a function that is told instead, for a caller who
            shows several runs in one display.
        console: where; rich's own by default.
    """

    def __init__(
        self,
        total: int,
        dims: int,
        title: str,
        shown: bool | Told,
        console: Console | None = None,
    ) -> None:
        self.total, self.dims = total, dims
        self.looked = -math.inf
        self.best: Validation | None = None
        self.progress = Progress(*columns(), console=console, disable=shown is not True)
        self.task = self.progress.add_task(title, total=total, said="")
        self.told: Told | None = shown if not isinstance(shown, bool) else None
        if shown is True:
            self.told = self._show

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def show(
        self, step: int, loss: Tensor, elbo: ELBO, validation: Validation | None = None
    ) -> None:
        """Say where training is; reads the loss a few times a second only."""
        if validation is not None and (self.best is None or validation.nats >= self.best.nats):
            self.best = validation
        now = time.monotonic()
        news = now - self.looked >= INTERVAL or validation is not None or step == self.total
        if self.told is None or not news:
            return
        self.looked = now
        bound = _said(float(elbo.value.mean()), self.dims, elbo.measure)
        name = "log p(x|z)" if elbo.measure is Measure.NONE else "bound"
        said = f"loss {float(loss):.4g} · {name} {bound}"
        if self.best is not None:
            said += f" · best {self.best}"
        self.told(step, said)

    def _show(self, step: int, said: str) -> None:
        self.progress.update(self.task, completed=step, said=said)


def _said(nats: float, dims: int, measure: Measure) -> str:
    """Short, so that a bar fits a terminal: bits for a mass, else nats."""
    if measure is Measure.MASS:
        return f"{-nats / (dims * math.log(2)):.3f} bits/dim"
    return f"{nats:.2f} nats"
