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

from genmod.checks import invalid
from genmod.tensors import Shape, size

_MASK = (1 << 64) - 1
TORCH = 0x70CC
"""Part of the key of torch's own generators, whose numbers must differ from the noise of this module."""
_LAYERS = 0xD50
"""Part of the key of dropout, which must differ from the noise of the bound at the same step."""


@dataclass
class Stream:
    """The key of the noise of a batch, and the number of draws so far."""

    key: tuple[int, ...]
    start: int
    block: int | None
    ids: Tensor | None = None
    calls: int = 0
    generators: dict[torch.device, torch.Generator] = field(default_factory=dict)
    part: tuple[int, int, int] | None = None
    """The first row, the number of rows and the rows of the whole batch that they are a part of."""

    def rows(self, shape: Shape, device: torch.device, draw: Draw) -> Tensor:
        """The noise of each row of the batch, taken out of whole blocks."""
        self.calls += 1
        if self.part is not None:
            return self._of_part(shape, device, draw, *self.part)
        if self.block is None:
            return draw(shape, self._generator(device, 0))
        ids = self.ids
        if ids is None:
            ids = torch.arange(self.start, self.start + shape[0])
        return self._of_ids(shape, device, draw, self.block, ids)

    def _of_part(
        self, shape: Shape, device: torch.device, draw: Draw, first: int, rows: int, total: int
    ) -> Tensor:
        """The rows of a part of a batch, out of the noise that the whole batch would get."""
        # K draws of each row follow each other batch by batch, in the part as in the whole.
        copies = shape[0] // rows
        whole = draw((copies * total, *shape[1:]), self._generator(device, 0))
        wanted = [whole[k * total + first : k * total + first + rows] for k in range(copies)]
        return torch.cat(wanted)

    def _of_ids(
        self, shape: Shape, device: torch.device, draw: Draw, together: int, ids: Tensor
    ) -> Tensor:
        """The rows with the given ids. Several draws of each id follow each other batch by batch."""
        draws = shape[0] // max(len(ids), 1)
        if shape[0] != draws * len(ids):
            raise invalid(
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
    """The seeds of all rows, and the number of draws so far."""

    seeds: tuple[int, ...]
    calls: int = 0
    generators: dict[torch.device, torch.Generator] = field(default_factory=dict)

    def rows(self, shape: Shape, device: torch.device, draw: Draw) -> Tensor:
        """One row from each seed, independent of the others."""
        if shape[0] != len(self.seeds):
            raise invalid(
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
    """Whether torch's own generators were used inside a block. It is set when the block ends."""

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
    """The shape to draw for the first rows of a block: all of it, or its beginning in runs of 16 numbers.

    On a CPU, torch fills a tensor from its beginning, 16 normal numbers at a time. A shorter tensor then
    equals the beginning of a longer one. This is not documented, so it is tested first.
    """
    numbers = size(block[1:])
    step = 16 // math.gcd(16, numbers)
    short = (min(block[0], -(-rows // step) * step), *block[1:])
    if device.type != "cpu" or short == block or size(block) % 16 or not _from_the_beginning(draw):
        return block
    return short


@lru_cache(maxsize=32)
def _from_the_beginning(draw: Draw) -> bool:
    """Whether a shorter draw equals the beginning of a longer one with the same seed."""
    longest = draw((4096,), torch.Generator().manual_seed(7))
    shorter = (draw((n,), torch.Generator().manual_seed(7)) for n in (16, 48, 2048))
    return all(torch.equal(part, longest[: len(part)]) for part in shorter)


@contextmanager
def keyed_step(
    seed: int, step: int, device: torch.device, part: tuple[int, int, int] | None = None
) -> Iterator[None]:
    """A block with the noise of a training step: that of ``keyed(seed, step)``, and that of dropout.

    Layers such as dropout draw from torch's own generator. It is restarted for the step and restored
    afterwards, so that training does not change the user's random numbers.

    Args:
        seed: the seed of the run.
        step: the number of the step.
        device: the device of the model.
        part: where the batch is a part of a larger one: its first row, its rows, and the rows of the
            whole. Each row then gets the noise that it has in the whole batch.
    """
    # Not torch.manual_seed, which restarts the generator of every device, a millisecond each.
    layers = (seed, step, _LAYERS) if part is None else (seed, step, _LAYERS, part[0])
    restarted = [(torch.default_generator, mix(*layers))]
    if device.type == "cuda":
        torch.cuda.init()
        restarted = [
            (torch.default_generator, mix(seed, step, TORCH, 0)),
            (torch.cuda.default_generators[device.index or 0], mix(*layers)),
        ]
    before = [generator.get_state() for generator, _ in restarted]
    for generator, key in restarted:
        generator.manual_seed(key)
    token = current.set(Stream((seed, step), 0, None, part=part))
    try:
        yield
    finally:
        current.reset(token)
        for (generator, _), state in zip(restarted, before, strict=True):
            generator.set_state(state)


@contextmanager
def rewound() -> Iterator[None]:
    """A block whose keyed noise is drawn again by what follows it."""
    stream = current.get()
    calls = 0 if stream is None else stream.calls
    try:
        yield
    finally:
        if stream is not None:
            stream.calls = calls


def _rows(shape: Shape, device: torch.device, draw: Draw) -> Tensor:
    stream = current.get()
    return draw(shape, None) if stream is None else stream.rows(shape, device, draw)


def normal(
    shape: Shape,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normal noise of a shape ``(B, ...)``, whose first dimension is the rows of the batch."""
    place = torch.device(device or "cpu")
    return _rows(shape, place, _drawing(torch.randn, dtype, place))


def uniform(
    shape: Shape,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Uniform noise in [0, 1) of a shape ``(B, ...)``, whose first dimension is the rows of the batch."""
    place = torch.device(device or "cpu")
    return _rows(shape, place, _drawing(torch.rand, dtype, place))


@lru_cache(maxsize=32)
def _drawing(kind: Callable[..., Tensor], dtype: torch.dtype | None, device: torch.device) -> Draw:
    """The function that draws a kind of noise. It is cached, so that each kind is one object."""

    def drawn(shape: Shape, generator: torch.Generator | None) -> Tensor:
        return kind(shape, generator=generator, dtype=dtype, device=device)

    return drawn


def normal_like(batch: Tensor) -> Tensor:
    """Standard normal noise of the batch's shape, type and device."""
    return normal(tuple(batch.shape), batch.dtype, batch.device)


def stratified(
    rows: int, draws: int, dtype: torch.dtype, device: torch.device | str | None = None
) -> Tensor:
    r"""Stratified uniform numbers, ``(rows, draws)``, evenly spaced in [0, 1) in each row and in the batch.

    Row :math:`i` of :math:`B` has the offset :math:`o_i = (u + r_i / B) \bmod 1`, with one uniform
    :math:`u` for the batch. Its draws are :math:`(j + o_i) / n`, for :math:`j = 0, \dots, n - 1`. Each
    number is uniform. The ranks :math:`r_i` are those of van der Corput's sequence, so that the first
    rows of a block are evenly spaced, too. With :math:`r_i = i`, the 103 rows that a test set left for
    its last block of 256 covered only 40 % of the interval.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), appendix I.1.
    """
    place = torch.device(device or "cpu")
    u = _rows((rows,), place, _shifting(dtype, place))[:, None]
    # In float32, (j + o) / n can round up to 1, which is outside of [0, 1).
    below_one = 1 - torch.finfo(dtype).eps
    if draws > 1:
        u = (torch.arange(draws, dtype=dtype, device=place) + u) / draws
    return u.clamp(max=below_one)


@lru_cache(maxsize=32)
def _shifting(dtype: torch.dtype, device: torch.device) -> Draw:
    def shifted_comb(shape: Shape, generator: torch.Generator | None) -> Tensor:
        """``(u + r_i / B) mod 1`` for ``shape[0] = B`` rows and one uniform ``u``."""
        start = torch.rand(1, generator=generator, dtype=dtype, device=device)
        return (start + _offsets(shape[0], dtype, device)).remainder(1.0)

    return shifted_comb


@lru_cache(maxsize=16)
def _offsets(rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The first ranks of van der Corput's sequence, which mirrors the bits of the index, divided by B.

    >>> 6 * _offsets(6, torch.float64, torch.device("cpu"))
    tensor([0., 3., 2., 5., 1., 4.], dtype=torch.float64)
    """
    bits, index = max(1, (rows - 1).bit_length()), torch.arange(rows)
    mirrored = sum((index >> bit & 1) << (bits - 1 - bit) for bit in range(bits))
    ranks = torch.as_tensor(mirrored).argsort().argsort()
    return ranks.to(device).to(dtype) / rows


def draw(law: Distribution, gradients: bool = True) -> Tensor:
    """A draw of any distribution; by ``rsample``, with gradients, where it has one and they are wanted."""
    return law.rsample() if gradients and law.has_rsample else law.sample()
