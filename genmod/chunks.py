"""Chunks: how many rows are computed together, by one rule for evaluation, validation and sampling.

Results do not depend on the chunks: noise belongs to a row's id (see :mod:`genmod.random`), not to a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import SupportsIndex, TypeVar

import torch
from torch import Tensor

from genmod import random
from genmod.checks import check_at_least, invalid, whole_number
from genmod.random.streams import TorchDraws
from genmod.tensors import Shape, size

T = TypeVar("T")

COPIES = 200
"""How many tensors of an event's size a network holds at once, about (from a U-Net of width 32)."""
LARGEST = 8192
"""Rows at most, however small an event is."""

_limit: ContextVar[int | None] = ContextVar("limit", default=None)
_computed: ContextVar[tuple[slice | Tensor, int] | None] = ContextVar("computed", default=None)


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Inside this block, a chunk is planned to take about ``size`` bytes.

    Without it, 64 MB on a CPU, whose caches are small, and 2 GB elsewhere.

    >>> with memory_limit(16 << 20):
    ...     rows_per_chunk((1, 8, 8))
    256
    """
    if size < 1:
        raise invalid(f"size={size}", "a positive number of bytes", "pass 64 << 20 for 64 MB")
    token = _limit.set(size)
    try:
        yield
    finally:
        _limit.reset(token)


def rows_per_chunk(
    shape: Shape,
    device: torch.device | None = None,
    *,
    copies: int = COPIES,
    batch_size: int | None = None,
) -> int:
    """How many events of a shape are computed together: a power of two, to fill blocks of noise.

    Args:
        shape: of one event.
        device: where they are computed; the CPU by default.
        copies: how many tensors of an event's size are held at once.
        batch_size: the user's own number of rows, which is then returned.

    Raises:
        ValueError: a batch size below 1.

    >>> rows_per_chunk((1, 8, 8)), rows_per_chunk((3, 32, 32)), rows_per_chunk((5,), batch_size=3)
    (1024, 16, 3)
    """
    if batch_size is not None:
        batch_size = whole_number(batch_size, "batch_size")
        check_at_least(batch_size, 1, "batch_size", "leave it out")
        return batch_size
    budget = _limit.get()
    if budget is None:
        budget = 64 << 20 if device is None or device.type == "cpu" else 2 << 30
    fit = max(1, min(LARGEST, budget // (4 * copies * size(shape))))
    return 1 << fit.bit_length() - 1


@contextmanager
def computing(rows: slice | Tensor, total: int) -> Iterator[None]:
    """Inside this block, some of ``total`` rows are computed: a slice, or their positions."""
    token = _computed.set((rows, total))
    try:
        yield
    finally:
        _computed.reset(token)


def own_rows(values: Tensor) -> Tensor:
    """The rows of a tensor that belong to the rows that are computed now.

    A part may hold a number for each row of the whole batch, as a measurement of each. Where a batch is cut
    into chunks, the part sees some rows, and takes theirs.

    >>> with computing(slice(1, 3), total=4):
    ...     own_rows(torch.arange(4)), own_rows(torch.arange(2))
    (tensor([1, 2]), tensor([0, 1]))
    """
    computed = _computed.get()
    if computed is None or len(values) != computed[1]:
        return values
    rows = computed[0]
    return values[rows if isinstance(rows, slice) else rows.to(values.device)]


def chunks(rows: int, most: int) -> list[slice]:
    """Slices of at most ``most`` rows that cover ``rows`` in order.

    >>> chunks(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + most, rows)) for start in range(0, rows, most)]


def run_in_chunks(
    rows: int,
    most: int,
    run: Callable[[slice], Tensor],
    seeds: Sequence[SupportsIndex] | None = None,
) -> Tensor:
    """Call ``run`` on slices of the rows, and return its results as one tensor.

    Args:
        rows: the number of rows.
        most: the largest number of rows in a slice.
        run: from a slice to its results, ``(rows of the slice, *event)``.
        seeds: one for each row. The noise of a row then depends on its seed only.
    """
    check_at_least(whole_number(rows, "n"), 1, "n", "pass n=1 or more")
    pieces = chunks(rows, most)

    def some(piece: slice) -> Tensor:
        with computing(piece, rows):
            return run(piece)

    if seeds is None:
        return torch.cat([some(piece) for piece in pieces])
    keys = list(seeds) if isinstance(seeds, Iterable) else [seeds]
    if len(keys) != rows:
        got, expected = f"{len(keys)} seeds for {rows} samples", "one seed a sample"
        raise invalid(got, expected, "pass seeds=range(n), for example")
    return torch.cat(list(by_rows(pieces, lambda piece: random.seeded(keys[piece]), some)))


def by_rows(
    pieces: Iterable[slice],
    key: Callable[[slice], AbstractContextManager[TorchDraws]],
    run: Callable[[slice], T],
) -> Iterator[T]:
    """Run pieces of a batch, each inside its own key; row by row once one used torch's own generators.

    A distribution of torch's own draws all rows from one generator, so that the number of a row depends
    on the rows before it. If the row is computed alone, its number depends only on its key.

    Args:
        pieces: slices of the rows, in order.
        key: the noise of some rows, for example ``lambda rows: keyed(seed, ids=ids[rows])``.
        run: the computation on some rows. The result of a piece may be discarded and computed again.

    Yields:
        The result of each piece, or of each of its rows.
    """
    alone = False
    for piece in pieces:
        if not alone:
            with key(piece) as drawn:
                found = run(piece)
            alone = drawn.used and piece.stop - piece.start > 1
            if not alone:
                yield found
                continue
        for row in range(piece.start, piece.stop):
            one = slice(row, row + 1)
            with key(one):
                found = run(one)
            yield found
