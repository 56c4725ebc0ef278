"""``genmod compare``: progress while it runs, a table and the files when it is done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import typer
from rich import get_console
from rich.table import Table
from rich.text import Text

from genmod.cli.choices import Data
from genmod.compare import Comparison, compare
from genmod.compare.writing import table
from genmod.data import Dataset, binarized, digits, fashion_mnist, mnist
from genmod.evaluation import Report

SHOWN = ("model", "bits/dim", "nats", "stamp", "seconds")
"""The columns that fit a terminal; the report has the others."""

SHOWN_OF_BITS = ("model", "nats", "irreducible nats", "stamp", "seconds")
"""The same for binarized data, which are customarily priced in nats."""

BUDGET = {Data.MNIST: 7.0, Data.FASHION_MNIST: 7.0}
"""Minutes that each model may train if nobody says: for what would else take hours on a slow machine."""

_INTERRUPTED = 130
"""The exit status of a command that Ctrl-C has ended."""


@dataclass(frozen=True)
class Request:
    """What the command was asked for: see its options."""

    data: Data
    root: Path | None
    binarize: bool
    out: Path
    models: list[str] | None
    seed: int
    effort: float
    minutes: float | None
    jobs: int | None
    fresh: bool
    progress: bool


def run(request: Request) -> None:
    """Compare the family on some data and print what came of it."""
    console = get_console()
    try:
        comparison = _compare(request)
    except ValueError as error:
        console.print(Text(str(error), style="red"))
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        console.print(f"stopped; the same command goes on with what is in {request.out}")
        raise typer.Exit(_INTERRUPTED) from None
    rows = table(comparison.reports)
    columns = SHOWN_OF_BITS if rows[0].keys() >= set(SHOWN_OF_BITS) else SHOWN
    printed = Table(*columns, title="Test data, per sample")
    for cells in rows:
        printed.add_row(*(cells[column] for column in columns))
    console.print(printed)
    for file in comparison.files:
        console.print(f"wrote {file}", highlight=False, soft_wrap=True)


def load(request: Request) -> Dataset:
    """The data that were asked for.

    Raises:
        ValueError: files that are neither there nor to be had.
    """
    match request.data:
        case Data.DIGITS:
            data = digits(request.seed)
        case Data.MNIST:
            data = mnist(request.root, request.seed)
        case Data.FASHION_MNIST:
            data = fashion_mnist(request.root, request.seed)
    return binarized(data, request.seed) if request.binarize else data


def _compare(request: Request) -> Comparison:
    return compare(
        request.out,
        load(request),
        models=request.models,
        seed=request.seed,
        effort=request.effort,
        minutes=BUDGET.get(request.data) if request.minutes is None else request.minutes,
        jobs=max(2, os.cpu_count() or 1) if request.jobs is None else request.jobs,
        fresh=request.fresh,
        progress=request.progress,
        said=say,
    )


def say(report: Report) -> None:
    """Print a report as soon as there is one."""
    # By the console of the progress display, which then stays below.
    bits = report.bits_per_dim
    value = f"{report.value} nats" if bits is None else f"{bits.mean:.3f} bits/dim"
    if report.entropy_floor is not None:
        value = f"{report.value} nats, of which {report.entropy_floor:.2f} irreducible"
    get_console().print(f"[bold]{report.name}[/]: {value} ({report.stamp.value})")
