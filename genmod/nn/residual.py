"""Residual convolutional networks for encoders and decoders, between an event and a code.

A code is a vector ``(n,)``, or ``n`` channels at a lower resolution, ``(n, *space)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from genmod.checks import invalid
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
from genmod.tensors import Shape, size

_FEW = 8
"""The largest side of the lowest resolution, from which a linear layer gives the vector."""

_EMBEDDING = 64
"""The size of the embedding of the context."""


def resolutions(space: Shape, patch: int) -> Iterator[Shape]:
    """The spatial sizes of all resolutions: that of the patches first, each next one half as large.

    >>> list(resolutions((28, 28), 2))
    [(14, 14), (7, 7), (4, 4), (2, 2), (1, 1)]
    """
    sides = tuple(-(-side // patch) for side in space)
    yield sides
    while max(sides) > 1:
        sides = tuple(-(-side // 2) for side in sides)
        yield sides


def descent(space: Shape, patch: int, code: Shape) -> list[Shape]:
    """The resolutions from an event down to its code.

    Raises:
        ValueError: a code whose spatial size is none of them.
    """
    found = []
    for sides in resolutions(space, patch):
        found.append(sides)
        if tuple(code[1:]) == sides or (len(code) == 1 and max(sides) <= _FEW):
            return found
    raise invalid(
        f"a code of shape {tuple(code)} for events of spatial size {tuple(space)}",
        f"a vector, or a spatial size among {found}",
        "choose one of them, which halving reaches",
    )


class ConvEncoder(Settings, nn.Module):
    """A convolutional encoder: residual blocks at falling resolutions, from an event to a code.

    Args:
        shape: the shape of an event, ``(C, *space)``.
        outputs: the shape of the code: ``(n,)``, or ``(n, *space)`` at one of the resolutions.
        width: channels at the first resolution; the other resolutions have twice as many.
        depth: residual blocks at each resolution.
        patch: pixels along each side of a patch, which becomes one position of the first layer.
        dropout: the probability of dropout inside each block.
        context: the kind of context, if any; ``n`` is short for ``Vectors(n)``.

    Raises:
        ValueError: an event without one to three spatial dimensions, or a code at another resolution.

    Reference: He et al., "Identity Mappings in Deep Residual Networks" (2016), figure 4e.

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
        dims, sizes = len(space), descent(space, patch, outputs)
        channels = _channels(width, len(sizes))
        self.patch, self.embed = patch, ContextEmbedding(context, _EMBEDDING)
        self.first = convolution(dims, shape[0] * patch**dims, width)
        self.levels = nn.ModuleList(
            Blocks(dims, c, depth, self.embed.width, dropout) for c in channels
        )
        self.shrink = nn.ModuleList(
            convolution(dims, above, below, stride=2) for above, below in pairwise(channels)
        )
        self.norm = group_norm(channels[-1])
        flat = channels[-1] * size(sizes[-1])
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
    """A convolutional decoder: residual blocks at rising resolutions, from a code to an event.

    Args:
        inputs: the shape of the code: ``(n,)``, or ``(n, *space)`` at one of the resolutions.
        shape: the shape of the output, ``(C, *space)``.
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
        dims, sizes = len(space), descent(space, patch, inputs)
        channels = _channels(width, len(sizes))
        self.patch, self.space, self.sides = patch, space, sizes
        self.embed = ContextEmbedding(context, _EMBEDDING)
        few = (channels[-1], *sizes[-1])
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
    """A residual convolutional network that keeps the resolution.

    For the decoder of a diffusion, whose latent has the spatial size of the data.

    Args:
        inputs, outputs: both shapes, with the same spatial size.
        width, depth, patch, dropout, context: as for :class:`ConvEncoder`.

    Raises:
        ValueError: spatial sizes that differ, or not one to three spatial dimensions.
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
        if space_of(outputs) != space:
            raise invalid(
                f"outputs of spatial size {space_of(outputs)} for inputs of spatial size {space}",
                "the same size",
                "use ConvEncoder or ConvDecoder to change it",
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
    """The residual blocks of one resolution, each conditioned on the context, if there is one."""

    def __init__(
        self, dims: int, channels: int, depth: int, embedding: int, dropout: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ConvBlock(dims, channels, channels, embedding, dropout) for _ in range(depth)
        )

    def forward(self, h: Tensor, embedding: Tensor | None) -> Tensor:
        """``(B, channels, *space)`` to the same shape."""
        embedding = None if embedding is None else F.silu(embedding)
        for block in self.blocks:
            h = block(h, embedding)
        return h


def _channels(width: int, count: int) -> list[int]:
    return [width * min(2, 2**level) for level in range(count)]
