"""A data set: three checked tensors in memory, and the spec that they share.

``N`` rows, each an event of one shape. Integers are kept in one byte where they fit. Arithmetic on
bytes wraps without a word (``2 * 200`` is 144): widen a batch before computing with it, as models do.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping
from dataclasses import dataclass as frozen_record
from dataclasses import replace

import torch
from torch import Tensor

from genmod.checks import one_of, require
from genmod.data.binarized import BernoulliPixels
from genmod.data.values import check_values, storage
from genmod.shapes import Shape
from genmod.spec import DataSpec

SPLITS = ("train", "validation", "test")


@frozen_record(frozen=True, eq=False, repr=False)
class Dataset:
    """Three parts of one data set, checked when it is built.

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
        entropy: the entropy of each test row's noise in nats, ``H(b | x)``, where the data are drawn from
            something known; ``None`` for all other data.
        context_dropout: the share of training rows whose label is hidden from a conditional model;
            ``None`` for models without a context (see :func:`~genmod.data.conditional`).

    Raises:
        ValueError: where the parts disagree, or values do not belong.

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

    def __post_init__(self) -> None:
        for split, part in self.parts().items():
            _check_part(split, part, self.train, self.bins)
            check_values(part, self.bins, split)
            if self.bins is not None:
                object.__setattr__(self, split, part.to(storage(self.bins)))
        require(
            len(self.train) >= 1,
            "an empty training part",
            "at least one row to learn from",
            "lower the fractions of validation and test",
        )
        if self.labels is not None:
            _check_labels(self.labels, self.parts())
        if self.resample is not None:
            _check_resample(self.resample, self.train, self.bins)
        if self.context_dropout is not None:
            _check_dropout(self.context_dropout, self.labels)
        if self.entropy is not None:
            _check_entropy(self.entropy, self.test)

    @property
    def spec(self) -> DataSpec:
        """What the data are: the shape of one event, reals or integers."""
        return DataSpec(self.shape, self.bins)

    @property
    def shape(self) -> Shape:
        """The shape of one event."""
        return tuple(self.train.shape[1:])

    def parts(self) -> dict[str, Tensor]:
        """The three tensors by name, training first."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def entropy_floor(self) -> float | None:
        """The mean entropy of the noise in a test row, ``E_x H(b | x)``: no model costs fewer nats."""
        if self.entropy is None or not len(self.entropy):
            return None
        return float(self.entropy.mean())

    def cut(self, split: str, rows: int) -> Dataset:
        """The same data with only the first rows of a part, and the labels and noise that go with them.

        Args:
            split: ``"train"``, ``"validation"`` or ``"test"``.
            rows: how many to keep; all of them where there are no more.

        Raises:
            ValueError: an unknown part, or a negative number of rows.

        >>> from genmod.data import digits
        >>> len(digits().cut("test", 10).test)
        10
        """
        one_of(SPLITS, split, "split")
        require(rows >= 0, f"rows={rows}", "at least 0", "0 leaves the part out")
        train, validation, test = {**self.parts(), split: self.parts()[split][:rows]}.values()
        labels, resample, entropy = self.labels, self.resample, self.entropy
        if labels is not None:
            labels = {**labels, split: labels[split][:rows]}
        if resample is not None and split == "train":
            resample = BernoulliPixels(resample.gray[:rows], resample.bins)
        if entropy is not None and split == "test":
            entropy = entropy[:rows]
        return replace(
            self,
            train=train,
            validation=validation,
            test=test,
            labels=labels,
            resample=resample,
            entropy=entropy,
        )

    def context(self, split: str) -> Tensor | None:
        """The context of a part's rows for a conditional model: their labels; else ``None``."""
        if self.context_dropout is None or self.labels is None:
            return None
        labels = self.labels[split]
        return labels.to(torch.get_default_dtype()) if labels.is_floating_point() else labels

    def identity(self) -> dict[str, object]:
        """The name, the spec, and a digest of the values of each part: equal only for equal data.

        Plain data, for files that record what a run was trained on.

        >>> data = Dataset("ones", *3 * (torch.ones(2, 1),))
        >>> sorted(data.identity())
        ['bins', 'data', 'shape', 'test', 'train', 'validation']
        """
        found: dict[str, object] = {"data": self.name, "shape": list(self.shape), "bins": self.bins}
        found |= {split: digest(part) for split, part in self.parts().items()}
        if self.labels is not None:
            found["labels"] = digest(*(self.labels[split] for split in SPLITS))
        if self.resample is not None:
            found["gray values"] = digest(self.resample.gray) + f" of {self.resample.bins}"
        if self.context_dropout is not None:
            found["context_dropout"] = self.context_dropout
        return found

    def summary(self) -> str:
        """The data set in one line."""
        sizes = " + ".join(f"{len(part)} {split}" for split, part in self.parts().items())
        return f"{self.name} ({sizes} rows of {self.spec})"

    def __repr__(self) -> str:
        width = max(len(f"{len(part):,}") for part in self.parts().values())
        lines = [f"{_short(self.name)}: {self.spec}"]
        for split, part in self.parts().items():
            lines.append(f"  {split:<11} {len(part):>{width},} row{'' if len(part) == 1 else 's'}")
        return "\n".join([*lines, *(f"  {name:<11} {text}" for name, text in self._notes())])

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
        if self.labels is not None:
            role = "" if self.context_dropout is None else "; the context of conditional models"
            notes.append(("labels", f"one a row{role}"))
        if self.resample is not None:
            notes.append(("bits", "drawn again at every visit of a training row"))
        if self.entropy_floor is not None:
            notes.append(("entropy", f"{self.entropy_floor:.2f} nats a test row are noise"))
        return notes


