"""The batch loop of every evaluation: rows in chunks, noise keyed by row id, evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from genmod import random
from genmod.arrays import as_context, as_tensor, for_autograd
from genmod.checks import invalid, trusted
from genmod.chunks import COPIES, by_rows, chunks, computing, rows_per_chunk
from genmod.data import Dataset, GivenRows, rows_or_dataset
from genmod.elbo import ELBO, Measure, Stamp
from genmod.model import LatentModel
from genmod.nn.mlp import check_context
from genmod.nn.modules import evaluation_mode
from genmod.random import BLOCK
from genmod.random.streams import TorchDraws
from genmod.spec import DataSpec

T = TypeVar("T")
Ids = Tensor | Sequence[int] | None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module has its own mode again.

    It also leaves :func:`torch.inference_mode`, in which autograd cannot be turned on again. Some parts
    differentiate during evaluation: the divergence of a flow, the slope of a learned schedule.
    """
    with torch.inference_mode(False), evaluation_mode(model):
        yield


@dataclass(frozen=True, eq=False)
class RowSet:
    """Checked rows to evaluate, sorted by id.

    Args:
        x: ``(N, *event)``.
        context: what the model is conditioned on, ``(N, ...)``.
        ids: the id of each row, ``(N,)``, ascending.
        order: the position of each row in the user's input, ``(N,)``.
        data: the data set whose test part the rows are, if any.
        observed: which entries of ``x`` count; ``None``: all.
    """

    x: Tensor
    context: Tensor | None
    ids: Tensor
    order: Tensor
    data: Dataset | None
    observed: Tensor | None = None

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
        masked: bool = False,
        observed: object = None,
    ) -> RowSet:
        """Check data, context and ids, once for all chunks.

        Args:
            model: the model that will evaluate the rows.
            data: a data set, of which the test part is used; the name or file of one; or rows, as a
                tensor, an array or a list, alone or in a tuple ``(rows, context)``.
            context: one row per sample, or one label for all; by default the test labels, if the data are
                conditional.
            ids: the id of each row; by default 0, 1, 2, ...
            spec: the data specification of the rows; the model's own by default.
            name: the name of the rows in error messages.
            masked: whether the caller can leave missing entries out.
            observed: which entries are not missing, like the rows; by default what the data state.

        Raises:
            ValueError: no rows; missing entries where they cannot be left out; rows that the model cannot
                score; contexts or ids that are not one per row; a context that the model does not take.
        """
        source = rows_or_dataset(data, model.spec)
        given = _rows_of(source, context)
        x = given.x
        seen = given.observed if observed is None else as_tensor(observed, "observed")
        if seen is not None and not masked:
            raise invalid(
                f"{name} with missing entries",
                "complete rows, because this measure is of whole rows",
                "leave incomplete rows out, or use evaluate or impute",
            )
        (spec or model.spec).check(x, seen, name)
        c = as_context(given.context if context is None else context, len(x))
        if c is not None and (c.ndim == 0 or len(c) != len(x)):
            raise invalid(
                f"a context of shape {tuple(c.shape)} for {len(x)} rows",
                "one row of context for each row of data",
                "pass the contexts of these rows alone, in their order",
            )
        check_context(model, c)
        numbers = _numbers(ids, len(x))
        order = numbers.argsort(stable=True)

        def sort(each: Tensor) -> Tensor:
            return each if ids is None else each[order.to(each.device)]

        c, seen = (None if each is None else sort(each) for each in (c, seen))
        data_set = source if isinstance(source, Dataset) else None
        return cls(sort(x), c, numbers[order], order, data_set, seen)

    def part(self, some: slice) -> RowSet:
        """A group of neighboring rows, in the order of their ids."""
        x, c, seen = (
            None if each is None else each[some] for each in (self.x, self.context, self.observed)
        )
        assert x is not None
        return RowSet(x, c, self.ids[some], torch.arange(len(x)), self.data, seen)

    def restore_order(self, values: Tensor) -> Tensor:
        """Values of the sorted rows, put back into the order of the user's input."""
        return values[self.order.argsort()]

    def sample(self, count: int, seed: int) -> RowSet:
        """Some of the rows, drawn among all of them in the order of their ids; all if there are no more."""
        drawn = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        index = drawn[:count].sort().values
        x, c, seen = (
            None if each is None else each[index.to(each.device)]
            for each in (self.x, self.context, self.observed)
        )
        assert x is not None
        return RowSet(x, c, self.ids[index], torch.arange(len(index)), self.data, seen)

    def __len__(self) -> int:
        return len(self.x)


