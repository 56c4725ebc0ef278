"""Data that come piece by piece: a torch ``Dataset``, a ``DataLoader``, any iterable of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from genmod.arrays import as_tensor
from genmod.checks import require
from genmod.data.values import check_memory

_MOST_BATCHES = 1 << 24
"""An iterable of more batches is taken for one without end."""


def is_torch_dataset(x: object) -> TypeGuard[TorchDataset[Any]]:
    """Whether something is a data set of torch's, by rows or iterable."""
    return isinstance(x, TorchDataset)


def gives_batches(x: object) -> TypeGuard[Iterable[Any]]:
    """Whether something is a loader: an iterable of batches, and no array, text or mapping.

    A list of tensors of two axes or more, or of tuples that begin with one, is a list of batches.
    """
    if isinstance(x, list | tuple):
        return isinstance(x, list) and bool(x) and _is_batch(x[0])
    array = isinstance(x, Tensor | str | bytes | dict) or getattr(x, "__array__", None) is not None
    return isinstance(x, Iterable) and not array


def _is_batch(item: object) -> bool:
    first = item[0] if isinstance(item, tuple) and item else item
    return isinstance(first, Tensor)


def as_loader(x: TorchDataset[Any], batch_size: int, seed: int) -> DataLoader[Any]:
    """A torch data set as a loader of shuffled batches, the same ones for the same seed.

    >>> rows = torch.utils.data.TensorDataset(torch.arange(4.0)[:, None])
    >>> [batch[0].flatten().tolist() for batch in as_loader(rows, 2, seed=0)]
    [[1.0, 0.0], [3.0, 2.0]]
    """
    if isinstance(x, IterableDataset):
        return DataLoader(x, batch_size)
    require(_length(x) >= 1, "a torch data set without rows", "at least one", "check it")
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, _length(x))
    return DataLoader(x, size, shuffle=True, drop_last=True, generator=generator)


def collect(x: Iterable[Any] | TorchDataset[Any]) -> tuple[Tensor, Tensor | None]:
    """All rows of a torch data set or of one pass of a loader, and their labels if it has some.

    Raises:
        ValueError: batches of other parts than ``x``, ``(x,)`` or ``(x, labels)``; no batches; more rows
            than fit in memory.
    """
    pairs = list(_checked(_batches(x), type(x).__name__))
    require(bool(pairs), f"a {type(x).__name__} without batches", "at least one", "check it")
    rows = [pair[0] for pair in pairs]
    shapes = {tuple(each.shape[1:]) for each in rows}
    require(
        len(shapes) == 1,
        f"batches with events of shapes {sorted(shapes)}",
        "rows of one shape",
        "pad or cut them",
    )
    marks = [pair[1] for pair in pairs if pair[1] is not None]
    require(
        len(marks) in (0, len(rows)),
        "labels in some batches",
        "labels in all, or in none",
        "add them",
    )
    return torch.cat(rows), torch.cat(marks) if marks else None


def _batches(x: Iterable[Any] | TorchDataset[Any]) -> Iterator[Any]:
    """The batches of a loader; the rows of a torch data set one by one, as batches of one."""
    if not isinstance(x, TorchDataset):
        yield from x
        return
    rows = x if isinstance(x, IterableDataset) else (x[place] for place in range(_length(x)))
    for item in rows:
        parts = item if isinstance(item, tuple | list) else (item,)
        yield tuple(_item(part)[None] for part in parts)


def _item(part: Any) -> Tensor:
    """One row, or one label, of a torch data set: a number, a tensor, an array, a PIL image."""
    try:
        return torch.as_tensor(part if isinstance(part, Tensor) else np.array(part))
    except (TypeError, ValueError):
        raise ValueError(
            f"got an item of type {type(part).__name__} from a torch data set; expected numbers, arrays or "
            "images; give the data set a transform that makes a tensor of it"
        ) from None


def _length(x: object) -> int:
    if isinstance(x, Sized):
        return len(x)
    raise ValueError(
        f"got a {type(x).__name__} without a length; expected a torch data set with __len__, or one to "
        "iterate over; define __len__, or derive it from IterableDataset"
    )


def _checked(batches: Iterable[Any], name: str) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Each batch as rows and labels; stops one that would fill the memory."""
    size = 0
    for place, item in enumerate(batches):
        x, labels = batch_parts(item)
        require(
            x.ndim >= 2,
            f"a batch of shape {tuple(x.shape)} from a {name}",
            "batches (B, *event)",
            "give each batch an axis of rows, also for one row: x[None]",
        )
        size += x.nbytes
        if place % 1024 == 0 or x.nbytes > 1 << 20:
            check_memory(size, f"a {name}")
        require(place < _MOST_BATCHES, f"a {name} without end", "one that ends", "cut it")
        yield x, labels


def batch_parts(item: Any) -> tuple[Tensor, Tensor | None]:
    """The rows of a batch ``x``, ``(x,)`` or ``(x, context)``, and what they are conditioned on."""
    parts: Sequence[Any] = item if isinstance(item, tuple | list) else (item,)
    require(
        1 <= len(parts) <= 2,
        f"a loader's batch of {len(parts)} parts",
        "x, (x,) or (x, context)",
        "let the loader leave the others out",
    )
    x = as_tensor(parts[0])
    x = x if x.is_floating_point() else x.long()
    return x, as_tensor(parts[1], "context") if len(parts) == 2 else None