def conditional(data: Dataset, dropout: float = 0.1) -> Dataset:
    """The same rows, with their labels as the context of a conditional model.

    :func:`~genmod.training.fit` then passes labels as each batch's ``context``; validations and
    :func:`~genmod.evaluation.evaluate` pass those of the part that they score. In training the context of
    a share of the rows is dropped, drawn again at every visit, so that the model also learns the
    unconditional distribution: classifier-free guidance needs it.

    Args:
        data: with labels: integers, for a model with ``condition=Labels(n)``, or rows of real numbers,
            for ``condition=Vectors(n)``.
        dropout: the share without a context; 0 for a model that always gets one.

    Returns:
        A data set with the rows, parts and labels of ``data``.

    Raises:
        ValueError: data without labels, or a share outside [0, 1].

    Reference:
        Ho and Salimans 2022, Classifier-free diffusion guidance, algorithm 1.

    >>> from genmod.data import digits
    >>> digits().context("test"), conditional(digits()).context("test")[:3]
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


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"


def _check_part(split: str, part: Tensor, train: Tensor, bins: int | None) -> None:
    require(
        part.ndim >= 2
        and part.shape[1:] == train.shape[1:]
        and (bins is not None or part.dtype == train.dtype),
        f"a {split} part of shape {tuple(part.shape)} and type {part.dtype}",
        f"rows (N, *event) like the training part: {tuple(train.shape)}, {train.dtype}",
        "cut all parts from one tensor, or use genmod.data.dataset",
    )


def _check_labels(labels: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> None:
    sizes = {split: len(part) for split, part in parts.items()}
    got = {split: len(marks) for split, marks in labels.items()}
    require(got == sizes, f"labels per part {got}", f"{sizes}", "give one label a row of each part")


def _check_resample(resample: BernoulliPixels, train: Tensor, bins: int | None) -> None:
    require(
        bins == 2 and resample.gray.shape == train.shape,
        f"Bernoulli pixels of shape {tuple(resample.gray.shape)} for a training part of shape "
        f"{tuple(train.shape)} with bins={bins}",
        "bits (bins=2), and a pixel for each of them",
        "use genmod.data.binarized",
    )


def _check_entropy(entropy: Tensor, test: Tensor) -> None:
    require(
        entropy.shape == (len(test),),
        f"an entropy of shape {tuple(entropy.shape)} for a test part of {len(test)} rows",
        "one for each of them",
        "cut both with data.cut('test', rows), or cut the gray images before genmod.data.binarized",
    )
    wrong = int((~(entropy.isfinite() & (entropy >= 0))).sum())
    require(
        wrong == 0,
        f"{wrong} entropies that are negative or not finite",
        "nats for each row, at least 0",
        "use genmod.data.binarized",
    )


def _check_dropout(rate: float, labels: Mapping[str, Tensor] | None) -> None:
    require(
        labels is not None and 0 <= rate <= 1,
        f"context_dropout={rate} with{'out' if labels is None else ''} labels",
        "a rate in [0, 1], and labels to give as the context",
        "use genmod.data.conditional",
    )
