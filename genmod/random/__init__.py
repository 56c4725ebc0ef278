r"""Keyed noise: every random number of the bound comes through this module.

Outside :func:`keyed` the functions draw from torch's own generator. Inside, the noise of a row is a
function of ``(seed, step, call, row id)``: a row gets the same numbers in any batch, in any order, on any
process, whatever was drawn before. Rows are drawn in blocks, and the wanted rows are taken out of them.
Equality holds bit for bit on one kind of device.

Inside :func:`seeded` each row has its own seed, and its noise depends on that seed alone.

Both also restart torch's own generators from the key, and put them back afterwards, so that a
distribution of torch's (drawn by :func:`draw`) gives the same number for the same seed. Such a draw knows
no rows: :func:`by_rows` runs the rows one at a time where it meets one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, wraps
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.random.streams import BLOCK as BLOCK
from genmod.random.streams import Draw, SeededRows, Stream, current
from genmod.random.streams import keyed as keyed
from genmod.random.streams import mix as mix
from genmod.random.streams import seeded as seeded
from genmod.random.torch_draws import TorchDraws as TorchDraws
from genmod.random.torch_draws import by_rows as by_rows
from genmod.shapes import Shape

T = TypeVar("T")


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


def replayable(function: Callable[..., T]) -> Callable[..., T]:
    """A function that draws the same keyed noise each time it is called, as activation checkpointing needs.

    ``torch.utils.checkpoint`` calls a function again in the backward pass, outside of :func:`keyed`. There
    the second call gets the noise of the first. Wrap it again for each checkpoint.

    >>> from genmod.random import keyed
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
            # Its own generators: the stream's may be in use in another thread.
            memory.append(None if now is None else replace(now, generators={}))
            return function(*args)
        past = memory[0]
        token = current.set(None if past is None else replace(past))
        try:
            return function(*args)
        finally:
            current.reset(token)

    return call


def draw(law: Distribution, gradients: bool = True) -> Tensor:
    """A draw of any distribution: with a gradient (``rsample``) where one is wanted and there is one."""
    return law.rsample() if gradients and law.has_rsample else law.sample()
