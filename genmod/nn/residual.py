"""Residual convolutional networks from an event to a code and back: for encoders and decoders.

A code is a vector ``(n,)``, or channels over fewer places ``(n, *space)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from genmod.checks import require
from genmod.config import Settings
from genmod.nn.conditioning import Condition
from genmod.nn.convolution import (
    ConvBlock,
    channels_last,
    convolution,
    group_norm,
    patches,
    pixels,
    space_of,
)
from genmod.nn.mlp import ContextEmbedding
from genmod.nn.modules import in_full
from genmod.shapes import Shape, size

_FEW = 8
"""Sides of the coarsest resolution above a vector, at most."""

_EMBEDDING = 64
"""Size of the context's embedding."""


def resolutions(space: Shape, patch: int) -> Iterator[Shape]:
    """The sides of every resolution: of the patches first, then each half of the one before.

    >>> list(resolutions((28, 28), 2))
    [(14, 14), (7, 7), (4, 4), (2, 2), (1, 1)]
    """
    sides = tuple(-(-side // patch) for side in space)
    yield sides
    while max(sides) > 1:
        sides = tuple(-(-side // 2) for side in sides)
        yield sides


def descent(space: Shape, patch: int, code: Shape) -> list[Shape]:
    """The resolutions between an event and its code.

    Raises:
        ValueError: a code whose places are none of them.
    """
    passed = []
    for sides in resolutions(space, patch):
        passed.append(sides)
        if tuple(code[1:]) == sides or (len(code) == 1 and max(sides) <= _FEW):
            return passed
    reachable = [tuple(sides) for sides in resolutions(space, patch)]
    require(
        False,
        f"a code of shape {tuple(code)} for sides {tuple(space)}",
        f"a vector, or channels over one of {reachable}",
        "choose the code's sides among those that halving gives",
    )
    return passed


class ConvEncoder(Settings, nn.Module):
    """From an event ``(C, *space)`` to numbers, through ever fewer places.

    Args:
        shape: the event's shape.
        outputs: the shape of what it gives: ``(n,)``, or channels over fewer places.
        width: channels at the first resolution; twice as many at every other.
        depth: residual blocks at each resolution.
        patch: pixels a side that the first layer takes together.
        dropout: the rate of dropout inside each block.
        context: the kind of context, if it takes one; ``n`` is short for ``Vectors(n)``.

    Raises:
        ValueError: an event without one to three sides, or outputs that halving does not reach.

    >>> import torch
    >>> ConvEncoder((1, 28, 28), (8, 7, 7))(torch.randn(2, 1, 28, 28)).shape
    torch.Size([2, 8, 7, 7])
    """

    def __init__(
        self,
        shape: Shape,
        outputs: Shape,
        *,
        width: int = 32,
        depth: int = 1,
        patch: int = 2,
        dropout: float = 0.0,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        space = space_of(shape)
        dims, passed = len(space), descent(space, patch, outputs)
        channels = _channels(width, len(passed))
        self.patch, self.embed = patch, ContextEmbedding(context, _EMBEDDING)
        self.first = convolution(dims, shape[0] * patch**dims, width)
        self.levels = nn.ModuleList(
            Blocks(dims, c, depth, self.embed.width, dropout) for c in channels
        )
        self.shrink = nn.ModuleList(
            convolution(dims, above, below, stride=2) for above, below in pairwise(channels)
        )
        self.norm = group_norm(channels[-1])
        flat = channels[-1] * size(passed[-1])
        self.last = (
            nn.Sequential(nn.Flatten(), nn.Linear(flat, outputs[0]))
            if len(outputs) == 1
            else convolution(dims, channels[-1], outputs[0])
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, *shape)`` to ``(B, *outputs)``."""
        h = channels_last(self.first(channels_last(patches(x, self.patch))))
        embedding = self.embed(context, len(x))
        h = self.levels[0](h, embedding)
        for shrink, level in zip(self.shrink, self.levels[1:], strict=True):
            h = level(shrink(h), embedding)
        output: Tensor = self.last(F.silu(self.norm(h)))
        return output


class ConvDecoder(Settings, nn.Module):
    """From numbers to an event, through ever more places: :class:`ConvEncoder` turned around.

    Args:
        inputs: the shape of what it takes: ``(n,)``, or channels over fewer places.
        shape: the shape of what it gives, ``(C, *space)``.
        width, depth, patch, dropout, context: as for :class:`ConvEncoder`.

    Raises:
        ValueError: as for :class:`ConvEncoder`.

    >>> import torch
    >>> ConvDecoder((32,), (2, 28, 28))(torch.randn(2, 32)).shape
    torch.Size([2, 2, 28, 28])
    """

    def __init__(
        self,
        inputs: Shape,
        shape: Shape,
        *,
        width: int = 32,
        depth: int = 1,
        patch: int = 2,
        dropout: float = 0.0,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        space = space_of(shape)
        dims, passed = len(space), descent(space, patch, inputs)
        channels = _channels(width, len(passed))
        self.patch, self.space, self.sides = patch, space, passed
        self.embed = ContextEmbedding(context, _EMBEDDING)
        few = (channels[-1], *passed[-1])
        self.first = (
            nn.Sequential(nn.Linear(inputs[0], size(few)), nn.Unflatten(1, few))
            if len(inputs) == 1
            else convolution(dims, inputs[0], channels[-1])
        )
        self.levels = nn.ModuleList(
            Blocks(dims, c, depth, self.embed.width, dropout) for c in channels
        )
        self.grow = nn.ModuleList(
            convolution(dims, below, above, kernel=1) for above, below in pairwise(channels)
        )
        self.norm = group_norm(width)
        self.last = convolution(dims, width, shape[0] * patch**dims)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, *inputs)`` to ``(B, *shape)``."""
        embedding = self.embed(context, len(z))
        h = self.levels[-1](channels_last(self.first(z)), embedding)
        for index in reversed(range(len(self.grow))):
            h = F.interpolate(self.grow[index](h), self.sides[index], mode="nearest")
            h = self.levels[index](h, embedding)
        return pixels(self.last(F.silu(self.norm(h))), self.patch, self.space)


class ConvNet(Settings, nn.Module):
    """From an event to another over the same places, without leaving their resolution.

    For a diffusion's decoder, whose latent has the places of the data.

    Args:
        inputs, outputs: both shapes, of the same sides.
        width, depth, patch, dropout, context: as for :class:`ConvEncoder`.

    Raises:
        ValueError: sides that differ, or not one to three of them.
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: Shape,
        *,
        width: int = 32,
        depth: int = 2,
        patch: int = 2,
        dropout: float = 0.0,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        space = space_of(inputs)
        require(
            space_of(outputs) == space,
            f"sides {space_of(outputs)} from sides {space}",
            "the same sides",
            "ConvEncoder and ConvDecoder change them",
        )
        dims = len(space)
        self.patch, self.space, self.embed = patch, space, ContextEmbedding(context, _EMBEDDING)
        self.first = convolution(dims, inputs[0] * patch**dims, width)
        self.blocks = Blocks(dims, width, depth, self.embed.width, dropout)
        self.norm = group_norm(width)
        self.last = convolution(dims, width, outputs[0] * patch**dims)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, *inputs)`` to ``(B, *outputs)``."""
        h = channels_last(in_full(self.first, channels_last(patches(x, self.patch))))
        h = self.blocks(h, self.embed(context, len(x)))
        return pixels(self.last(F.silu(self.norm(h))), self.patch, self.space)


class Blocks(nn.Module):
    """Residual blocks of one resolution, each conditioned on the context, if there is one."""

    def __init__(
        self, dims: int, channels: int, depth: int, embedding: int, dropout: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ConvBlock(dims, channels, channels, embedding, dropout) for _ in range(depth)
        )

    def forward(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """``(B, channels, *space)`` to the same."""
        embedding = None if embedding is None else F.silu(embedding)
        for block in self.blocks:
            h = block(h, embedding)
        return h


def _channels(width: int, count: int) -> list[int]:
    return [width * min(2, 2**level) for level in range(count)]
