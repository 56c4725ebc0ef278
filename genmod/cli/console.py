"""What the commands share: errors as one sentence with an exit code, and files by their ending."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.text import Text
from torch import Tensor

from genmod.checks import invalid
from genmod.files import write_atomically, write_text
from genmod.spec import Column, DataSpec

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


def write_rows(
    path: Path, rows: Tensor, spec: DataSpec, copies: int = 1, observed: Tensor | None = None
) -> None:
    """Rows as ``.npy``, or flat as ``.csv``: those of a table with its names and its values.

    Args:
        path: the file.
        rows: ``(N, *event)``.
        spec: the description of the rows.
        copies: how many copies of one table the rows are, one after another. A column numbers them.
        observed: which entries are not missing, like the rows. A missing one is an empty cell of a
            ``.csv``, and NaN in a ``.npy``.
    """
    if path.suffix not in (".npy", ".csv"):
        raise invalid(
            f"--out {path}",
            "a file that ends in .npy, .csv, or .png for images",
            "choose one of these endings",
        )
    if path.suffix == ".npy":
        if observed is not None:
            real = rows if rows.is_floating_point() else rows.double()
            rows = real.masked_fill(~observed, float("nan"))
        with write_atomically(path) as beside, beside.open("wb") as file:
            np.save(file, rows.numpy(), allow_pickle=False)
        return
    columns: dict[str, Sequence[object]] = {}
    if copies > 1:
        columns["copy"] = [number for number in range(copies) for _ in range(len(rows) // copies)]
    flat = rows.flatten(1)
    seen = torch.ones_like(flat, dtype=torch.bool) if observed is None else observed.flatten(1)
    known = spec.columns or (None,) * flat.shape[1]
    # NumPy's numbers: their text is as short as their precision allows.
    for place, (column, numbers, there) in enumerate(
        zip(known, flat.T.numpy(), seen.T.tolist(), strict=True)
    ):
        columns[f"x{place}" if column is None else column.name] = [
            _cell(column, number) if shown else ""
            for number, shown in zip(numbers, there, strict=True)
        ]
    write_text(path, csv_text(columns))


def _cell(column: Column | None, number: Any) -> object:
    """An entry of a table as it stands in a file."""
    if column is None or column.is_real:
        return number
    return int(number) if column.values is None else column.values[int(number)]
