"""Streams of keyed noise, drawn in blocks of rows or row by row, and the functions that draw from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import require
from genmod.shapes import size
from genmod.types import Shape

_MASK = (1 << 64) - 1
TORCH = 0x70CC
"""Keeps torch's own generators apart from the noise of this module."""
_LAYERS = 0xD50
"""Keeps dropout apart from the noise of the bound, which has the same seed and step."""


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


class TorchDraws:
    """Whether torch's own generators were used inside a block; known when the block has ended."""

    used = False


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


@contextmanager
def keyed_step(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """The noise of a training step: as inside ``keyed(seed, step)``, and layers such as dropout too.

    Layers draw from torch's own generator. It is restarted for the step and put back afterwards, so
    that training does not change the user's random numbers.
    """
    # Only the generators that a step uses: torch.manual_seed takes a millisecond for each device.
    restarted = [(torch.default_generator, mix(seed, step, _LAYERS))]
    if device.type == "cuda":
        torch.cuda.init()
        restarted = [
            (torch.default_generator, mix(seed, step, TORCH, 0)),
            (torch.cuda.default_generators[device.index or 0], mix(seed, step, _LAYERS)),
        ]
    before = [generator.get_state() for generator, _ in restarted]
    for generator, key in restarted:
        generator.manual_seed(key)
    token = current.set(Stream((seed, step), 0, None))
    try:
        yield
    finally:
        current.reset(token)
        for (generator, _), state in zip(restarted, before, strict=True):
            generator.set_state(state)


def _rows(shape: Shape, device: torch.device, draw: Draw) -> Tensor:
    stream = current.get()
    return draw(shape, None) if stream is None else stream.rows(shape, device, draw)


def normal(
    shape: Shape,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normal noise; the first dimension counts the rows of the batch."""
    place = torch.device(device or "cpu")
    return _rows(shape, place, _drawing(torch.randn, dtype, place))


def uniform(
    shape: Shape,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Uniform noise in [0, 1); the first dimension counts the rows of the batch."""
    place = torch.device(device or "cpu")
    return _rows(shape, place, _drawing(torch.rand, dtype, place))


@lru_cache(maxsize=32)
def _drawing(kind: Callable[..., Tensor], dtype: torch.dtype | None, device: torch.device) -> Draw:
    """A named function for each kind of noise, so that its properties can be looked up by name."""

    def drawn(shape: Shape, generator: torch.Generator | None) -> Tensor:
        return kind(shape, generator=generator, dtype=dtype, device=device)

    return drawn


def normal_like(batch: Tensor) -> Tensor:
    """Standard normal noise of the batch's shape, type and device."""
    return normal(tuple(batch.shape), batch.dtype, batch.device)


def stratified(
    rows: int, draws: int, dtype: torch.dtype, device: torch.device | str | None = None
) -> Tensor:
    r"""``(rows, draws)`` numbers, each row an even cover of [0, 1) and the batch an even one too.

    Row ``i`` has the offset :math:`o_i = (u + r_i / B) \bmod 1` with one uniform ``u`` for the batch, and
    draws :math:`(j + o_i) / n`: uniform for each row, low in discrepancy across the batch. The ranks
    :math:`r_i` are those of van der Corput's sequence: the first rows of a batch are a cover too. In
    the order of the rows, the 103 that a test set left for its last block of 256 covered 40 %.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), appendix I.1.
    """
    place = torch.device(device or "cpu")
    offset = _rows((rows,), place, _shifting(dtype, place))
    comb = torch.arange(draws, dtype=dtype, device=place)
    # In float32, (j + o) / n can round up to 1, which is outside the cover.
    below_one = 1 - torch.finfo(dtype).eps
    return ((comb + offset[:, None]) / draws).clamp(max=below_one)


@lru_cache(maxsize=32)
def _shifting(dtype: torch.dtype, device: torch.device) -> Draw:
    def shifted_comb(shape: Shape, generator: torch.Generator | None) -> Tensor:
        """``(u + r_i / B) mod 1`` for ``shape[0] = B`` rows and one uniform ``u``."""
        start = torch.rand(1, generator=generator, dtype=dtype, device=device)
        comb = _ranks(shape[0], device).to(dtype) / shape[0]
        return (start + comb).remainder(1.0)

    return shifted_comb


@lru_cache(maxsize=16)
def _ranks(rows: int, device: torch.device) -> Tensor:
    """The places of van der Corput's first numbers, ``0.b1 b2 b3`` of ``... b3 b2 b1``, among themselves.

    >>> _ranks(6, torch.device("cpu"))
    tensor([0, 3, 2, 5, 1, 4])
    """
    bits, index = max(1, (rows - 1).bit_length()), torch.arange(rows)
    mirrored = sum((index >> bit & 1) << (bits - 1 - bit) for bit in range(bits))
    return torch.as_tensor(mirrored).argsort().argsort().to(device)


def draw(law: Distribution, gradients: bool = True) -> Tensor:
    """A draw of any distribution: with a gradient (``rsample``) where one is wanted and there is one."""
    return law.rsample() if gradients and law.has_rsample else law.sample()
