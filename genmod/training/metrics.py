"""What a run shows and writes while it runs: a progress bar, lines of JSON, and experiment trackers.

A line of metrics holds the stage, the step, the loss, the bound of the batch, the learning rate, and
the validation where there was one. A run that continues from a checkpoint drops the lines after it, so
that no step is listed twice.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from genmod.checks import invalid, one_of
from genmod.elbo import ELBO, Measure
from genmod.files import append_text, check_file, check_folder, read_text, write_text
from genmod.training.validation import Validation

FILE = "metrics.jsonl"
"""The name of the file in a folder."""
_TRACKERS = {
    "aim": "aim",
    "clearml": "clearml",
    "comet_ml": "comet_ml",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""The trackers of accelerate, and the package that each of them needs."""


def check_trackers(names: Sequence[str] | str) -> tuple[str, ...]:
    """The names of trackers whose packages are installed.

    Raises:
        ValueError: an unknown name, or a package that is missing.

    >>> check_trackers(())
    ()
    """
    found = tuple(
        one_of(_TRACKERS, name, "trackers")
        for name in ((names,) if isinstance(names, str) else names)
    )
    needed = ["accelerate", *(_TRACKERS[name] for name in found)] if found else []
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise invalid(
            f"trackers={list(found)} without {' and '.join(missing)}",
            "installed packages",
            f"pip install {' '.join(missing)}, or leave trackers out: metrics= needs no package",
        )
    return found


class MetricsLog:
    """The metrics of one run, written to a file of JSON lines and to trackers.

    Args:
        place: a folder, for ``metrics.jsonl``, or a file that ends with ``.jsonl``; ``None``: no file.
        trackers: the names of trackers, such as ``"tensorboard"``.
        name: the name of the run in the trackers.
        settings: the settings of the run, for the trackers.

    Raises:
        ValueError: a place that cannot be written to, or a tracker that is not installed.
    """

    def __init__(
        self,
        place: Path | str | None,
        trackers: Sequence[str] | str = (),
        name: str = "genmod",
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.path: Path | None = None
        if place is not None:
            whole = str(place).endswith(".jsonl")
            self.path = check_file(place) if whole else check_folder(place) / FILE
        self.trackers = check_trackers(trackers)
        self.active = self.path is not None or bool(self.trackers)
        self.name, self.settings = name, dict(settings or {})
        self._open: list[Any] | None = None

    def restart(self, stage: int, step: int) -> None:
        """Drop the lines of steps that are made again, and of a line that was cut off."""
        if self.path is None or not self.path.exists():
            return
        kept = [
            row for row in read_metrics(self.path) if (row["stage"], row["step"]) <= (stage, step)
        ]
        write_text(self.path, "".join(f"{json.dumps(row)}\n" for row in kept))

    def log(
        self, stage: int, step: int, values: Mapping[str, float | None], before: int = 0
    ) -> None:
        """Write the numbers of one step. NaN and infinity become ``null``.

        Args:
            stage: the number of the stage.
            step: the number of the step in its stage.
            values: the numbers by name.
            before: the steps of earlier stages: the steps of a tracker must not begin anew.
        """
        plain = {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in values.items()
        }
        if self.path is not None:
            append_text(self.path, json.dumps({"stage": stage, "step": step, **plain}) + "\n")
        for tracker in self._started():
            known = {name: value for name, value in plain.items() if value is not None}
            tracker.log(known, step=before + step)

    def close(self) -> None:
        """Close the trackers. A later :meth:`log` opens them again."""
        for tracker in self._open or ():
            tracker.finish()
        self._open = None

    def _started(self) -> list[Any]:
        if self._open is None:
            self._open = [self._start(name) for name in self.trackers]
        return self._open

    def _start(self, name: str) -> Any:
        # Imported late: accelerate takes a second, and most runs have no trackers.
        import_module("accelerate").PartialState()
        kind = import_module("accelerate.tracking").LOGGER_TYPE_TO_CLASS[name]
        folder = {} if not kind.requires_logging_directory else {"logging_dir": str(self._folder())}
        tracker = kind(self.name, **folder)
        tracker.start()
        plain = {k: v for k, v in self.settings.items() if isinstance(v, bool | int | float | str)}
        tracker.store_init_configuration(plain)
        return tracker

    def _folder(self) -> Path:
        return Path("runs") if self.path is None else self.path.parent


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """The lines of a file of metrics, without a last line that was cut off.

    Raises:
        ValueError: a line in the middle that is not JSON.
    """
    rows: list[dict[str, Any]] = []
    lines = read_text(path, "move the file away").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**row, "stage": int(row["stage"]), "step": int(row["step"])})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if number != len(lines):
                raise invalid(
                    f"line {number} of {path}, which is no line of metrics",
                    "one JSON object a line, with a stage and a step",
                    "move the file away",
                ) from error
    return rows


# ---------------------------------------------------------------------- the progress bar

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
        if validation is not None and (self.best is None or validation.score >= self.best.score):
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
