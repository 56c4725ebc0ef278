"""A data set: three checked tensors, the spec that they share, and what goes with their rows.

``N`` rows, each an event of one shape. Integers are kept in one byte where they fit. Arithmetic on bytes
overflows silently (``2 * 200`` is 144): convert a batch to wider integers first, as models do.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from genmod.checks import check_at_least, invalid, one_of
from genmod.columns import shorten
from genmod.data.binarized import BernoulliPixels, check_entropy, check_resample
from genmod.data.kinds import table_of
from genmod.data.values import (
    check_dropout,
    check_labels,
    check_observed,
    check_part,
    check_values,
    storage,
)
from genmod.signatures import checked
from genmod.spec import Column, DataSpec
from genmod.tensors import Shape

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set in three parts (train, validation, test), checked when it is built.

    Args:
        name: what reports call it.
        train, validation, test: tensors ``(N, *event)`` of one event shape: with ``bins``, whole numbers
            in ``0 .. bins - 1``, kept as ``torch.uint8`` up to 256 values and ``torch.int64`` beyond; else
            finite floating point numbers of one type. A part may be empty, the training part may not.
        bins: how many values an entry can take; ``None`` for real data. It decides what a likelihood
            is: a mass for integers, a density otherwise.
        labels: one label a row for each part, keyed by ``"train"``, ``"validation"``, ``"test"``.
        resample: the Bernoulli variables that ``train`` is one draw of, if training draws them again at
            every visit (see :func:`~genmod.data.binarized`).
        entropy: the entropy of the noise in each test row, ``H(b | x)`` in nats, where the data are drawn
            from a known distribution; ``None`` for all other data.
        context_dropout: the fraction of training rows whose label is hidden from a conditional model;
            ``None`` for models without a context (see :func:`~genmod.data.conditional`).
        columns: of a table, one for each entry of a row; the data are then floating point numbers in
            their own units, and codes of categories.
        observed: which entries are not missing, for each part; missing ones hold 0. ``None``: all.
        classes: what the labels 0, 1, ... stand for.
        split: how the rows were divided: plain data, for files that record it.
        rows: the number of each row in the source, for each part.

    Raises:
        ValueError: parts of different shapes or types; values that the description does not allow.

    >>> Dataset("coins", *torch.tensor([0, 1, 1, 0]).reshape(4, 1).split([2, 1, 1]), bins=2)
    coins: (1,), integers 0..1
      train       2 rows
      validation  1 row
      test        1 row
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    bins: int | None = None
    labels: Mapping[str, Tensor] | None = None
    resample: BernoulliPixels | None = None
    entropy: Tensor | None = None
    context_dropout: float | None = None
    columns: Sequence[Column] | None = None
    observed: Mapping[str, Tensor] | None = None
    classes: tuple[str, ...] | None = None
    split: Mapping[str, object] | None = None
    rows: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.observed is not None:
            check_observed(self.observed, self.parts())
        for split, part in self.parts().items():
            check_part(split, part, self.train, self.bins)
            check_values(part, self.bins, split)
            if self.columns is not None and len(part):
                self.spec.check(part, self.mask(split), split)
            if self.bins is not None:
                object.__setattr__(self, split, part.to(storage(self.bins)))
        if len(self.train) == 0:
            raise invalid(
                "an empty training part",
                "at least one row to learn from",
                "lower the fractions of validation and test",
            )
        if self.labels is not None:
            check_labels(self.labels, self.parts())
        if self.resample is not None:
            check_resample(self.resample, self.train, self.bins)
        if self.context_dropout is not None:
            check_dropout(self.context_dropout, self.labels)
        if self.entropy is not None:
            check_entropy(self.entropy, self.test)

    @property
    def spec(self) -> DataSpec:
        """What the data are: the shape of one event; reals, integers or columns; missing entries."""
        return DataSpec(self.shape, self.bins, self.columns, missing=self.observed is not None)

    @property
    def shape(self) -> Shape:
        """The shape of one event."""
        return tuple(self.train.shape[1:])

    def parts(self) -> dict[str, Tensor]:
        """The three tensors by name, training first."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def mask(self, split: str) -> Tensor | None:
        """Which entries of a part are observed, like the part; ``None``: all."""
        return None if self.observed is None else self.observed[split]

    @property
    def entropy_floor(self) -> float | None:
        """The mean entropy of the noise in a test row, ``E_x H(b | x)``, in nats: it bounds every NLL."""
        if self.entropy is None or not len(self.entropy):
            return None
        return float(self.entropy.mean())

    def cut(self, split: str, rows: int) -> Dataset:
        """The same data with only the first rows of a part, and their labels, masks and noise.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.
            rows: how many to keep; all of them where there are no more.

        Raises:
            ValueError: an unknown part, or a negative number of rows.

        >>> from genmod.data import load
        >>> len(load("digits").cut("test", 10).test)
        10
        """
        one_of(SPLITS, split, "split")
        check_at_least(rows, 0, "rows", "0 leaves the part out")
        train, validation, test = {**self.parts(), split: self.parts()[split][:rows]}.values()

        def shorter(each: Mapping[str, Tensor] | None) -> Mapping[str, Tensor] | None:
            return None if each is None else {**each, split: each[split][:rows]}

        resample, entropy = self.resample, self.entropy
        if resample is not None and split == "train":
            resample = BernoulliPixels(resample.gray[:rows], resample.bins)
        if entropy is not None and split == "test":
            entropy = entropy[:rows]
        return replace(
            self,
            train=train,
            validation=validation,
            test=test,
            labels=shorter(self.labels),
            resample=resample,
            entropy=entropy,
            observed=shorter(self.observed),
            rows=shorter(self.rows),
        )

    def context(self, split: str) -> Tensor | None:
        """The context of a part's rows for a conditional model: their labels; else ``None``."""
        if self.context_dropout is None or self.labels is None:
            return None
        labels = self.labels[split]
        return labels.to(torch.get_default_dtype()) if labels.is_floating_point() else labels

    def identity(self) -> dict[str, object]:
        """The name, the spec, and a digest of each part: plain data that are equal only for equal data.

        Files record by it what a run was trained on.

        >>> data = Dataset("ones", *3 * (torch.ones(2, 1),))
        >>> sorted(data.identity())
        ['bins', 'data', 'shape', 'test', 'train', 'validation']
        """
        found: dict[str, object] = {"data": self.name, "shape": list(self.shape), "bins": self.bins}
        found |= {split: digest(part) for split, part in self.parts().items()}
        if self.labels is not None:
            found["labels"] = digest(*(self.labels[split] for split in SPLITS))
        if self.classes is not None:
            found["classes"] = list(self.classes)
        if self.resample is not None:
            found["gray values"] = digest(self.resample.gray) + f" of {self.resample.bins}"
        if self.context_dropout is not None:
            found["context_dropout"] = self.context_dropout
        if self.columns is not None:
            found["columns"] = [{**asdict(c), "kind": str(c.kind)} for c in self.columns]
        if self.observed is not None:
            found["observed"] = digest(*(self.observed[split] for split in SPLITS))
        if self.split is not None:
            found["split"] = dict(self.split)
        return found

    def summary(self) -> str:
        """The data set in one line."""
        sizes = " + ".join(f"{len(part)} {split}" for split, part in self.parts().items())
        return f"{self.name} ({sizes} rows of {self.spec})"

    def __repr__(self) -> str:
        width = max(len(f"{len(part):,}") for part in self.parts().values())
        kind = self.spec if self.columns is None else f"{len(self.columns)} columns"
        lines = [f"{shorten(self.name, 40)}: {kind}"]
        for split, part in self.parts().items():
            lines.append(f"  {split:<11} {len(part):>{width},} row{'' if len(part) == 1 else 's'}")
        lines += [f"  {name:<11} {text}" for name, text in self._notes()]
        return "\n".join([*lines, *table_of(self.columns or (), self.observed)])

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        rows = [(split, f"{len(part):,} rows") for split, part in self.parts().items()]
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in [*rows, *self._notes()]
        )
        caption = html.escape(f"{self.name}: {self.spec}")
        return f"<table><caption>{caption}</caption>{cells}</table>"

    def _notes(self) -> list[tuple[str, str]]:
        notes = []
        kind = "random" if self.split is None else str(self.split["kind"])
        if kind not in ("random", "published"):
            notes.append(("split", {"groups": "by groups", "time": "in time"}.get(kind, kind)))
        if self.observed is not None:
            holes = sum(int((~mask).sum()) for mask in self.observed.values())
            cells = sum(part.numel() for part in self.parts().values())
            notes.append(("missing", f"{holes:,} of {cells:,} entries"))
        if self.labels is not None:
            role = "" if self.context_dropout is None else "; the context of conditional models"
            kinds = f", of {len(self.classes)} classes" if self.classes else ""
            notes.append(("labels", f"one a row{kinds}{role}"))
        if self.resample is not None:
            notes.append(("bits", "drawn again at every visit of a training row"))
        if self.entropy_floor is not None:
            notes.append(("entropy", f"{self.entropy_floor:.2f} nats a test row are noise"))
        return notes


