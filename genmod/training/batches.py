"""Batches of data in memory, as a function of (seed, step), and batches of any loader, in its order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from genmod import random
from genmod.checks import invalid
from genmod.data.binarized import BernoulliPixels
from genmod.data.loaders import batch_parts
from genmod.nn.conditioning import drop_context
from genmod.objectives import Batch
from genmod.random.streams import mix

_FLIPS = 0xC01
"""Part of the key of the noise of binarization, which must differ from the model's noise."""

_DROPS = 0xD07
"""Part of the key of the rows whose context is dropped."""


class Batches(ABC):
    """What :func:`~genmod.training.fit` trains on: the batch of each step.

    Args:
        checked: whether all values were checked when the run began. If so, a step does not check them.
    """

    checked = False

    @abstractmethod
    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0, on the training device."""

    def parts(self, step: int, count: int) -> list[Batch]:
        """The batches of a step whose gradients are added up: ``count`` at most."""
        return [self(step * count + number) for number in range(count)]


@dataclass(frozen=True, eq=False)
class MemoryBatches(Batches):
    """Data in memory, cut into batches by a new permutation in each epoch.

    A batch is a function of the seed and the step, so that a resumed run gets the same batches
    as one that was not interrupted.

    Args:
        x: data, ``(N, *event)``; or gray pixels, whose bits are drawn again in every epoch.
        context: what the model is conditioned on, ``(N, ...)``.
        size: rows in a batch. Rows that are left over at the end of an epoch are skipped in it.
        seed: the run's seed.
        dropout: the fraction of rows whose context is dropped, for classifier-free guidance.
        device: the device that batches are moved to. The data set is not moved.
        observed: which entries of ``x`` count; ``None``: all.
    """

    x: Tensor | BernoulliPixels
    context: Tensor | None
    size: int
    seed: int
    dropout: float = 0.0
    device: torch.device | None = None
    observed: Tensor | None = None

    checked = True

    def __post_init__(self) -> None:
        if len(self.x) == 0:
            raise invalid("no rows", "at least one", "check how the data were split")
        if not 1 <= self.size <= len(self.x):
            raise invalid(
                f"batch_size={self.size} for {len(self.x)} samples",
                "a batch no larger than the data",
                "lower batch_size",
            )
        if self.context is not None and len(self.context) != len(self.x):
            raise invalid(
                "a context with another number of rows than the data",
                "one row a sample",
                "pass data=(x, context)",
            )

    @property
    def per_epoch(self) -> int:
        """How many batches an epoch has."""
        return len(self.x) // self.size

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        epoch, place = divmod(step, self.per_epoch)
        order = _order(self.seed, epoch, len(self.x), self.x.device)
        index = order[place * self.size : (place + 1) * self.size]
        return Batch(
            self._to_device(self._rows(index, step)),
            self._to_device(self._context(index, step)),
            None if self.observed is None else self._to_device(self.observed[index.to("cpu")]),
            index=index,
            rows=len(self.x),
        )

    def parts(self, step: int, count: int) -> list[Batch]:
        """The batch of a step, cut into pieces: it was made ``count`` times as large for that."""
        whole = self(step)
        return [whole] if count == 1 else split(whole, -(-self.size // count))

    def _context(self, index: Tensor, step: int) -> Tensor | None:
        if self.context is None:
            return None
        context = self.context[index.to(self.context.device)]
        if not self.dropout:
            return context
        with random.keyed(mix(self.seed, _DROPS), step):
            return drop_context(context, self.dropout)

    def _rows(self, index: Tensor, step: int) -> Tensor:
        if not isinstance(self.x, Tensor):
            with random.keyed(mix(self.seed, _FLIPS), step):
                return self.x.sample(index)
        # Twice as fast as self.x[index].
        x = self.x.index_select(0, index)
        # Data may lie in memory in one byte, whose arithmetic wraps.
        return x if x.is_floating_point() else x.long()

    def _to_device(self, rows: Any) -> Any:
        return rows if rows is None or self.device is None else rows.to(self.device)


@dataclass(eq=False)
class LoaderBatches(Batches):
    """The batches of a loader, or of any iterable, in its order. It is iterated again when it ends.

    The row ids are 0, 1, 2, ... in each pass. A resumed run skips the batches that it has already
    used. It equals the uninterrupted run bit for bit only if the loader repeats the same batches.

    Args:
        loader: yields ``x``, ``(x,)``, ``(x, context)`` or ``(x, context, observed)``, tensors or arrays;
            dictionaries with these names; or a :class:`~genmod.objectives.Batch`.
        device: the device that batches are moved to.
    """

    loader: Iterable[Any]
    device: torch.device
    _steps: int = 0
    _passed: int = 0
    _rows: int | None = None
    _stream: Iterator[Any] = field(default_factory=lambda: iter(()))

    def __call__(self, step: int) -> Batch:
        """The next batch; earlier ones are skipped."""
        if step < self._steps:
            self._steps, self._passed, self._stream = 0, 0, iter(self.loader)
        while True:
            batch = self._next()
            if self._steps > step:
                return batch

    def _next(self) -> Batch:
        try:
            item = next(self._stream)
        except StopIteration:
            item = self._restart()
        given = item if isinstance(item, Batch) else Batch(*batch_parts(item))
        index = torch.arange(self._passed, self._passed + len(given.x))
        self._passed += len(given.x)
        self._steps += 1
        columns = (given.x, given.context, given.observed)
        x, context, observed = (None if c is None else c.to(self.device) for c in columns)
        assert x is not None
        return Batch(x, context, observed, index, self._rows)

    def _restart(self) -> Any:
        """The first batch of the next pass."""
        if self._steps:
            self._rows = self._passed
        self._passed, self._stream = 0, iter(self.loader)
        try:
            return next(self._stream)
        except StopIteration:
            raise invalid(
                f"a {type(self.loader).__name__} that gave {self._steps} batches and no more",
                "one that can be iterated again, or has as many batches as there are steps",
                "pass a DataLoader or a list of batches, not a generator",
            ) from None


def split(batch: Batch, rows: int) -> list[Batch]:
    """A batch in pieces of at most so many rows."""
    columns = (batch.x, batch.context, batch.observed, batch.index)
    cut = [[None] * -(-len(batch.x) // rows) if c is None else c.split(rows) for c in columns]
    return [
        Batch(x, context, observed, index, batch.rows)
        for x, context, observed, index in zip(*cut, strict=True)
        if x is not None
    ]


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches as one, row after row."""
    if len(batches) == 1:
        return batches[0]

    def together(columns: Sequence[Tensor | None]) -> Tensor | None:
        found = [column for column in columns if column is not None]
        return torch.cat(found) if found else None

    return Batch(
        torch.cat([batch.x for batch in batches]),
        together([batch.context for batch in batches]),
        together([batch.observed for batch in batches]),
        together([batch.index for batch in batches]),
        batches[0].rows,
    )


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int, device: torch.device) -> Tensor:
    """The order of the rows in an epoch."""
    # On the CPU, so that every kind of device trains on the same order.
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    return torch.randperm(count, generator=generator).to(device)
