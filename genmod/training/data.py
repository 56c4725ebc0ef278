"""The parts of the user's data that a run uses: training rows and validation rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from genmod.arrays import as_tensor
from genmod.checks import invalid
from genmod.data import GivenRows, rows_or_dataset
from genmod.data.binarized import BernoulliPixels
from genmod.data.loaders import as_loader, gives_batches, is_torch_dataset
from genmod.data.readers import is_frame
from genmod.data.values import warn_of_spread
from genmod.model import LatentModel
from genmod.nn.mlp import check_context
from genmod.objectives import Batch
from genmod.spec import DataSpec
from genmod.training.batches import Batches, LoaderBatches, MemoryBatches, joined
from genmod.training.config import BATCH_SIZE, TrainingConfig

Data: TypeAlias = object
"""A :class:`~genmod.data.Dataset`, or a name, file or folder of one (:func:`genmod.data.load`); a frame, a
tensor, an array or a list of rows; a pair of such, rows and context; a torch data set; or a loader: an
iterable of batches ``x``, ``(x,)``, ``(x, context)`` or ``(x, context, observed)``, of dictionaries with
these names, or of :class:`~genmod.objectives.Batch`."""

_SHARE = 0.5
"""The largest fraction of a device's free memory that the data set may take."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training rows and validation rows of a run, or a loader.

    Args:
        x: the training rows, ``(N, *event)``; ``None`` for a loader.
        context: the context of the training rows, ``(N, ...)``, or ``None``.
        pixels: gray pixels, from which the bits of the training rows are drawn again in every epoch.
        held_out: the validation rows, or ``None``.
        held_out_context: the context of the validation rows.
        dropout: the fraction of training rows whose context is dropped; ``None``: there is no context.
        observed: which entries of the training rows count; ``None``: all.
        held_out_observed: which entries of the validation rows count.
        loader: the loader, or a torch data set, which is cut into batches here.
    """

    x: Tensor | None
    context: Tensor | None = None
    pixels: BernoulliPixels | None = None
    held_out: Tensor | None = None
    held_out_context: Tensor | None = None
    dropout: float | None = None
    observed: Tensor | None = None
    held_out_observed: Tensor | None = None
    loader: Iterable[Any] | TorchDataset[Any] | None = None

    @classmethod
    def of(cls, data: Data, spec: DataSpec | None = None) -> TrainingData:
        """The training and validation rows of whatever ``fit`` takes as data.

        Args:
            data: a data set, or whatever :func:`genmod.data.load` takes. Names, files and folders are
                split; a frame, an array or a tensor is used whole; loaders give batch after batch.
            spec: the spec of the model: a table is read by its columns.

        Raises:
            ValueError: data of another kind.
        """
        if is_torch_dataset(data) or (gives_batches(data) and not is_frame(data)):
            return cls(None, loader=data)
        if isinstance(data, list) and data and isinstance(data[0], Batch):
            return cls(None, loader=data)
        context = None
        if isinstance(data, tuple):
            if len(data) != 2:
                raise invalid(
                    f"data of {len(data)} parts",
                    "a pair (x, context)",
                    "pass a Dataset for validation data",
                )
            data, context = data
        found = rows_or_dataset(data, spec)
        if isinstance(found, GivenRows):
            context = None if context is None else as_tensor(context, "context")
            context = found.context if context is None else context
            if spec is None or spec.columns is None:
                warn_of_spread(found.x, "the training data", "pass data.load(x, standardize=True)")
            return cls(found.x, context, observed=found.observed)
        if context is not None:
            raise invalid(
                "a context beside a data set",
                "a data set whose labels are the context",
                "pass genmod.data.conditional(data), or the pair (data.train, context)",
            )
        return cls(
            found.train,
            found.context("train"),
            found.resample,
            found.validation if len(found.validation) else None,
            found.context("validation"),
            found.context_dropout,
            found.mask("train"),
            found.mask("validation"),
        )

    def check(self, model: LatentModel) -> None:
        """Require rows that the model can score and contexts that it can take. Called once a run."""
        if self.x is not None and len(self.x) == 0:
            raise invalid("no rows", "at least one", "check the data")
        if self.observed is not None or self.held_out_observed is not None:
            model.check_missing()
        for part, context, observed in (
            (self.x, self.context, self.observed),
            (self.held_out, self.held_out_context, self.held_out_observed),
        ):
            if part is not None:
                model.decoder.check(part, observed)
                check_context(model, context)

    def size(self, config: TrainingConfig) -> int | None:
        """Rows of one step: at most all rows; ``None`` for a loader, which has its own batch size."""
        size = (config.batch_size or BATCH_SIZE) * config.accumulate
        if self.x is not None:
            return min(size, len(self.x))
        if is_torch_dataset(self.loader):
            return size
        if config.batch_size is not None:
            raise invalid(
                f"batch_size={config.batch_size} beside a loader",
                "no batch_size: a loader has its own",
                "leave it out, or pass it to the loader",
            )
        return None

    def batches(self, config: TrainingConfig, device: torch.device) -> Batches:
        """The batch of each step."""
        size = self.size(config)
        if self.loader is not None:
            each = None if size is None else size // config.accumulate
            return LoaderBatches(self._loader(each, config.seed), device)
        assert size is not None
        assert self.x is not None
        rows: Tensor | BernoulliPixels = self.pixels or self.x
        context = self.context
        if _fits(self.x, device):
            rows = rows.to(device)
            context = None if context is None else context.to(device)
        dropout, observed = self.dropout or 0.0, self.observed
        return MemoryBatches(rows, context, size, config.seed, dropout, device, observed)

    def all_rows(self) -> Batch:
        """All training rows: those in memory, or one pass of a loader."""
        if self.x is not None:
            return Batch(self.x, self.context, self.observed)
        batches = LoaderBatches(self._loader(), torch.device("cpu"))
        found = [batches(0)]
        while True:
            batch = batches(len(found))
            if batch.rows is not None:
                break
            found.append(batch)
        return joined(found)

    def _loader(self, size: int | None = None, seed: int = 0) -> Iterable[Any]:
        """The loader, or a torch data set as a loader."""
        assert self.loader is not None
        if isinstance(self.loader, TorchDataset):
            return as_loader(self.loader, size or BATCH_SIZE, seed)
        return self.loader

    def digest(self) -> dict[str, Any]:
        """A digest of the data: a hash of the bytes of each part, or the class of a loader."""
        if self.loader is not None:
            return {"loader": type(self.loader).__qualname__}
        parts = {
            "train": self.x,
            "labels": self.context,
            "pixels": None if self.pixels is None else self.pixels.gray,
            "validation": self.held_out,
            "validation_labels": self.held_out_context,
            "observed": self.observed,
            "validation_observed": self.held_out_observed,
        }
        found: dict[str, Any] = {n: None if p is None else digest(p) for n, p in parts.items()}
        return {**found, "context_dropout": self.dropout}


def digest(values: Tensor) -> str:
    """A hash of a tensor's type, shape and bytes.

    >>> digest(torch.zeros(2)) == digest(torch.zeros(2)), digest(torch.zeros(2)) == digest(torch.ones(2))
    (True, False)
    """
    # Integers are hashed by value: the same ones may be stored in one byte or in eight.
    whole = not values.is_floating_point() and not values.is_complex()
    kind = "int" if whole else str(values.dtype)
    found = hashlib.blake2b(f"{kind} {tuple(values.shape)}".encode(), digest_size=16)
    for piece in values.detach().reshape(-1).split(1 << 22):
        flat = (piece.long() if whole else piece).cpu().contiguous()
        found.update(flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _fits(x: Tensor, device: torch.device) -> bool:
    """Whether the whole data set may be moved to the device."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return x.numel() * x.element_size() < _SHARE * free
