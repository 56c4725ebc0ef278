"""One display for all members: a row for each that is at work."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.text import Text

from genmod.compare.events import Began, Ended, Event, Failed, Progressed, Scored
from genmod.training.progress import columns


class Display:
    """Rows of the members that are at work; a context manager.

    Args:
        shown: whether anything is printed.
        console: where; rich's own by default.
    """

    def __init__(self, shown: bool, console: Console | None = None) -> None:
        self.progress = Progress(*columns(), console=console, disable=not shown)
        self.rows: dict[str, TaskID] = {}
        self.steps: dict[str, int] = {}

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def tell(self, event: Event) -> None:
        """Show what is told of a member."""
        match event:
            case Began(name, steps):
                self.steps[name] = steps
                self.rows[name] = self.progress.add_task(name, total=steps, said="")
            case Progressed(name, step, said):
                self.progress.update(self.rows[name], completed=step, said=said)
            case Scored(name):
                said = "trained; scoring the test part"
                self.progress.update(self.rows[name], completed=self.steps[name], said=said)
            case Ended(name):
                self._forget(name)
            case Failed(name, message):
                self._forget(name)
                if not self.progress.disable:
                    # No markup: a message may hold brackets of its own.
                    self.progress.console.print(Text(f"{name} failed: {message}", style="red"))

    def _forget(self, name: str) -> None:
        """Take a row away; a member may fail before it has one."""
        if name in self.rows:
            self.progress.remove_task(self.rows.pop(name))
