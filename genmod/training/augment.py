"""Data augmentation: random flips and shifts of a batch of training rows.

Pass them as ``fit(..., augment=[Flip(), Shift(2)])``. Each step draws new flips and shifts by noise that is
keyed by the seed, the step and the row, so that a resumed run sees the same rows. Validation data stay
as they are.

A model of augmented data is a model of another distribution: compare the bound on the validation data with
and without augmentation. Flip only what may be flipped: a mirrored digit is no digit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from genmod import random
from genmod.checks import check_at_least, invalid
from genmod.objectives import Batch
from genmod.random.streams import mix
from genmod.signatures import check_fields

_AUGMENT = 0xA06
"""Part of the key of the noise of augmentation, which must differ from the model's noise."""


class Augmentation(ABC):
    """A random transform of a batch of rows, ``(B, *event)`` to the same shape.

    A subclass implements ``__call__``. It draws noise by :mod:`genmod.random`, one draw for each row, and
    moves entries without changing them, so that a mask of observed entries can be moved alike.
    """

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The transformed rows, of the same shape and type."""


Transform: TypeAlias = Augmentation | Callable[[Tensor], Tensor]
"""An :class:`Augmentation`, or a function of one's own on a batch of rows."""


@dataclass(frozen=True)
class Flip(Augmentation):
    """Mirror each row along one dimension with some probability (a horizontal flip by default).

    Args:
        dim: the dimension of the batch to mirror: -1 is the width of an image, -2 its height.
        probability: the probability of a flip, in [0, 1].

    Raises:
        ValueError: a probability outside [0, 1].

    >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> Flip(probability=1.0)(x)
    tensor([[[[1., 0.],
              [3., 2.]]]])
    """

    dim: int = -1
    probability: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.probability <= 1:
            raise invalid(
                f"probability={self.probability}", "a probability in [0, 1]", "0.5 is usual"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """The rows, some of them mirrored."""
        _check_dim(x, self.dim)
        flipped = random.uniform((len(x),), device=x.device) < self.probability
        return torch.where(_like_rows(flipped, x), x.flip(self.dim), x)


@dataclass(frozen=True)
class Shift(Augmentation):
    """Translate each row by a random whole number of pixels along each spatial dimension.

    The number is uniform in ``-pixels .. pixels``. Pixels that enter repeat those of the border, so that
    integers stay integers and the background stays the background.

    Args:
        pixels: the largest shift, at least 1.
        dims: the number of trailing dimensions that are shifted: 2 for images, 1 for sequences.

    Raises:
        ValueError: no pixels, or no dimensions.

    >>> from genmod.random import keyed
    >>> with keyed(0):
    ...     moved = Shift(1, dims=1)(torch.arange(5).expand(3, 1, 5))
    >>> moved.shape, int(moved.min()) >= 0, int(moved.max()) <= 4
    (torch.Size([3, 1, 5]), True, True)
    """

    pixels: int = 2
    dims: int = 2

    def __post_init__(self) -> None:
        check_fields(self)
        check_at_least(self.pixels, 1, "pixels", "2 suits small images")
        check_at_least(self.dims, 1, "dims", "pass 2 for images")

    def __call__(self, x: Tensor) -> Tensor:
        """The rows, each of them shifted."""
        _check_dim(x, -self.dims)
        span = 2 * self.pixels + 1
        # In float64: floor(u * span) of a float32 u just below one would round up to span.
        noise = random.uniform((len(x), self.dims), torch.float64, x.device)
        offsets = (noise * span).floor().long() - self.pixels
        for number, dim in enumerate(range(x.ndim - self.dims, x.ndim)):
            place = torch.arange(x.shape[dim], device=x.device)
            source = (place - offsets[:, number, None]).clamp(0, x.shape[dim] - 1)
            shape = [len(x), *[1] * (dim - 1), x.shape[dim], *[1] * (x.ndim - dim - 1)]
            x = x.gather(dim, source.reshape(shape).expand_as(x))
        return x


def augmented(batch: Batch, transforms: Sequence[Transform], seed: int, step: int) -> Batch:
    """The batch of a step, transformed. A mask of observed entries is moved with its rows.

    Raises:
        ValueError: a transform that changes the shape or the type of the rows, or of their mask.
    """
    x, observed = batch.x, batch.observed
    for number, transform in enumerate(transforms):
        key = mix(seed, _AUGMENT, number)
        with random.keyed(key, step):
            x = _like(transform(x), x, transform, "let the transform keep both")
        if observed is not None:
            advice = "derive it from Augmentation, which moves entries and does not change them"
            # The same key, hence the same flips and shifts.
            with random.keyed(key, step):
                observed = _like(transform(observed), observed, transform, advice)
    return replace(batch, x=x, observed=observed)


def _like(found: object, given: Tensor, transform: Transform, advice: str) -> Tensor:
    """What a transform returned, of the shape and type of what it was given."""
    if isinstance(found, Tensor) and found.shape == given.shape and found.dtype is given.dtype:
        return found
    got = f"a {type(found).__name__}"
    if isinstance(found, Tensor):
        got = f"shape {tuple(found.shape)} and type {found.dtype}"
    name = getattr(transform, "__name__", type(transform).__name__)
    raise invalid(
        f"{got} from {name} for rows",
        f"a tensor of shape {tuple(given.shape)} and type {given.dtype}",
        advice,
    )


def _like_rows(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 1))


def _check_dim(x: Tensor, dim: int) -> None:
    if dim == 0 or not -x.ndim < dim < x.ndim:
        raise invalid(
            f"dimension {dim} of rows of shape {tuple(x.shape[1:])}",
            f"a dimension of the event, from {1 - x.ndim} to -1",
            "pass dim=-1 for the last one",
        )
