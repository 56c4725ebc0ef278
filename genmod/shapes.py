"""The shapes of tensors, written once: a batch has its rows first, the rest is one event.

``B`` rows of a batch, ``L`` visited levels, ``*event`` whatever shape one sample has. The names are checked
at run time by the tests (jaxtyping with beartype).
"""

from __future__ import annotations

import math
from typing import TypeAlias

from jaxtyping import Bool, Float, Shaped
from torch import Size, Tensor

Shape: TypeAlias = tuple[int, ...]
Sizes: TypeAlias = Size | list[int] | tuple[int, ...]
"""What torch's distributions take for a sample shape."""
PerSample: TypeAlias = Float[Tensor, "B"]
PerLevel: TypeAlias = Float[Tensor, "B L"]
Batch: TypeAlias = Shaped[Tensor, "B *event"]
Real: TypeAlias = Float[Tensor, "B *event"]
Mask: TypeAlias = Bool[Tensor, "B *event"]
LatentTensors: TypeAlias = Tensor | tuple[Tensor, ...]
"""One latent, or the latents of a hierarchy in the order in which its prior draws them."""


def size(shape: Shape) -> int:
    """The number of dimensions of one event: the product of its shape.

    >>> size((1, 28, 28))
    784
    """
    return math.prod(shape)


def event_sum(values: Tensor) -> Tensor:
    """The sum over each row's event: ``(B, *event)`` to ``(B,)``."""
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def expand_like(scale: Tensor, batch: Tensor) -> Tensor:
    """One number a row, ``(B,)``, shaped and typed to broadcast against ``(B, *event)``."""
    return scale.to(batch.dtype).reshape(-1, *[1] * (batch.ndim - 1))


def copies(batch: Tensor, count: int) -> Tensor:
    """``count`` copies of all rows, one after another: ``(B, *event)`` to ``(count * B, *event)``."""
    return batch.repeat(count, *[1] * (batch.ndim - 1))


def repeat(batch: Tensor, times: int) -> Tensor:
    """Each row ``times`` times in a row: ``(B, *event)`` to ``(B * times, *event)``."""
    return batch if times == 1 else batch.repeat_interleave(times, 0)


def is_image(shape: Shape) -> bool:
    """Whether events are drawn as pictures: one or three channels of at least 4 x 4 pixels.

    >>> is_image((1, 28, 28)), is_image((64, 7, 7)), is_image((3,))
    (True, False, False)
    """
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= 4
