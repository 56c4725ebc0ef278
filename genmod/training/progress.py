"""A progress bar with the loss and the true bound, side by side."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from genmod.elbo import ELBO, Measure
from genmod.training.validation import Validation

INTERVAL = 0.25
"""Seconds between two looks at the loss: a look makes a GPU wait."""


class Bar:
    """The bar of one run; a context manager.

    Args:
        total: how many steps.
        dims: how many numbers one sample holds.
        title: what is being trained.
        shown: whether anything is printed.
        console: where; rich's own by default.
    """

    def __init__(
        self, total: int, dims: int, title: str, shown: bool, console: Console | None = None
    ) -> None:
        self.total, self.dims = total, dims
        self.looked = -math.inf
        self.best: Validation | None = None
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not shown,
        )
        self.task = self.progress.add_task(title, total=total, said="")

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
        if self.progress.disable or not news:
            return
        self.looked = now
        bound = _said(float(elbo.value.mean()), self.dims, elbo.measure)
        name = "log p(x|z)" if elbo.measure is Measure.NONE else "bound"
        said = f"loss {float(loss):.4g} · {name} {bound}"
        if self.best is not None:
            best = _said(self.best.nats, self.dims, self.best.measure)
            said += f" · best {best}"
        self.progress.update(self.task, completed=step, said=said)


def _said(nats: float, dims: int, measure: Measure) -> str:
    """Short, so that a bar fits a terminal: bits for a mass, else nats."""
    if measure is Measure.MASS:
        return f"{-nats / (dims * math.log(2)):.3f} bits/dim"
    return f"{nats:.2f} nats"
