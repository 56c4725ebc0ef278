"""Torch's own generators: restarted from a key, put back, and watched for their use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class TorchDraws:
    """Whether torch's own generators were used inside a block; known when the block has ended."""

    used = False


@contextmanager
def torch_from(
    seed: int, drawn: TorchDraws, resumed: list[tuple[torch.Generator, Tensor]] | None = None
) -> Iterator[None]:
    """Torch's own generators, started at a seed (or where they stopped), and put back afterwards."""
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators += torch.cuda.default_generators
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    for generator, state in resumed or []:
        generator.set_state(state)
    started = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        ended = [generator.get_state() for generator in generators]
        if any(not torch.equal(a, b) for a, b in zip(started, ended, strict=True)):
            drawn.used = True
        if resumed is not None:
            resumed[:] = zip(generators, ended, strict=True)
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def by_rows(
    pieces: Iterable[slice],
    key: Callable[[slice], AbstractContextManager[TorchDraws]],
    run: Callable[[slice], T],
) -> Iterator[T]:
    """Run pieces of a batch under their keys; row by row once one of them used torch's own generators.

    A distribution of torch's gives all rows from one generator, so that a row's number depends on the
    rows beside it. Alone under its key, it depends on the key only.

    Args:
        pieces: slices of the rows, in order.
        key: the noise of some rows: ``lambda rows: keyed(seed, ids=ids[rows])``.
        run: what to do with some rows; its result for a piece may be thrown away and computed again.

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
