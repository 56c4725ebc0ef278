"""Contexts: the second input of conditional networks, class labels or vectors of numbers.

The null context means "unconditional". It is the label ``NULL_LABEL``, or a row of NaN, and
:func:`null_context` makes one. A model that is trained with null contexts in some rows also learns the
unconditional law, which classifier-free guidance needs.

Reference: Ho, Salimans, "Classifier-Free Diffusion Guidance" (2022), section 3.2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genmod import random
from genmod.checks import can_read, check_at_least, invalid
from genmod.config import register
from genmod.signatures import check_fields

NULL_LABEL = -100
"""The label of an unconditional row. It is -100, which ``torch.nn.functional.cross_entropy`` ignores by
default, and not -1, which binary labels use as a class."""


@register
def null_context(context: Tensor) -> Tensor:
    """A null context of the same shape and type as a context.

    Raises:
        ValueError: a type that holds neither -100 nor NaN (booleans, unsigned integers).

    >>> null_context(torch.tensor([3, 7])), null_context(torch.zeros(1, 2))
    (tensor([-100, -100]), tensor([[nan, nan]]))
    """
    if context.is_floating_point():
        return torch.full_like(context, math.nan)
    if context.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise invalid(
            f"a context of type {context.dtype}",
            "labels as signed integers, or floating point numbers",
            "convert it: labels.long(), or vectors.float()",
        )
    return torch.full_like(context, NULL_LABEL)


def is_null_context(context: Tensor) -> Tensor:
    """Whether each row is a null context, ``(B,)``.

    >>> is_null_context(torch.tensor([3, NULL_LABEL]))
    tensor([False,  True])
    """
    rows = context.reshape(len(context), -1)
    return (rows.isnan() if rows.is_floating_point() else rows == NULL_LABEL).all(1)


def drop_context(context: Tensor, rate: float) -> Tensor:
    """The context with each row replaced by the null context with probability ``rate``.

    Args:
        context: ``(B, ...)``.
        rate: the probability, in [0, 1], usually 0.1. Each call draws new rows.

    Raises:
        ValueError: a rate outside [0, 1].

    Reference: Ho, Salimans, "Classifier-Free Diffusion Guidance" (2022), algorithm 1.

    >>> drop_context(torch.tensor([3, 7]), rate=1.0)
    tensor([-100, -100])
    """
    if not 0 <= rate <= 1:
        raise invalid(f"rate={rate}", "a rate in [0, 1]", "0.1 is usual, 0 drops nothing")
    dropped = random.uniform((len(context),), device=context.device) < rate
    return torch.where(dropped[(..., *[None] * (context.ndim - 1))], null_context(context), context)


class Condition(ABC):
    """A kind of context: it checks a batch of contexts, and turns it into features for a linear layer."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of features of a row; 0: the context is ignored."""

    @abstractmethod
    def check(self, context: Tensor) -> None:
        """Require a context of this kind. Inside ``trusted()`` only its shape and type are checked.

        Raises:
            ValueError: another type or shape, or values out of range.
        """

    @abstractmethod
    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """The features, ``(B, width)``. Their mean square is about one, as that of the context."""


