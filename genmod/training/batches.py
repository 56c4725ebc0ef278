"""Batches as a function of (seed, step): nothing to store, nothing to wind forward on resuming."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.data import BernoulliPixels
from genmod.nn import drop_context
from genmod.random import mix

_FLIPS = 0xC01
"""Part of the key of the coins' noise: the model's, of the same seed and step, must not resemble it."""

_DROPS = 0xD07
"""Part of the key of the rows that are told nothing."""


@dataclass(frozen=True, eq=False)
class Batches:
    """A data set in memory, cut into batches by a permutation of its own in each epoch.

    Args:
        x: data, ``(N, *event)``, on the training device; or coins, which are flipped anew whenever a
            row is visited, by noise that depends on the seed, the step and the place in the batch alone.
        context: what the model is told beside each sample, ``(N, ...)``.
        size: rows in a batch; the rest of an epoch that fills none is left out of that epoch.
        seed: the run's seed.
        dropout: the share of rows that are told nothing instead of their context, by noise that depends
            on the seed, the step and the place in the batch alone.
    """

    x: Tensor | BernoulliPixels
    context: Tensor | None
    size: int
    seed: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require(len(self.x) >= 1, "no data", "at least one sample", "check the split")
        require(
            1 <= self.size <= len(self.x),
            f"batch_size={self.size} for {len(self.x)} samples",
            "a batch no larger than the data",
            "lower batch_size",
        )
        require(
            self.context is None or len(self.context) == len(self.x),
            "a context with another number of rows than the data",
            "one row a sample",
            "pass data=(x, context)",
        )

    @property
    def per_epoch(self) -> int:
        """How many batches an epoch has."""
        return len(self.x) // self.size

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """The batch of a step, and its context."""
        epoch, place = divmod(step, self.per_epoch)
        order = _order(mix(self.seed, epoch), len(self.x), self.x.device)
        rows = order[place * self.size : (place + 1) * self.size]
        return self._draw(rows, step), self._told(rows, step)

    def _told(self, rows: Tensor, step: int) -> Tensor | None:
        told = None if self.context is None else self.context[rows]
        if told is None or not self.dropout:
            return told
        with random.keyed(mix(self.seed, _DROPS), step):
            return drop_context(told, self.dropout)

    def _draw(self, rows: Tensor, step: int) -> Tensor:
        if isinstance(self.x, Tensor):
            return self.x[rows]
        with random.keyed(mix(self.seed, _FLIPS), step):
            return self.x.sample(rows)


@lru_cache(maxsize=2)
def _order(key: int, count: int, device: torch.device) -> Tensor:
    # On the CPU, so that every kind of device trains on the same order.
    return torch.randperm(count, generator=torch.Generator().manual_seed(key)).to(device)
