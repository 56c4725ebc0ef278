"""Data that come piece by piece: a torch ``Dataset``, a ``DataLoader``, any iterable of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from genmod.arrays import as_tensor
from genmod.checks import invalid
from genmod.data.values import check_memory

_PARTS = ("x", "context", "observed")
"""What a batch can hold, in this order."""

_MOST_BATCHES = 1 << 24
"""An iterable with more batches is taken for an endless one."""


def is_torch_dataset(x: object) -> TypeGuard[TorchDataset[Any]]:
    """Whether something is a data set of torch's, by rows or iterable."""
    return isinstance(x, TorchDataset)


def gives_batches(x: object) -> TypeGuard[Iterable[Any]]:
    """Whether something is a loader: an iterable of batches, but no array, text or mapping.

    A list of tensors, of tuples that begin with one, or of dictionaries is a list of batches.
    """
    if isinstance(x, list | tuple):
        return isinstance(x, list) and bool(x) and _is_batch(x[0])
    array = isinstance(x, Tensor | str | bytes | dict) or getattr(x, "__array__", None) is not None
    return isinstance(x, Iterable) and not array


def _is_batch(item: object) -> bool:
    first = item[0] if isinstance(item, tuple) and item else item
    return isinstance(first, Tensor | Mapping)


def as_loader(x: TorchDataset[Any], batch_size: int, seed: int) -> DataLoader[Any]:
    """A torch data set as a loader of shuffled batches, the same ones for the same seed.

    >>> rows = torch.utils.data.TensorDataset(torch.arange(4.0)[:, None])
    >>> [batch[0].flatten().tolist() for batch in as_loader(rows, 2, seed=0)]
    [[1.0, 0.0], [3.0, 2.0]]
    """
    if isinstance(x, IterableDataset):
        return DataLoader(x, batch_size)
    if _length(x) == 0:
        raise invalid("a torch data set without rows", "at least one", "check it")
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, _length(x))
    return DataLoader(x, size, shuffle=True, drop_last=True, generator=generator)


def collect(x: Iterable[Any] | TorchDataset[Any]) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """All rows of a torch data set or of one pass of a loader, and their labels and masks if it has some.

    Raises:
        ValueError: batches that :func:`batch_parts` refuses; no batches; more rows than fit in memory.
    """
    batches = list(_checked(_batches(x), type(x).__name__))
    if not batches:
        raise invalid(f"a {type(x).__name__} without batches", "at least one", "check it")
    rows, labels, observed = zip(*batches, strict=True)
    x = torch.cat([*_of_one_shape("x", rows)])
    return x, _joined("labels", labels), _joined("masks", observed)


def _joined(name: str, pieces: Sequence[Tensor | None]) -> Tensor | None:
    """Labels or masks of all batches as one tensor; ``None`` if no batch has them."""
    found = [piece for piece in pieces if piece is not None]
    if len(found) not in (0, len(pieces)):
        got = f"{name} in {len(found)} of {len(pieces)} batches"
        raise invalid(got, f"{name} in all, or in none", "add them")
    return torch.cat([*_of_one_shape(name, found)]) if found else None


def _of_one_shape(name: str, pieces: Sequence[Tensor]) -> Sequence[Tensor]:
    shapes = {tuple(piece.shape[1:]) for piece in pieces}
    if len(shapes) != 1:
        got = f"batches with {name} of shapes {sorted(shapes)}"
        raise invalid(got, "rows of one shape", "pad or cut them")
    return pieces


def _batches(x: Iterable[Any] | TorchDataset[Any]) -> Iterator[Any]:
    """The batches of a loader; the rows of a torch data set one by one, as batches of one."""
    if not isinstance(x, TorchDataset):
        yield from x
        return
    rows = x if isinstance(x, IterableDataset) else (x[place] for place in range(_length(x)))
    for item in rows:
        if isinstance(item, Mapping):
            yield {name: _item(part)[None] for name, part in item.items() if name in _PARTS}
        else:
            parts = item if isinstance(item, tuple | list) else (item,)
            yield tuple(None if part is None else _item(part)[None] for part in parts)


def _item(part: Any) -> Tensor:
    """One row, or one label, of a torch data set: a number, a tensor, an array, a PIL image."""
    try:
        return torch.as_tensor(part if isinstance(part, Tensor) else np.array(part))
    except (TypeError, ValueError):
        raise invalid(
            f"an item of type {type(part).__name__} from a torch data set",
            "numbers, arrays or images",
            "give the data set a transform that makes a tensor of it",
        ) from None


def _length(x: object) -> int:
    if isinstance(x, Sized):
        return len(x)
    raise invalid(
        f"a {type(x).__name__} without a length",
        "a torch data set with __len__, or one to iterate over",
        "define __len__, or derive it from IterableDataset",
    )


def _checked(
    batches: Iterable[Any], name: str
) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
    """The parts of each batch; stops a loader that would fill the memory."""
    size = 0
    for place, item in enumerate(batches):
        x, context, observed = batch_parts(item)
        if x.ndim < 2:
            raise invalid(
                f"a batch of shape {tuple(x.shape)} from a {name}",
                "batches (B, *event)",
                "give each batch an axis of rows, also for one row: x[None]",
            )
        size += x.nbytes
        if place % 1024 == 0 or x.nbytes > 1 << 20:
            check_memory(size, f"a {name}")
        if place >= _MOST_BATCHES:
            raise invalid(f"a {name} without end", "one that ends", "cut it")
        yield x, context, observed


def batch_parts(item: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The rows of a batch, what they are conditioned on, and which entries were observed.

    Args:
        item: ``x``, ``(x,)``, ``(x, context)`` or ``(x, context, observed)``, with ``None`` for a part that
            is not there; or a dictionary with some of the keys ``x``, ``context`` and ``observed``.

    Raises:
        ValueError: other parts, or a batch without rows ``x``.

    >>> batch_parts({"x": torch.zeros(2, 3), "observed": torch.ones(2, 3, dtype=torch.bool)})[2].all()
    tensor(True)
    """
    if isinstance(item, Mapping):
        parts = [item.get(name) for name in _PARTS]
        named, got = set(item) <= set(_PARTS), f"keys {sorted(map(str, item))}"
    else:
        given = list(item) if isinstance(item, tuple | list) else [item]
        parts, named = [*given, None, None][:3], 1 <= len(given) <= 3
        got = f"{len(given)} parts" if parts[0] is not None else "no rows"
    if not named or parts[0] is None:
        raise invalid(
            f"a loader's batch of {got}",
            "x, (x,), (x, context), (x, context, observed), or a dictionary with these names",
            "let the loader leave the others out",
        )
    x = as_tensor(parts[0])
    context = None if parts[1] is None else as_tensor(parts[1], "context")
    observed = None if parts[2] is None else as_tensor(parts[2], "observed")
    return x if x.is_floating_point() else x.long(), context, observed
