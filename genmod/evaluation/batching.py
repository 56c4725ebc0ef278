"""The batch loop of every evaluation: rows in chunks, noise keyed by row id, evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from genmod import random
from genmod.arrays import as_context, for_autograd
from genmod.checks import require, trusted
from genmod.chunks import COPIES, by_rows, chunks, rows_per_chunk
from genmod.data import Dataset, rows_or_dataset
from genmod.model import LatentModel
from genmod.nn.mlp import check_context
from genmod.random.streams import TorchDraws
from genmod.spec import DataSpec

T = TypeVar("T")
Ids = Tensor | Sequence[int] | None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; each part's own mode is put back afterwards.

    Inference mode is left, because parts of a model may need autograd (a divergence, a slope).
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@dataclass(frozen=True, eq=False)
class RowSet:
    """Checked rows to evaluate, in the order of their ids.

    Args:
        x: ``(N, *event)``.
        context: what the model is conditioned on, ``(N, ...)``.
        ids: the id of each row, ``(N,)``, in ascending order.
        order: where each row stood in what the user gave.
        data: the data set that they are the test part of, if any.
    """

    x: Tensor
    context: Tensor | None
    ids: Tensor
    order: Tensor
    data: Dataset | None

    @classmethod
    def of(
        cls,
        model: LatentModel,
        data: object,
        context: object = None,
        *,
        ids: Ids = None,
        spec: DataSpec | None = None,
        name: str = "x",
    ) -> RowSet:
        """Check data, context and ids, once for all chunks.

        Args:
            model: what will evaluate them.
            data: a data set (its test part), a name or file of one; or rows: a tensor, an array, a list,
                alone or in a tuple with their context.
            context: one row a sample, or one label for all; by default the test labels of data that are
                conditional.
            ids: the id of each row; left out, 0, 1, 2, ...
            spec: what the rows must be; the model's own data by default.
            name: what messages call them.

        Raises:
            ValueError: no rows, rows that the model cannot score, other numbers of rows, a context that
                the model does not know.
        """
        source = rows_or_dataset(data, model.spec.bins)
        if isinstance(source, Dataset):
            context = source.context("test") if context is None else context
            x = source.test
            require(len(x) >= 1, f"{source.name} without a test part", *_A_TEST_PART)
        elif isinstance(source, Tensor):
            x = source
        else:
            require(
                context is None,
                "a context beside rows with their own",
                "one of the two",
                "drop one",
            )
            x, context = source
        (spec or model.spec).check(x, name=name)
        c = as_context(context, len(x))
        if c is not None:
            require(
                c.ndim >= 1 and len(c) == len(x),
                f"a context of shape {tuple(c.shape)} for {len(x)} rows",
                "one row of context for each row of data",
                "pass the contexts of these rows alone, in their order",
            )
        check_context(model, c)
        numbers = torch.arange(len(x)) if ids is None else torch.as_tensor(ids).cpu().long()
        require(
            numbers.shape == (len(x),),
            f"ids of shape {tuple(numbers.shape)} for {len(x)} rows",
            "one id for each row",
            "pass the index of each row in its data set",
        )
        order = numbers.argsort(stable=True)
        if ids is not None:
            x, c = x[order.to(x.device)], None if c is None else c[order.to(c.device)]
        return cls(x, c, numbers[order], order, source if isinstance(source, Dataset) else None)

    def given(self, values: Tensor) -> Tensor:
        """Values of these rows in the order in which the user gave them."""
        return values[self.order.argsort()]

    def first(self, count: int) -> RowSet:
        """The rows of the lowest ids."""
        c = None if self.context is None else self.context[:count]
        order = torch.arange(min(count, len(self)))
        return RowSet(self.x[:count], c, self.ids[:count], order, self.data)

    def __len__(self) -> int:
        return len(self.x)


_A_TEST_PART = ("rows to score", "pass the part to score: evaluate(model, data.validation)")


def in_chunks(
    model: LatentModel,
    rows: RowSet,
    run: Callable[[Tensor, Tensor | None], T],
    *,
    seed: int,
    step: int = 0,
    batch_size: int | None = None,
    copies: int = COPIES,
    progress: str | None = None,
) -> list[T]:
    """Run a function on chunks of rows: on the model's device, without gradients, under keyed noise.

    The noise of a row depends on ``(seed, step, id)`` alone, so that the results depend neither on the
    chunks nor on the order of the rows.

    Args:
        model: the model, which is in evaluation mode meanwhile.
        rows: the rows.
        run: ``run(x, context)`` of some of them.
        seed: the key of the noise.
        step: its second part.
        batch_size: rows of a chunk; by default as many as fit (:func:`genmod.chunks.rows_per_chunk`).
        copies: numbers that ``run`` holds for each entry of a row.
        progress: the label of a progress bar, if one is to be shown.

    Returns:
        What ``run`` returned, in the order of the ids: chunk after chunk.
    """
    device, shape = model.device, tuple(rows.x.shape[1:])
    size = rows_per_chunk(shape, device, copies=copies, batch_size=batch_size)
    if batch_size is None:
        size = min(size, random.BLOCK)

    def take(values: Tensor, part: slice) -> Tensor:
        kind = model.dtype if values.is_floating_point() else None
        return for_autograd(values[part].to(device, kind or values.dtype))

    def one(part: slice) -> T:
        return run(take(rows.x, part), None if rows.context is None else take(rows.context, part))

    def key(part: slice) -> AbstractContextManager[TorchDraws]:
        return random.keyed(seed, step, ids=rows.ids[part])

    with evaluating(model), trusted():
        pieces = by_rows(_shown(chunks(len(rows), size), progress), key, one)
        return list(pieces)


def _shown(pieces: list[slice], label: str | None) -> Iterator[slice]:
    if label is None:
        return iter(pieces)
    # Only here: rich takes a while to import.
    from rich.progress import track

    return iter(track(pieces, description=label))
