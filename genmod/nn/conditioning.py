"""Contexts: what conditional networks get beside their input, class labels or vectors of numbers.

The null context stands for "unconditional": the label ``NULL_LABEL``, or a row of NaN. A model that is
trained with null contexts in some rows learns the unconditional law as well, which classifier-free
guidance needs. :func:`null_context` makes one.

Reference: Ho, Salimans, "Classifier-Free Diffusion Guidance" (2022), section 3.2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genmod import random
from genmod.checks import can_read, require
from genmod.config import register

NULL_LABEL = -100
"""The label of an unconditional row. Not -1, which binary data use for a class of its own; -100 is the
label that ``torch.nn.functional.cross_entropy`` leaves out."""


@register
def null_context(context: Tensor) -> Tensor:
    """The null context of the same shape and type.

    Raises:
        ValueError: a type that can hold neither (booleans, unsigned integers).

    >>> null_context(torch.tensor([3, 7])), null_context(torch.zeros(1, 2))
    (tensor([-100, -100]), tensor([[nan, nan]]))
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
    """Which rows are null, ``(B,)``.

    >>> is_null_context(torch.tensor([3, NULL_LABEL]))
    tensor([False,  True])
    """
    rows = context.reshape(len(context), -1)
    return (rows.isnan() if rows.is_floating_point() else rows == NULL_LABEL).all(1)


def drop_context(context: Tensor, rate: float) -> Tensor:
    """The context with each row replaced by the null context with probability ``rate``.

    Args:
        context: ``(B, ...)``.
        rate: the probability, usually 0.1. The draw is new at each call.

    Raises:
        ValueError: a rate outside [0, 1].

    Reference: Ho, Salimans, "Classifier-Free Diffusion Guidance" (2022), algorithm 1.

    >>> drop_context(torch.tensor([3, 7]), rate=1.0)
    tensor([-100, -100])
    """
    require(0 <= rate <= 1, f"rate={rate}", "a rate in [0, 1]", "0.1 is usual, 0 drops nothing")
    dropped = random.uniform((len(context),), device=context.device) < rate
    return torch.where(dropped[(..., *[None] * (context.ndim - 1))], null_context(context), context)


class Condition(ABC):
    """A kind of context: the check of its rows, and their features for a linear layer."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of features of a row; 0 ignores the context."""

    @abstractmethod
    def check(self, context: Tensor) -> None:
        """Require a context of this kind; values are not read inside ``trusted()``.

        Raises:
            ValueError: another type or shape, or values out of range.
        """

    @abstractmethod
    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """``(B, ...)`` to ``(B, width)``, of mean square one for values of mean square one."""


@dataclass(frozen=True)
class Labels(Condition):
    """Class labels, ``(B,)`` integers in ``0 .. classes - 1``, or ``NULL_LABEL``.

    Features are one-hot, so the linear layer that reads them is a learned embedding of each class and of
    the null label.

    Args:
        classes: the number of classes.

    Raises:
        ValueError: fewer than one class.
    """

    classes: int

    def __post_init__(self) -> None:
        require(self.classes >= 1, f"classes={self.classes}", "at least 1", "count the labels")

    @property
    def width(self) -> int:
        """One for each class, and one for the null label."""
        return self.classes + 1

    def check(self, context: Tensor) -> None:
        """Require integers ``(B,)`` in ``0 .. classes - 1``, or ``NULL_LABEL``."""
        require(
            context.ndim == 1 and not context.is_floating_point(),
            f"a context of type {context.dtype} and shape {tuple(context.shape)}",
            "integer labels of shape (B,)",
            "pass one label a row, or build the network with context=Vectors(n)",
        )
        if not can_read(context) or len(context) == 0:
            return
        stated = context[context != NULL_LABEL]
        if stated.numel() == 0:
            return
        low, high = int(stated.min()), int(stated.max())
        require(
            low >= 0 and high < self.classes,
            f"labels from {low} to {high}",
            f"0..{self.classes - 1}, or NULL_LABEL ({NULL_LABEL}) for unconditional rows",
            "number the classes from 0 (torch.unique(labels, return_inverse=True)[1]), or build the "
            f"network with context=Labels({max(high, 0) + 1})",
        )

    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hot, times ``sqrt(width)``."""
        places = torch.where(context == NULL_LABEL, self.classes, context.long())
        hot = nn.functional.one_hot(places, self.width)
        return hot.to(dtype) * math.sqrt(self.width)


@dataclass(frozen=True)
class Vectors(Condition):
    """Vectors of real numbers, ``(B, size)``, of spread near one; a row of NaN is null.

    Args:
        size: the length of a row.

    Raises:
        ValueError: fewer than one.
    """

    size: int

    def __post_init__(self) -> None:
        require(self.size >= 1, f"size={self.size}", "at least 1", "count the numbers of a row")

    @property
    def width(self) -> int:
        """The numbers, and whether the row is null."""
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
        if not can_read(context):
            return
        broken = ~(context.isfinite().all(1) | is_null_context(context))
        count = int(broken.sum())
        require(
            count == 0,
            f"{count} rows of context with some NaN, or infinite, numbers",
            "finite numbers, or NaN throughout for an unconditional row",
            "clean the context",
        )

    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """The numbers (0 in a null row), and 1 in a null row."""
        null = is_null_context(context)[:, None]
        return torch.cat([context.to(dtype).masked_fill(null, 0.0), null.to(dtype)], 1)


@dataclass(frozen=True)
class Ignored(Condition):
    """Any context, or none, without effect on the network.

    For unconditional parts of a conditional model, such as the autoencoder of a latent diffusion.
    """

    @property
    def width(self) -> int:
        """None."""
        return 0

    def check(self, context: Tensor) -> None:
        """Accept everything."""

    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """No features."""
        return torch.zeros(len(context), 0, dtype=dtype, device=context.device)
