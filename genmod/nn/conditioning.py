"""What a network is told beside its input: a label, some numbers, or nothing.

One convention for *nothing told*: a label of ``NULL_LABEL`` (-1), a row of NaN among numbers. A model
that hears nothing in some rows of its training knows the unconditional law as well, which is what
classifier-free guidance compares with; :func:`null_context` is the context to ask it with.

Reference: Ho, Salimans, "Classifier-Free Diffusion Guidance" (2022), section 3.2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genmod import random
from genmod.checks import is_trusted, require

NULL_LABEL = -1
"""The label that says nothing."""


def null_context(context: Tensor) -> Tensor:
    """A context of the same shape and type that tells nothing in any row.

    Raises:
        ValueError: a type that can hold neither (booleans, unsigned integers).

    >>> null_context(torch.tensor([3, 7])), null_context(torch.zeros(1, 2))
    (tensor([-1, -1]), tensor([[nan, nan]]))
    """
    if context.is_floating_point():
        return torch.full_like(context, math.nan)
    require(
        context.dtype in (torch.int8, torch.int16, torch.int32, torch.int64),
        f"a context of type {context.dtype}",
        "labels as signed integers, or floating point numbers",
        "convert it: labels.long(), or vectors.float()",
    )
    return torch.full_like(context, NULL_LABEL)


def is_null_context(context: Tensor) -> Tensor:
    """Which rows tell nothing, ``(B,)``.

    >>> is_null_context(torch.tensor([3, -1]))
    tensor([False,  True])
    """
    rows = context.reshape(len(context), -1)
    return (rows.isnan() if rows.is_floating_point() else rows == NULL_LABEL).all(1)


def drop_context(context: Tensor, rate: float) -> Tensor:
    """The context with nothing told in a share of its rows, drawn anew at each call.

    Args:
        context: ``(B, ...)``.
        rate: the probability that a row is told nothing; 0.1 is customary.

    Raises:
        ValueError: a rate outside [0, 1].

    Reference: Ho, Salimans, "Classifier-Free Diffusion Guidance" (2022), algorithm 1.

    >>> drop_context(torch.tensor([3, 7]), rate=1.0)
    tensor([-1, -1])
    """
    require(0 <= rate <= 1, f"rate={rate}", "a rate in [0, 1]", "0.1 is customary, 0 drops nothing")
    gone = random.uniform((len(context),), device=context.device) < rate
    return torch.where(gone[(..., *[None] * (context.ndim - 1))], null_context(context), context)


class Condition(ABC):
    """A kind of context: what its rows look like, and the features a linear layer reads of them."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many features a row has; 0: what is told is not listened to."""

    @abstractmethod
    def check(self, context: Tensor) -> None:
        """Require a context of this kind; values are not read where they are trusted.

        Raises:
            ValueError: another type or shape, or values that mean nothing here.
        """

    @abstractmethod
    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """``(B, ...)`` to ``(B, width)``, of mean square one for values of mean square one."""