@dataclass(frozen=True)
class Labels(Condition):
    """Class labels as a condition: integers ``(B,)`` in ``0 .. classes - 1``, or ``NULL_LABEL``.

    Pass it as ``condition=`` when a model is built, and the labels as ``context=`` when it is called.
    The features are one-hot vectors of length ``classes + 1``, times ``sqrt(classes + 1)``. The linear
    layer that reads them is a learned embedding of each class and of the null label, which stands for
    "unconditional" (classifier-free guidance).

    Args:
        classes: the number of classes, at least 1.

    Raises:
        ValueError: fewer than one class.

    Reference: Ho, Salimans, "Classifier-Free Diffusion Guidance" (2022), section 3.2.

    >>> from genmod.models import Diffusion
    >>> model = Diffusion((1, 8, 8), bins=17, condition=Labels(10), width=16)
    >>> model.sample(2, steps=2, context=torch.tensor([3, 7]), guidance_scale=2.0).shape
    torch.Size([2, 1, 8, 8])
    >>> Labels(2).features(torch.tensor([1, NULL_LABEL]), torch.float32)
    tensor([[0.0000, 1.7321, 0.0000],
            [0.0000, 0.0000, 1.7321]])
    """

    classes: int

    def __post_init__(self) -> None:
        check_fields(self)
        check_at_least(self.classes, 1, "classes", "pass the number of different labels")

    @property
    def width(self) -> int:
        """One feature for each class, and one for the null label."""
        return self.classes + 1

    def check(self, context: Tensor) -> None:
        """Require integers ``(B,)`` in ``0 .. classes - 1``, or ``NULL_LABEL``."""
        if context.ndim != 1 or context.is_floating_point():
            raise invalid(
                f"a context of type {context.dtype} and shape {tuple(context.shape)}",
                "integer labels of shape (B,)",
                "pass one label a row, or build the network with context=Vectors(n)",
            )
        if not can_read(context) or len(context) == 0:
            return
        labels = context[context != NULL_LABEL]
        if labels.numel() == 0:
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.classes:
            raise invalid(
                f"labels from {low} to {high}",
                f"0..{self.classes - 1}, or NULL_LABEL ({NULL_LABEL}) for unconditional rows",
                "number the classes from 0 (torch.unique(labels, return_inverse=True)[1]), or "
                f"build the network with context=Labels({max(high, 0) + 1})",
            )

    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hot vectors, times ``sqrt(width)``."""
        places = torch.where(context == NULL_LABEL, self.classes, context.long())
        hot = nn.functional.one_hot(places, self.width)
        return hot.to(dtype) * math.sqrt(self.width)


@dataclass(frozen=True)
class Vectors(Condition):
    """Vectors of real numbers as a condition, ``(B, size)``. A row of NaN is a null context.

    Standardize them, so that each number has a standard deviation near one.

    Args:
        size: the length of a vector, at least 1.

    Raises:
        ValueError: fewer than one.
    """

    size: int

    def __post_init__(self) -> None:
        check_fields(self)
        check_at_least(self.size, 1, "size", "pass the length of a vector")

    @property
    def width(self) -> int:
        """The numbers, and one feature that is 1 where the row is null."""
        return self.size + 1

    def check(self, context: Tensor) -> None:
        """Require vectors ``(B, size)``, each of them finite or NaN in all entries."""
        if context.ndim != 2 or context.shape[1] != self.size or not context.is_floating_point():
            raise invalid(
                f"a context of type {context.dtype} and shape {tuple(context.shape)}",
                f"real numbers of shape (B, {self.size})",
                "pass one vector a sample (use context.float() for integers), or build the "
                "network with context=Labels(classes)",
            )
        if not can_read(context):
            return
        broken = ~(context.isfinite().all(1) | is_null_context(context))
        count = int(broken.sum())
        if count > 0:
            raise invalid(
                f"{count} rows of context with some NaN, or infinite, numbers",
                "finite numbers, or NaN in the whole row for an unconditional sample",
                "fill or drop these rows",
            )

    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """The numbers (0 in a null row), and a last feature that is 1 in a null row."""
        null = is_null_context(context)[:, None]
        return torch.cat([context.to(dtype).masked_fill(null, 0.0), null.to(dtype)], 1)


@dataclass(frozen=True)
class Ignored(Condition):
    """A condition that ignores its context: any context, or none, is accepted.

    Use it for unconditional parts of a conditional model, such as the autoencoder of a latent diffusion.
    """

    @property
    def width(self) -> int:
        """No features."""
        return 0

    def check(self, context: Tensor) -> None:
        """Accept any context."""

    def features(self, context: Tensor, dtype: torch.dtype) -> Tensor:
        """No features."""
        return torch.zeros(len(context), 0, dtype=dtype, device=context.device)