@checked
def conditional(data: Dataset, dropout: float = 0.1) -> Dataset:
    """The same rows, with their labels as the context of a conditional model.

    :func:`~genmod.training.fit` then passes labels as each batch's ``context``; validations and
    :func:`~genmod.evaluation.evaluate` pass those of the part that they score. In training the context of
    some rows is dropped, drawn again at every visit. So the model also learns the unconditional
    distribution, which classifier-free guidance needs.

    Args:
        data: with labels: integers, for a model with ``condition=Labels(n)``, or rows of real numbers,
            for ``condition=Vectors(n)``.
        dropout: the fraction of rows without a context; 0 for a model that always gets one.

    Returns:
        A data set with the rows, parts and labels of ``data``.

    Raises:
        ValueError: data without labels, or a fraction outside [0, 1].

    Reference:
        Ho and Salimans 2022, Classifier-free diffusion guidance, algorithm 1.

    >>> from genmod.data import load
    >>> digits = load("digits")
    >>> digits.context("test"), conditional(digits).context("test")[:3]
    (None, tensor([6, 5, 5]))
    """
    return replace(data, context_dropout=dropout)


def digest(*tensors: Tensor) -> str:
    """Sixteen hexadecimal digits that depend on every shape, type and value."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        bytes_of = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        found.update(bytes_of.numpy().data if tensor.numel() else b"")
    return found.hexdigest()[:16]
