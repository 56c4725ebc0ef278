r"""Keyed noise: reproducible random numbers, one stream for each row. All noise of a bound is drawn here.

Outside :func:`keyed`, the functions of this module draw from torch's own generator. Inside, the noise of
a row is a function of ``(seed, step, call, row id)``. A row then gets the same numbers in any batch, in
any order, in any process, whatever was drawn before. Rows are drawn in blocks, and the rows of the batch
are taken out of them. On one kind of device the numbers are equal bit for bit.

Inside :func:`seeded`, each row has a seed of its own, and its noise depends on that seed alone.

Both restart torch's own generators from the key and restore them afterwards. So a distribution of
torch's own, drawn by :func:`draw`, gives the same numbers for the same seed. Such numbers depend on the
batch, not on row ids: :func:`genmod.chunks.by_rows` therefore runs rows one at a time where they occur.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import Token
from dataclasses import replace
from functools import wraps
from types import TracebackType
from typing import SupportsIndex, TypeVar

import torch
from torch import Tensor

from genmod.checks import invalid, whole_number
from genmod.random.streams import TORCH, SeededRows, Stream, TorchDraws, current, mix
from genmod.random.streams import draw as draw
from genmod.random.streams import normal as normal
from genmod.random.streams import normal_like as normal_like
from genmod.random.streams import uniform as uniform

__all__ = ["draw", "keyed", "normal", "normal_like", "seeded", "uniform"]

T = TypeVar("T")

BLOCK = 256
"""Rows that are drawn together where ids are given. The noise depends on this number."""


@contextmanager
def keyed(
    seed: SupportsIndex,
    step: SupportsIndex = 0,
    *,
    ids: Tensor | Sequence[int] | None = None,
    start: int = 0,
    block: int | None = None,
) -> Iterator[TorchDraws]:
    """Inside this block, the noise of a row depends on ``(seed, step, call, row id)`` alone.

    Args:
        seed: any whole number.
        step: the step of training or of evaluation.
        ids: the id of each row, ``(B,)``, at least 0, such as its index in the data set. By default
            ``start, start + 1, ...``.
        start: the id of the first row of the batch.
        block: how many rows are drawn together, such as the global batch size in training. By default
            256 with ``ids``, and the rows of the batch without.

    Yields:
        A record of whether torch's own generators were used, for :func:`genmod.chunks.by_rows`.

    Raises:
        ValueError: ``start`` without a block; ids together with ``start``; negative ids; a seed that is
            not a whole number.

    >>> from genmod.random import normal
    >>> with keyed(0, step=3):
    ...     whole = normal((4, 2))
    >>> with keyed(0, step=3, start=2, block=4):
    ...     part = normal((2, 2))
    >>> bool((whole[2:] == part).all())
    True

    >>> with keyed(0, ids=range(300)):
    ...     whole = normal((300, 2))
    >>> with keyed(0, ids=[299, 7]):
    ...     part = normal((2, 2))
    >>> bool((whole[[299, 7]] == part).all())
    True
    """
    if not (start >= 0 and (block is None or block >= 1) and not (block is None and start)):
        raise invalid(
            f"start={start} with block={block}",
            "start=0, or a block of at least one row",
            "pass block=the global batch size if the batch is a part of it",
        )
    rows = None if ids is None else _row_ids(ids, start)
    key = whole_number(seed, "seed"), whole_number(step, "step")
    if rows is not None:
        block = block or BLOCK
        start = int(rows[0]) if len(rows) else 0
    drawn = TorchDraws()
    token = current.set(Stream(key, start, block, rows))
    try:
        with _torch_from(mix(*key, TORCH, start), drawn):
            yield drawn
    finally:
        current.reset(token)


def _row_ids(ids: Tensor | Sequence[int], start: int) -> Tensor:
    found = torch.as_tensor(ids if isinstance(ids, Tensor) else list(ids)).cpu()
    if found.numel() == 0:
        found = found.long()
    if found.ndim != 1 or found.is_floating_point() or found.dtype is torch.bool:
        raise invalid(
            f"ids of type {found.dtype} and shape {tuple(found.shape)}",
            "whole numbers of shape (B,)",
            "pass the index of each row in its data set",
        )
    if start > 0:
        raise invalid(f"ids and start={start}", "only one of the two", "leave start out")
    found = found.long()
    lowest = int(found.min()) if len(found) else 0
    if lowest < 0:
        raise invalid(f"an id of {lowest}", "ids of at least 0", "number the rows from 0")
    return found


class seeded:  # noqa: N801  a context manager, like keyed
    """Inside this block, the noise of row ``i`` depends on ``seeds[i]`` alone.

    It does not depend on the number of rows, their order or the other seeds. If the same object is
    entered again, the noise continues where it stopped, so that a long computation can be split. Each
    draw restarts a generator for each row, which is slow: use it to sample, not to train.

    Args:
        seeds: one whole number for each row of the batch.

    >>> from genmod.random import normal
    >>> with seeded([3, 1, 4]):
    ...     whole = normal((3, 2))
    >>> with seeded([4]):
    ...     alone = normal((1, 2))
    >>> bool((whole[2:] == alone).all())
    True
    """

    def __init__(self, seeds: Iterable[SupportsIndex]) -> None:
        self._rows = SeededRows(tuple(whole_number(seed, "seed") for seed in seeds))
        self._torch: list[tuple[torch.Generator, Tensor]] = []
        self._drawn = TorchDraws()
        self._entered: list[
            tuple[Token[Stream | SeededRows | None], AbstractContextManager[object]]
        ] = []

    def __enter__(self) -> TorchDraws:
        first = self._rows.seeds[0] if self._rows.seeds else 0
        own = _torch_from(mix(first, TORCH), self._drawn, self._torch)
        own.__enter__()
        self._entered.append((current.set(self._rows), own))
        return self._drawn

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        token, own = self._entered.pop()
        current.reset(token)
        own.__exit__(None, None, None)


@contextmanager
def _torch_from(
    seed: int, drawn: TorchDraws, resumed: list[tuple[torch.Generator, Tensor]] | None = None
) -> Iterator[None]:
    """A block in which torch's generators start at a seed (or where they stopped); restored afterwards."""
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


def replayable(function: Callable[..., T]) -> Callable[..., T]:
    """A function that draws the same keyed noise in every call, as activation checkpointing needs.

    ``torch.utils.checkpoint`` calls a function again in the backward pass, outside of :func:`keyed`. A
    wrapped function gets the noise of its first call there. Wrap it anew for each checkpoint.

    >>> from genmod.random import normal
    >>> with keyed(0):
    ...     noise = replayable(normal)
    ...     first = noise((2, 3))
    >>> bool((noise((2, 3)) == first).all())
    True
    """
    memory: list[Stream | SeededRows | None] = []

    @wraps(function)
    def call(*args: object) -> T:
        if not memory:
            now = current.get()
            # New generators, because those of the stream may be in use in another thread.
            memory.append(None if now is None else replace(now, generators={}))
            return function(*args)
        past = memory[0]
        token = current.set(None if past is None else replace(past))
        try:
            return function(*args)
        finally:
            current.reset(token)

    return call
