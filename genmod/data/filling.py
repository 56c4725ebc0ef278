"""Tables with their empty cells filled in: frames, and the text of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genmod.arrays import Context
from genmod.checks import invalid
from genmod.columns import CODED, Column
from genmod.data.cells import code_of, codes_of
from genmod.data.readers import from_frame, is_frame
from genmod.data.tables import TableSettings, numbers
from genmod.signatures import checked

if TYPE_CHECKING:
    from genmod.model import LatentModel

_EMPTY = ("a table with empty cells", "leave a cell empty where its value is to be drawn")


@checked
def impute(
    model: LatentModel,
    table: object,
    n: int = 1,
    importance_samples: int = 64,
    *,
    context: Context = None,
    seed: int = 0,
) -> list[Any]:
    """Multiple imputation of a data frame: ``n`` copies of it, their empty cells filled in.

    Cells that are not empty stay as they are. So do columns that the model does not have, the order of the
    columns, and the index. See :meth:`genmod.model.LatentModel.impute`, which does the same with tensors.

    Args:
        model: a model of a table that can be weighed: a VAE, an HVAE, a latent diffusion.
        table: a frame of pandas, polars, Arrow or a like library, with at least the columns of the model.
        n: how many completed copies. Each is one joint draw of the empty cells.
        importance_samples: draws of the latents for each row; exact as they grow.
        context: what the model is conditioned on, one row a row of the table.
        seed: the seed of the draws of the first row; the next row has the next seed.

    Returns:
        The copies, frames of the same library. A column keeps its type, unless it holds whole numbers and
        the model draws real ones.

    Raises:
        ValueError: what is no frame; a model of other data; a frame without an empty cell; a cell that its
            column cannot have.

    Reference: Rubin, "Multiple Imputation for Nonresponse in Surveys" (1987), chapter 1; Mattei, Frellsen,
    "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets" (2019), section 3.

    >>> import pandas as pd
    >>> from genmod import VAE, data
    >>> x = [row / 7 for row in range(29)]
    >>> table = pd.DataFrame({"x": [*x, None], "note": "a", "y": [0.0, *x]})
    >>> model = VAE(data.load(table, drop=["note"]), latents=1, width=8)
    >>> (filled,) = data.impute(model, table)
    >>> list(filled.columns), int(filled.isna().sum().sum())
    (['x', 'note', 'y'], 0)
    """
    if not is_frame(table):
        raise invalid(
            f"a table of type {type(table).__name__}",
            "a data frame",
            "pass tensors to model.impute(x, observed)",
        )
    rows, observed, columns = numbers(from_frame(table), TableSettings(spec=model.spec))
    if bool(observed.all()):
        raise invalid("a frame without an empty cell", *_EMPTY)
    seeds = range(seed, seed + len(rows))
    found = model.impute(
        rows.to(torch.get_default_dtype()), observed, n, importance_samples,
        context=context, seeds=seeds,
    )  # fmt: skip
    return [_filled(table, draw.cpu().double(), observed, columns) for draw in found]


def _filled(table: Any, rows: Tensor, observed: Tensor, columns: Sequence[Column]) -> Any:
    """A frame with the cells of ``rows`` where it is empty."""
    import narwhals as nw  # not at the top: only frames need it

    frame = nw.from_native(table, eager_only=True)
    names = {str(name): name for name in frame.columns}
    changed = []
    for place, column in enumerate(columns):
        at = (~observed[:, place]).nonzero().flatten().tolist()
        if not at:
            continue
        series = frame[names[column.name]]
        cells = [cell_of(column, float(rows[row, place])) for row in at]
        if column.kind in CODED:
            cells = _as_spelled(cells, column, series.to_list(), observed[:, place])
        elif not series.dtype.is_numeric():
            # Numbers as text, among marks for missing cells.
            series = nw.new_series(
                series.name, [None] * len(rows), nw.Float64, backend=frame.implementation
            )
            at, cells = list(range(len(rows))), rows[:, place].tolist()
        elif column.is_real and series.dtype.is_integer():
            series = series.cast(nw.Float64)
        changed.append(series.scatter(at, cells))
    return frame.with_columns(*changed).to_native()


def _as_spelled(
    cells: Sequence[object], column: Column, own: Sequence[object], observed: Tensor
) -> list[object]:
    """Values of a category as the table itself spells them: 1 or "1", True or "True"."""
    codes = codes_of(column)
    known: dict[int | None, object] = {}
    for cell, seen in zip(own, observed.tolist(), strict=True):
        if seen:
            spelled = cell.strip() if isinstance(cell, str) else cell
            known.setdefault(code_of(codes, spelled), cell)
    return [known.get(code_of(codes, cell), cell) for cell in cells]


def cell_of(column: Column | None, number: Any) -> Any:
    """An entry of a row as a cell of a table: a number, or the value that a code stands for."""
    if column is None or column.is_real:
        return number
    return int(number) if column.values is None else column.values[int(number)]


def filled_text(
    table: Mapping[str, Sequence[str]], draws: Tensor, observed: Tensor, columns: Sequence[Column]
) -> dict[str, list[object]]:
    """Completed copies of a file, one below the other: its own text where a cell is not to be drawn.

    Args:
        table: the text of all cells by the name of their column.
        draws: the copies, ``(n, N, D)``.
        observed: which entries of the rows are not missing, ``(N, D)``.
        columns: the columns of the rows, ``D`` of them.
    """
    places = {column.name: place for place, column in enumerate(columns)}
    found: dict[str, list[object]] = {}
    for name, text in table.items():
        place = places.get(name)
        if place is None:
            found[name] = [*text] * len(draws)
            continue
        seen = observed[:, place].tolist()
        found[name] = [
            cell if there else cell_of(columns[place], number)
            for copy in draws[:, :, place].numpy()
            for cell, there, number in zip(text, seen, copy, strict=True)
        ]
    return found
