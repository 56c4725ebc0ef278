"""What the commands share: errors as one sentence with an exit code, and tables as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

REFUSED, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: bad input; a computation that failed; Ctrl-C."""


@contextmanager
def sentences(stopped: str = "stopped") -> Iterator[Console]:
    """A console; errors become one sentence and an exit code.

    Args:
        stopped: what is printed after Ctrl-C.
    """
    console = Console()
    try:
        yield console
    except (ValueError, OSError) as error:
        _say(error)
        raise typer.Exit(REFUSED) from error
    except ArithmeticError as error:
        _say(error)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt:
        console.print(stopped, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None


def _say(error: Exception) -> None:
    text = Text(" ".join(str(error).split()), style="red")
    Console(stderr=True).print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Print a line beside the result, on standard error."""
    Console(stderr=True).print(Text(text, style="yellow"), soft_wrap=True)


def plain(console: Console, text: str) -> None:
    """Print text as it is: no markup, because it may hold brackets, and no line breaks of its own."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def wrote(console: Console, path: Path) -> None:
    """Print that a file was written."""
    plain(console, f"wrote {path}")


def csv_text(columns: Mapping[str, Sequence[object]]) -> str:
    """Columns by name as a CSV, a row a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
