"""A data set as it travels to another process: integers of up to 256 levels as bytes.

An eighth of the memory for the way; what arrives is what was sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.data import BernoulliPixels, Dataset

_BYTE = 256
"""How many levels fit a byte."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A :class:`~genmod.data.Dataset`, small.

    >>> from genmod.data import digits
    >>> packed = Packed.of(digits())
    >>> packed.train.dtype, packed.unpack()
    (torch.uint8, Dataset(digits: 1294 train + 144 validation + 359 test, event shape (1, 8, 8), ...
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    bins: int | None
    labels: Mapping[str, Tensor] | None
    gray: Tensor | None
    levels: int
    floors: Tensor | None
    context_dropout: float | None

    @classmethod
    def of(cls, data: Dataset) -> Packed:
        """The data, packed."""
        coins = data.resample
        return cls(
            name=data.name,
            train=_small(data.train, data.bins),
            validation=_small(data.validation, data.bins),
            test=_small(data.test, data.bins),
            bins=data.bins,
            labels=data.labels,
            gray=None if coins is None else _small(coins.gray, coins.bins),
            levels=0 if coins is None else coins.bins,
            entropy=data.entropy,
            context_dropout=data.context_dropout,
        )

    def unpack(self) -> Dataset:
        """The data as they were."""
        return Dataset(
            name=self.name,
            train=_large(self.train),
            validation=_large(self.validation),
            test=_large(self.test),
            bins=self.bins,
            labels=self.labels,
            resample=None if self.gray is None else BernoulliPixels(_large(self.gray), self.levels),
            entropy=self.floors,
            context_dropout=self.context_dropout,
        )

    def digest(self) -> str:
        """Sixteen hexadecimal digits that depend on every number that a model may see."""
        found = hashlib.sha256()
        told = [] if self.context_dropout is None else [self.context_dropout]
        found.update(repr(told).encode() if told else b"")
        labels = self.labels.values() if told and self.labels is not None else ()
        for part in (self.train, self.validation, self.test, self.gray, *labels):
            if part is not None:
                found.update(repr((tuple(part.shape), part.dtype)).encode())
                found.update(part.contiguous().cpu().numpy().data)
        return found.hexdigest()[:16]


def _small(x: Tensor, bins: int | None) -> Tensor:
    return x.to(torch.uint8) if bins is not None and bins <= _BYTE else x


def _large(x: Tensor) -> Tensor:
    """Bytes as the 64-bit integers they were."""
    return x.long() if x.dtype is torch.uint8 else x
