"""Where keyed noise comes from: streams of blocks of rows, or of single rows."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import SupportsIndex

import torch
from torch import Tensor

from genmod.checks import require
from genmod.random.torch_draws import TorchDraws, torch_from
from genmod.shapes import Shape, size

BLOCK = 256
"""Rows that are drawn together where ids are given: part of the key of the noise."""
_MASK = (1 << 64) - 1
_TORCH = 0x70CC
"""Keeps torch's own generators apart from the noise of this module."""


@dataclass
class Stream:
    """The key of a batch of noise, and how many times noise was asked for so far."""

    key: tuple[int, ...]
    start: int
    block: int | None
    ids: Tensor | None = None
    calls: int = 0
    generators: dict[torch.device, torch.Generator] = field(default_factory=dict)

    def rows(self, shape: Shape, device: torch.device, draw: Draw) -> Tensor:
        """The noise of each row of the batch, taken from whole blocks."""
        self.calls += 1
        if self.block is None:
            return draw(shape, self._generator(device, 0))
        ids = self.ids
        if ids is None:
            ids = torch.arange(self.start, self.start + shape[0])
        return self._of_ids(shape, device, draw, self.block, ids)

    def _of_ids(
        self, shape: Shape, device: torch.device, draw: Draw, together: int, ids: Tensor
    ) -> Tensor:
        """The rows with the given ids; several draws of each row lie one batch apart."""
        draws = shape[0] // max(len(ids), 1)
        require(
            shape[0] == draws * len(ids),
            f"noise for {shape[0]} rows inside keyed() with {len(ids)} ids",
            "one id for each row",
            "pass as many ids as the batch has rows",
        )
        block, offset = ids // together, ids % together
        pieces, places = [], []
        for index in block.unique().tolist():
            place = (block == index).nonzero().flatten()
            wanted = offset[place]
            part = _leading(int(wanted.max()) + 1, (together, *shape[1:]), device, draw)
            for copy in range(draws):
                drawn = draw(part, self._generator(device, index, copy))
                pieces.append(drawn[wanted.to(device)])
                places.append(place + copy * len(ids))
        if len(pieces) == 1:
            return pieces[0]
        return torch.cat(pieces)[torch.cat(places).argsort().to(device)]

    def _generator(self, device: torch.device, block: int, copy: int = 0) -> torch.Generator:
        if device not in self.generators:
            self.generators[device] = torch.Generator(device)
        key = (*self.key, self.calls, block, *([copy] if copy else []))
        return self.generators[device].manual_seed(mix(*key))


@dataclass
class SeededRows:
    """A seed for each row, and how many times noise was asked for so far."""

    seeds: tuple[int, ...]
    calls: int = 0
    generators: dict[torch.device, torch.Generator] = field(default_factory=dict)

    def rows(self, shape: Shape, device: torch.device, draw: Draw) -> Tensor:
        """A row from each seed, whatever the others are."""
        require(
            shape[0] == len(self.seeds),
            f"noise for {shape[0]} rows inside seeded() with {len(self.seeds)} seeds",
            "one seed for each row",
            "pass as many seeds as there are samples",
        )
        self.calls += 1
        generator = self.generators.setdefault(device, torch.Generator(device))
        one = (1, *shape[1:])
        return torch.cat(
            [draw(one, generator.manual_seed(mix(seed, self.calls))) for seed in self.seeds]
        )


Draw = Callable[[Shape, torch.Generator | None], Tensor]
current: ContextVar[Stream | SeededRows | None] = ContextVar("stream", default=None)


def mix(*words: int) -> int:
    """A 63-bit key that depends on every word and on their order (SplitMix64, Steele et al. 2014).

    >>> mix(0, 1) != mix(1, 0)
    True
    """
    state = 0
    for word in words:
        state = (state + word + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


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
        ids: the id of each row, ``(B,)``, its index in the data set for example. Left out, they are
            ``start, start + 1, ...``.
        start: the id of the first row of the batch.
        block: how many rows are drawn together: the global batch size in training. Left out, it is 256
            with ``ids``, and the batch itself without.

    Yields:
        Whether torch's own generators were used, for :func:`by_rows`.

    Raises:
        ValueError: a piece that starts later without a block; ids beside ``start``; negative ids; a
            seed that is no whole number.

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
    require(
        start >= 0 and (block is None or block >= 1) and not (block is None and start),
        f"start={start} with block={block}",
        "start=0, or a block of at least one row, the number of rows drawn together",
        "pass block=the global batch size when the batch is a piece of one",
    )
    rows = None if ids is None else _row_ids(ids, start)
    key = whole_number(seed, "seed"), whole_number(step, "step")
    if rows is not None:
        block = block or BLOCK
        start = int(rows[0]) if len(rows) else 0
    drawn = TorchDraws()
    token = current.set(Stream(key, start, block, rows))
    try:
        with torch_from(mix(*key, _TORCH, start), drawn):
            yield drawn
    finally:
        current.reset(token)


def whole_number(value: object, name: str) -> int:
    """A Python int; numpy's and torch's whole numbers are taken, fractions are refused."""
    if not isinstance(value, SupportsIndex):
        raise ValueError(
            f"got {name}={value!r}; expected a whole number; pass {name}=0, or another integer"
        )
    return operator.index(value)


def _row_ids(ids: Tensor | Sequence[int], start: int) -> Tensor:
    found = torch.as_tensor(ids if isinstance(ids, Tensor) else list(ids)).cpu()
    if found.numel() == 0:
        found = found.long()
    require(
        found.ndim == 1 and not found.is_floating_point() and found.dtype is not torch.bool,
        f"ids of type {found.dtype} and shape {tuple(found.shape)}",
        "one whole number a row, (B,)",
        "pass the index of each row in its data set",
    )
    require(start == 0, f"ids beside start={start}", "one of them", "leave start out")
    found = found.long()
    lowest = int(found.min()) if len(found) else 0
    require(lowest >= 0, f"an id of {lowest}", "ids from 0 on", "number the rows from 0")
    return found


class seeded:  # noqa: N801  a context manager, like keyed
    """Inside this block, the noise of row ``i`` depends on ``seeds[i]`` alone.

    It does not depend on the number of rows, their order or the other seeds. Entered again, the noise
    continues where it stopped, so that a path may be walked in pieces. Each row and draw restarts a
    generator, which is slow: use it for samples, not for training.

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
        own = torch_from(mix(first, _TORCH), self._drawn, self._torch)
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


def _leading(rows: int, block: Shape, device: torch.device, draw: Draw) -> Shape:
    """The part of a block that has to be drawn for its first rows: all of it, or whole runs of 16 numbers.

    On a CPU torch fills a tensor from its beginning, 16 normal numbers at a time, so that a shorter
    tensor holds the beginning of a longer one. This is not documented, so it is tried out first.
    """
    numbers = size(block[1:])
    step = 16 // math.gcd(16, numbers)
    short = (min(block[0], -(-rows // step) * step), *block[1:])
    if device.type != "cpu" or short == block or size(block) % 16 or not _from_the_beginning(draw):
        return block
    return short


@lru_cache(maxsize=32)
def _from_the_beginning(draw: Draw) -> bool:
    """Whether shorter draws are the beginning of longer ones, so that the rest may be left out."""
    longest = draw((4096,), torch.Generator().manual_seed(7))
    shorter = (draw((n,), torch.Generator().manual_seed(7)) for n in (16, 48, 2048))
    return all(torch.equal(part, longest[: len(part)]) for part in shorter)