def _rows_of(source: Dataset | GivenRows, context: object) -> GivenRows:
    """The rows of the test part of a data set, or the user's own rows."""
    if isinstance(source, Dataset):
        if len(source.test) == 0:
            raise invalid(
                f"{source.name} without a test part",
                "rows to score",
                "pass the part to score: evaluate(model, data.validation)",
            )
        return GivenRows(source.test, source.context("test"), source.mask("test"))
    if context is not None and source.context is not None:
        raise invalid(
            "rows in a tuple with their context, and context=... beside it",
            "one of the two",
            "drop one of them",
        )
    return source


def in_chunks(
    model: LatentModel,
    rows: RowSet,
    run: Callable[..., T],
    *,
    seed: int,
    step: int = 0,
    batch_size: int | None = None,
    copies: int = COPIES,
    progress: str | None = None,
) -> list[T]:
    """Run a function on chunks of rows, on the model's device, in evaluation mode and without gradients.

    The noise of a row depends only on ``(seed, step, id)``. So the results depend neither on the chunks nor
    on the order of the rows.

    Args:
        model: the model.
        rows: the rows.
        run: called as ``run(x, context)`` with the rows of a chunk; as ``run(x, context, observed)`` where
            entries are missing.
        seed: the seed of the noise.
        step: a second number beside the seed, for independent noise on the same rows.
        batch_size: rows in a chunk; by default as many as fit (:func:`genmod.chunks.rows_per_chunk`).
        copies: how many tensors of the size of ``x`` the function ``run`` holds at once.
        progress: the label of a progress bar; ``None``: no bar.

    Returns:
        The results of ``run``, one per chunk, by ascending ids.
    """
    device, shape = model.device, tuple(rows.x.shape[1:])
    size = rows_per_chunk(shape, device, copies=copies, batch_size=batch_size)
    if batch_size is None:
        size = min(size, BLOCK)

    # A model standardizes columns in the type of the data, before it rounds them to its own.
    kept = not model.spec.standardize.is_identity

    def take(values: Tensor, part: slice) -> Tensor:
        kind = model.dtype if values.is_floating_point() and not kept else None
        return for_autograd(values[part].to(device, kind or values.dtype))

    def one(part: slice) -> T:
        given: tuple[Tensor | None, ...]
        given = take(rows.x, part), None if rows.context is None else take(rows.context, part)
        if rows.observed is not None:
            given = *given, take(rows.observed, part)
        with computing(rows.order[part], len(rows)):
            return run(*given)

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


def require_finite(terms: Mapping[str, Tensor], zero_weights: bool = False) -> None:
    """Require numbers by name, ``(N, ...)``, to be finite in every row: what is not finite has no stamp.

    Args:
        terms: the numbers.
        zero_weights: whether they may be minus infinity, the logarithm of a weight of zero.

    Raises:
        ValueError: NaN or infinity; the message names the term and states in how many rows.
    """
    for name, values in terms.items():
        fine = values.isfinite() | (zero_weights & (values == -torch.inf))
        broken = int((~fine).reshape(len(values), -1).any(1).sum())
        if broken:
            raise invalid(
                f"a {name} term that is NaN or infinite in {broken} of {len(values)} rows",
                "finite nats",
                "check the model's parameters (a diverged training) and these rows (far outside "
                "the training data, or where the decoder has no support)",
            )


def _numbers(ids: Ids, rows: int) -> Tensor:
    """The id of each row: its place, by default."""
    found = torch.arange(rows) if ids is None else as_tensor(ids, "ids").cpu()
    if found.is_floating_point() or found.dtype is torch.bool:
        raise invalid(
            f"ids of type {found.dtype}",
            "whole numbers",
            "pass the index of each row in its data set",
        )
    found = found.long()
    if found.shape != (rows,):
        raise invalid(
            f"ids of shape {tuple(found.shape)} for {rows} rows",
            "one id for each row",
            "pass the index of each row in its data set",
        )
    return found


@dataclass(frozen=True, eq=False)
class ChunkBound:
    """The bound of a chunk on the CPU: one column per term, and sums over its rows."""

    columns: Mapping[str, Tensor]
    per_dim: Mapping[str, Tensor]
    levels: tuple[Tensor, Tensor, Tensor] | None
    stamp: Stamp
    measure: Measure

    @classmethod
    def of(cls, elbo: ELBO) -> ChunkBound:
        """The terms of a bound, summed where only the sum over rows is needed."""
        columns = {"": elbo.reconstruction, **{each.name: each.nats for each in elbo.levels()}}
        per_dim, levels = {}, None
        for name, rate in elbo.rates.items():
            for level, nats in zip(rate.names or (name,), rate.per_dim or (), strict=False):
                per_dim[level] = nats.double().sum(0).cpu()
            if rate.noise is not None and rate.claim is Stamp.BOUND:
                sums = rate.nats.double().sum(0).cpu()
                levels = rate.level[0].cpu(), rate.noise.log_snr[0].cpu(), sums
        kept = {name: values.cpu().double() for name, values in columns.items()}
        return cls(kept, per_dim, levels, elbo.stamp, elbo.measure)
