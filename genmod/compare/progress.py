"""Progress: the events that candidates send during training, and the display of all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from genmod.compare.candidate import Candidate


@dataclass(frozen=True)
class Began:
    """A candidate begins or continues its training of ``steps`` steps."""

    name: str
    steps: int


@dataclass(frozen=True)
class Progressed:
    """A candidate has made ``step`` steps; ``text`` shows its bound."""

    name: str
    step: int
    text: str


@dataclass(frozen=True)
class Scoring:
    """A candidate is trained, and its evaluation begins."""

    name: str


@dataclass(frozen=True)
class Ended:
    """A candidate is done, and its files are written."""

    name: str


@dataclass(frozen=True)
class Failed:
    """A candidate failed; ``message`` gives the reason."""

    name: str
    message: str


@dataclass(frozen=True)
class Drawing:
    """All candidates are done, and figure ``done + 1`` of ``total`` is being drawn."""

    title: str
    done: int
    total: int


Event: TypeAlias = Began | Progressed | Scoring | Ended | Failed | Drawing
OnEvent: TypeAlias = Callable[[Event], None]

SCORING = 0.2
"""The share of evaluation in the time of a candidate, to estimate the time left."""
FIGURES = 0.08
"""The share of figures in the whole time."""
SILENCE = 20.0
"""Seconds between two lines of progress, where there is no terminal."""


@dataclass
class AtWork:
    """The progress of a candidate that is being trained or evaluated."""

    steps: int
    began: float
    step: int = 0
    first: int | None = None
    text: str = ""
    scoring: bool = False

    @property
    def fraction(self) -> float:
        """The share of the candidate's work that is done."""
        if self.scoring:
            return 1 - SCORING
        return (1 - SCORING) * self.step / self.steps


@dataclass
class Progress:
    """The progress of a comparison: candidates that are done or at work, and the time left.

    Args:
        candidates: all candidates.
        done: the names of those that are done.
        clock: returns the time in seconds.
    """

    candidates: Sequence[Candidate]
    done: set[str]
    clock: Callable[[], float] = time.monotonic
    rows: dict[str, AtWork] = field(default_factory=dict)
    drawing: Drawing | None = None

    def __post_init__(self) -> None:
        self.began = self.clock()
        self.costs = {each.name: each.cost for each in self.candidates}
        self.before = self.fraction

    def update(self, event: Event) -> None:
        """Record an event."""
        match event:
            case Began(name, steps):
                self.rows[name] = AtWork(steps, self.clock())
            case Progressed(name, step, text):
                row = self.rows[name]
                row.step, row.text = step, _bound(text)
                if row.first is None:
                    # The steps of an earlier run took no time in this one.
                    row.first = step
                    skipped = (1 - SCORING) * (step - 1) / row.steps
                    self.before += self._share(name) * skipped
            case Scoring(name):
                self.rows[name].scoring = True
                self.rows[name].began = self.clock()
            case Ended(name):
                self.done.add(name)
                self.rows.pop(name, None)
            case Failed(name):
                self.rows.pop(name, None)
            case Drawing():
                self.drawing = event

    def _share(self, name: str) -> float:
        """The share of a candidate in the whole time."""
        return (1 - FIGURES) * self.costs.get(name, 1.0) / sum(self.costs.values())

    @property
    def fraction(self) -> float:
        """The share of the whole work that is done."""
        if self.drawing is not None:
            return 1 - FIGURES * (1 - self.drawing.done / self.drawing.total)
        found = sum(self._share(name) for name in self.done if name in self.costs)
        return found + sum(self._share(name) * row.fraction for name, row in self.rows.items())

    @property
    def seconds_left(self) -> float | None:
        """The estimated time left; ``None`` at the beginning, when it is not known."""
        made = self.fraction - self.before
        passed = self.clock() - self.began
        if made < 0.01 or passed < 1:
            return None
        return passed * (1 - self.fraction) / made

    def headline(self) -> str:
        """The number of models done, and the time left."""
        number = len(self.done)
        left = self.seconds_left
        found = f"{number} of {len(self.candidates)} models done"
        if self.drawing is not None:
            found += f" · drawing {self.drawing.done + 1} of {self.drawing.total}"
        return found + ("" if left is None else f" · about {minutes(left)} left")

    def lines(self) -> list[tuple[str, str, float, str]]:
        """For each candidate at work: its name, its stage, the share of the stage done, its bound."""
        found = []
        for name, row in self.rows.items():
            if row.scoring:
                stage = f"scoring, {minutes(self.clock() - row.began)}"
                found.append((name, stage, 1.0, row.text))
            else:
                stage = f"training {row.step}/{row.steps}"
                found.append((name, stage, row.step / row.steps, row.text))
        if self.drawing is not None:
            done = self.drawing.done / self.drawing.total
            found.append((self.drawing.title, "drawing", done, ""))
        return found


def _bound(text: str) -> str:
    """The bound in a line of training, which may hold the loss before it and the best bound after it."""
    parts = [part for part in text.split(", ") if not part.startswith("loss ")]
    return parts[0] if parts else text


def minutes(seconds: float) -> str:
    """Format a time as minutes and seconds.

    >>> minutes(75.4)
    '1:15'
    """
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


class Display:
    """The display of a comparison's progress; a context manager.

    On a terminal it stays below the printed lines. Elsewhere a line is printed every 20 seconds.

    Args:
        progress: the progress of the comparison.
        enabled: whether anything is printed.
        console: where to print; by default the standard output.
    """

    def __init__(self, progress: Progress, enabled: bool, console: Console | None = None) -> None:
        self.progress, self.enabled = progress, enabled
        self.console = Console() if console is None else console
        self.live: Live | None = None
        self.ended = threading.Event()
        self.lock = threading.Lock()

    def __enter__(self) -> Display:
        if self.enabled and self.console.is_terminal:
            self.live = Live(
                console=self.console,
                get_renderable=self.render,
                refresh_per_second=4,
                transient=True,
            )
            self.live.start()
        elif self.enabled:
            threading.Thread(target=self._repeat, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ended.set()
        if self.live is not None:
            self.live.stop()

    def on_event(self, event: Event) -> None:
        """Record and show an event."""
        with self.lock:
            self.progress.update(event)
        if isinstance(event, Failed):
            self.print(Text(f"{event.name} failed: {event.message}", style="red"))

    def print(self, text: str | Text) -> None:
        """Print a line above the display, without markup, because text can contain brackets."""
        if self.enabled:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def render(self) -> Group:
        """The current display."""
        with self.lock:
            lines, headline = self.progress.lines(), self.progress.headline()
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=17, no_wrap=True, overflow="ellipsis")
        table.add_column(width=20, no_wrap=True)
        table.add_column(width=10)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        for name, stage, part, text in lines:
            table.add_row(name, stage, ProgressBar(1.0, part, width=10), text)
        return Group(Text(headline, overflow="ellipsis", no_wrap=True), table)

    def plain(self) -> str:
        """The current display in one line, for a log."""
        with self.lock:
            lines, headline = self.progress.lines(), self.progress.headline()
        return " · ".join([headline, *(f"{name} {stage}" for name, stage, _, _ in lines)])

    def _repeat(self) -> None:
        while not self.ended.wait(SILENCE):
            self.print(self.plain())
