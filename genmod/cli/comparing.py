"""``genmod compare``: progress while it runs, a table and the files when it is done."""

from __future__ import annotations

from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.table import Table

from genmod.compare import compare
from genmod.compare.writing import row
from genmod.evaluation import Report

SHOWN = ("model", "bits/dim", "nats", "stamp", "seconds")
"""The columns that fit a terminal; the report has the others."""


def run(out: Path, seed: int, effort: float, progress: bool) -> None:
    """Compare the family on the digits and print what came of it."""
    # Measured on two cores: a second thread makes no step of networks this small faster, and costs
    # twice the processor time; on a busy machine the threads wait for each other.
    torch.set_num_threads(1)
    console = Console()

    def said(report: Report) -> None:
        bits = report.bits_per_dim
        value = f"{report.value} nats" if bits is None else f"{bits.mean:.3f} bits/dim"
        console.print(f"[bold]{report.name}[/]: {value} ({report.stamp.value})")

    try:
        comparison = compare(out, seed=seed, effort=effort, progress=progress, said=said)
    except ValueError as error:
        console.print(f"[red]{error}[/]", highlight=False)
        raise typer.Exit(2) from error
    table = Table(*SHOWN, title="Test data, per sample")
    for report in comparison.reports:
        cells = row(report)
        table.add_row(*(cells[column] for column in SHOWN))
    console.print(table)
    for file in comparison.files:
        console.print(f"wrote {file}", highlight=False, soft_wrap=True)
