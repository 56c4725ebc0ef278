"""What the commands print and write: errors as one sentence, tables, pictures, and files of rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text
from torch import Tensor

from genmod.checks import invalid
from genmod.data.filling import cell_of, filled_text
from genmod.data.readers import read_text_cells
from genmod.data.sources import TableSource, source_of
from genmod.files import as_path, write_atomically, write_text
from genmod.model import LatentModel
from genmod.runs.figures import draw_images, save_figure
from genmod.runs.opening import open_model
from genmod.spec import DataSpec
from genmod.tensors import is_image

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


@dataclass(frozen=True)
class Canvas:
    """The options that all commands share which draw.

    Args:
        run: the folder of the run.
        out: the file; in the run's folder by default.
        seed: the seed of the noise.
        device: the device to compute on.
    """

    run: Path
    out: Path | None
    seed: int
    device: str | None

    @property
    def title(self) -> str:
        """The name of the run."""
        return as_path(self.run).name

    def model(self) -> LatentModel:
        """The model of the run."""
        return open_model(self.run, self.device)

    def path(self, name: str, drawn: bool) -> Path:
        """The file that is written: a picture, or else a CSV."""
        if self.out is not None:
            return as_path(self.out)
        place = as_path(self.run)
        return place / "figures" / f"{name}.png" if drawn else place / f"{name}.csv"

    def save(self, console: Console, figure: Figure, name: str) -> None:
        """Write a figure as a PNG."""
        path = self.path(name, drawn=True)
        if path.suffix != ".png":
            raise invalid(f"--out {path}", "a file that ends in .png", "rename it")
        save_figure(figure, path)
        wrote(console, path)

    def write(
        self,
        console: Console,
        name: str,
        rows: Mapping[str, Tensor],
        spec: DataSpec,
        observed: Tensor | None = None,
    ) -> None:
        """Rows of images as a picture, or all numbers, one group after another, with one mask for all."""
        path = self.path(name, drawn=is_image(spec.shape))
        if path.suffix == ".png":
            if not is_image(spec.shape):
                raise invalid(
                    f"--out {path} for rows of shape {spec.shape}",
                    "a file for numbers",
                    "end it in .npy or .csv",
                )
            draw_images(path, dict(rows), spec, self.title)
        else:
            write_rows(path, torch.cat(list(rows.values())), spec, observed=observed)
        wrote(console, path)


def write_completed(path: Path, data: str, draws: Tensor, observed: Tensor, spec: DataSpec) -> None:
    """Completed copies of a file, one below the other, as ``.csv`` or ``.npy``.

    A CSV has all columns of the file in its order, and its own text in each cell that was not drawn.

    Args:
        path: the file to write.
        data: the file with empty cells.
        draws: the copies, ``(n, N, *event)``.
        observed: which entries are not missing, ``(N, *event)``.
        spec: the description of the rows.
    """
    source = source_of(data)
    if path.suffix == ".npy" or not isinstance(source, TableSource) or spec.columns is None:
        write_rows(path, draws.flatten(0, 1), spec, len(draws))
        return
    check_ending(path)
    columns = filled_text(text_of(as_path(data), source), draws, observed, spec.columns)
    write_text(path, csv_text(_numbered(columns, len(draws))))


def text_of(path: Path, source: TableSource) -> Mapping[str, Sequence[str]]:
    """The text of all cells of a table, as a text file has it; of other files, as a text file would."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return read_text_cells(path)
    return {
        each.name: [
            f"{cell:.17g}" if isinstance(cell, float) else str(cell) if there else ""
            for cell, there in zip(each.cells.tolist(), each.observed.tolist(), strict=True)
        ]
        for each in source.columns
    }


def _numbered(
    columns: Mapping[str, Sequence[object]], copies: int
) -> Mapping[str, Sequence[object]]:
    """The columns after one that numbers the copies, if there are several."""
    if copies == 1:
        return columns
    number = "copy"
    while number in columns:  # the table has a column of that name
        number += "_"
    count = len(next(iter(columns.values()))) // copies
    return {number: [each for each in range(copies) for _ in range(count)], **columns}


def check_ending(path: Path) -> None:
    """Require the name of a file of rows."""
    if path.suffix not in (".npy", ".csv"):
        raise invalid(
            f"--out {path}",
            "a file that ends in .npy, .csv, or .png for images",
            "choose one of these endings",
        )


def write_rows(
    path: Path,
    rows: Tensor,
    spec: DataSpec,
    copies: int = 1,
    observed: Tensor | None = None,
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
    check_ending(path)
    if path.suffix == ".npy":
        if observed is not None:
            real = rows if rows.is_floating_point() else rows.double()
            rows = real.masked_fill(~observed, float("nan"))
        with write_atomically(path) as beside, beside.open("wb") as file:
            np.save(file, rows.numpy(), allow_pickle=False)
        return
    flat = rows.flatten(1)
    seen = torch.ones_like(flat, dtype=torch.bool) if observed is None else observed.flatten(1)
    known = spec.columns or (None,) * flat.shape[1]
    names = [f"x{place}" if each is None else each.name for place, each in enumerate(known)]
    # NumPy's numbers: their text is as short as their precision allows.
    columns = {
        name: [
            cell_of(column, number) if shown else ""
            for number, shown in zip(numbers, there, strict=True)
        ]
        for name, column, numbers, there in zip(
            names, known, flat.T.numpy(), seen.T.tolist(), strict=True
        )
    }
    write_text(path, csv_text(_numbered(columns, copies)))