@dataclass(frozen=True)
class Labels(Condition):
    """One of several classes, ``(B,)`` integers in ``0 .. classes - 1``, or ``NULL_LABEL``.

    Each class, and nothing, is a direction of its own: the linear layer that reads it holds a learned
    embedding of each.

    Args:
        classes: how many there are.

    Raises:
        ValueError: fewer than one class.
    """

    classes: int

    def __post_init__(self) -> None:
        require(self.classes >= 1, f"classes={self.classes}", "at least 1", "count the labels")

    @property
    def width(self) -> int:
        """One for each class, and one for nothing."""
        return self.classes + 1

    def check(self, context: Tensor) -> None:
        """Require integers ``(B,)`` in ``-1 .. classes - 1``."""
        require(
            context.ndim == 1 and not context.is_floating_point(),
            f"a context of type {context.dtype} and shape {tuple(context.shape)}",
            "integer labels of shape (B,)",
            "pass one label a row, or build the network with context=Vectors(n)",
        )
        if is_trusted() or len(context) == 0:
            return
        low, high = int(context.min()), int(context.max())
        require(
            low >= NULL_LABEL and high < self.classes,
            f"labels from {low} to {high}",
            f"0..{self.classes - 1}, or {NULL_LABEL} for nothing",
            f"build the network with context=Labels({high + 1}), or shift the labels",
        )

    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hot, times ``sqrt(width)``."""
        places = torch.where(context < 0, self.classes, context.long())
        hot = nn.functional.one_hot(places, self.width)
        return hot.to(dtype) * math.sqrt(self.width)


@dataclass(frozen=True)
class Vectors(Condition):
    """Real numbers, ``(B, size)``, of spread near one; a row of NaN tells nothing.

    Args:
        size: how many numbers a row has.

    Raises:
        ValueError: fewer than one.
    """

    size: int

    def __post_init__(self) -> None:
        require(self.size >= 1, f"size={self.size}", "at least 1", "count the numbers of a row")

    @property
    def width(self) -> int:
        """The numbers, and whether nothing was told."""
        return self.size + 1

    def check(self, context: Tensor) -> None:
        """Require rows of real numbers ``(B, size)``, each finite or NaN throughout."""
        require(
            context.ndim == 2 and context.shape[1] == self.size and context.is_floating_point(),
            f"a context of type {context.dtype} and shape {tuple(context.shape)}",
            f"real numbers of shape (B, {self.size})",
            "pass one row of numbers a sample (context.float() makes whole ones real), or build the "
            "network with context=Labels(classes)",
        )
        if is_trusted():
            return
        broken = ~(context.isfinite().all(1) | is_null_context(context))
        count = int(broken.sum())
        require(
            count == 0,
            f"{count} rows of context with some NaN, or infinite, numbers",
            "finite numbers, or NaN throughout for nothing told",
            "clean the context",
        )

    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """The numbers (0 where nothing was told), and 1 where nothing was told."""
        gone = is_null_context(context)[:, None]
        return torch.cat([context.to(dtype).masked_fill(gone, 0.0), gone.to(dtype)], 1)


@dataclass(frozen=True)
class Ignored(Condition):
    """Whatever is told, or nothing at all: the network does not listen.

    For parts of a conditional model that are themselves unconditional, such as the autoencoder of a
    latent diffusion.
    """

    @property
    def width(self) -> int:
        """None."""
        return 0

    def check(self, context: Tensor) -> None:
        """Anything goes."""

    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """No features."""
        return torch.zeros(len(context), 0, dtype=dtype, device=context.device)


class ContextEmbedding(nn.Module):
    """The layer of a network that listens: a linear layer on the features of a context.

    Args:
        context: the kind of context; ``n`` is short for ``Vectors(n)``, and 0 is none.
        outputs: how many numbers the network wants to hear.
    """

    def __init__(self, context: Condition | int, outputs: int) -> None:
        super().__init__()
        self.condition = _kind(context)
        features = 0 if self.condition is None else self.condition.width
        self.linear = nn.Linear(features, outputs) if features else None
        self.width = outputs if features else 0

    def forward(self, context: Tensor | None, rows: int) -> Tensor | None:
        """``(rows, outputs)``, or ``None`` if the network does not listen.

        Raises:
            ValueError: a context where none is expected, none where one is, or one of another kind.
        """
        if self.condition is None:
            require(
                context is None,
                "a context",
                "none",
                "build the network with context=Labels(n) or Vectors(n) to tell it something, or with "
                "context=Ignored() to let pass what the rest of its model is told",
            )
        if self.condition is None or self.linear is None:
            return None
        # On other devices reading values would make them wait at each step: see check_context.
        if context is None or context.device.type == "cpu":
            self.check(context)
        assert context is not None
        require(
            len(context) == rows,
            f"a context of {len(context)} rows for {rows} samples",
            "one row a sample",
            "repeat it, or pass fewer samples",
        )
        return self.linear(self.condition.features(context, self.linear.weight.dtype))

    def check(self, context: Tensor | None) -> None:
        """Require the context that the layer was built for, if it was built for one."""
        if self.linear is None or self.condition is None:
            return
        if context is None:
            raise ValueError(
                f"got no context; expected one for {self.condition}; pass context=..., made with "
                "nothing_like(context) where nothing is to be told"
            )
        self.condition.check(context)


def _kind(context: Condition | int) -> Condition | None:
    if isinstance(context, Condition):
        return context
    return Vectors(context) if context else None


def check_context(network: nn.Module, context: Tensor | None) -> None:
    """Require a context that all parts of a network, or of a model, can listen to.

    Raises:
        ValueError: none where one is expected, or one of another kind or with other values.
    """
    for module in network.modules():
        if isinstance(module, ContextEmbedding):
            module.check(context)
