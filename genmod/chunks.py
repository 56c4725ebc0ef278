"""How many rows are computed together: one rule, in bytes, for evaluation, validation and sampling.

Results do not depend on it: noise belongs to a row's id (see :mod:`genmod.random`), not to a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from genmod.checks import require
from genmod.shapes import size
from genmod.types import Shape

COPIES = 64
"""Numbers that a network holds for each entry of an event while it runs without gradients."""
MOST = 8192
"""Rows of a chunk at most: more are no faster."""

_limit: ContextVar[int] = ContextVar("limit", default=2**27)


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Inside this block, a chunk is planned to take about so many bytes; 128 MiB without it.

    >>> with memory_limit(2**24):
    ...     rows_per_chunk((3, 32, 32))
    16
    >>> rows_per_chunk((3, 32, 32))
    128
    """
    require(size >= 1, f"size={size}", "a positive number of bytes", "pass 2**27 for 128 MiB")
    token = _limit.set(size)
    try:
        yield
    finally:
        _limit.reset(token)


def rows_per_chunk(
    event_shape: Shape, copies: int = COPIES, *, batch_size: int | None = None
) -> int:
    """How many rows of an event shape are computed together: a power of two, at least 1.

    Args:
        event_shape: of one row.
        copies: 4-byte numbers held for each entry of a row: channels of a network, or the values of
            integer data where all their masses are computed.
        batch_size: the user's own number of rows, which is then returned as it is.

    Raises:
        ValueError: a batch size below 1.

    >>> rows_per_chunk((1, 8, 8)), rows_per_chunk((1, 28, 28)), rows_per_chunk((5,), batch_size=3)
    (8192, 512, 3)
    """
    if batch_size is not None:
        require(
            batch_size >= 1, f"batch_size={batch_size}", "at least 1", "leave it out to let it fit"
        )
        return int(batch_size)
    fit = _limit.get() // (4 * copies * size(event_shape))
    return min(MOST, 1 << max(fit, 1).bit_length() - 1)


def chunks(rows: int, most: int) -> list[slice]:
    """Slices of at most ``most`` rows that cover ``rows`` in order.

    >>> chunks(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + most, rows)) for start in range(0, rows, most)]
