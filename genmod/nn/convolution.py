"""The pieces of convolutional networks, on sequences, images and volumes alike.

``(B, C, *space)`` goes in and out; ``space`` has one, two or three sides of any length.

Reference: He et al., "Identity Mappings in Deep Residual Networks" (2016), for the order of norm,
nonlinearity and convolution; Wu, He, "Group Normalization" (2018); Perez et al., "FiLM: Visual
Reasoning with a General Conditioning Layer" (2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.checks import require
from genmod.shapes import Shape

_KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def convolution(
    dims: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1
) -> nn.Module:
    """A convolution over ``dims`` sides, padded so that only the stride shortens them.

    Args:
        dims: how many sides the space has: 1, 2 or 3.
        inputs: channels it takes.
        outputs: channels it gives.
        kernel: odd.
        stride: a side of length ``n`` becomes ``ceil(n / stride)``.
    """
    return _KINDS[dims](inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def zero(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters at zero: a block that ends with it starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of 16 channels where that divides them, else one group.

    Measured: in half precision with channels last, groups of 4 or 8 channels are eight to fifteen
    times slower than groups of 16.
    """
    return nn.GroupNorm(channels // 16 if channels % 16 == 0 else 1, channels)


def space_of(shape: Shape) -> Shape:
    """The sides of an event ``(C, *space)``.

    Raises:
        ValueError: no channels, or not one, two or three sides.
    """
    require(
        2 <= len(shape) <= 4,
        f"an event of shape {tuple(shape)}",
        "(C, L), (C, H, W) or (C, D, H, W) for a convolutional network",
        "give gray images a channel axis of their own, and use perceptrons for vectors",
    )
    return tuple(shape[1:])


def channels_last(x: Tensor) -> Tensor:
    """Images with their channels next to each other in memory: faster on every kind of processor.

    With a single channel both formats are the same memory, so a network whose input may have one asks
    again after its first layer.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.contiguous()


def patches(x: Tensor, side: int) -> Tensor:
    """Each patch of ``side`` pixels a side as one pixel of more channels.

    ``(B, C, *space)`` to ``(B, C * side^d, *ceil(space / side))``; what does not fill a patch is
    filled with zeros.

    >>> patches(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0, :, 0, 0]
    tensor([0., 1., 4., 5.])
    """
    if side == 1:
        return x
    missing = [(-length) % side for length in x.shape[2:]]
    if any(missing):
        x = F.pad(x, [amount for gap in reversed(missing) for amount in (0, gap)])
    cut = [part for length in x.shape[2:] for part in (length // side, side)]
    d = x.ndim - 2
    x = x.reshape(*x.shape[:2], *cut)
    inner, outer = range(3, 3 + 2 * d, 2), range(2, 2 + 2 * d, 2)
    return x.permute(0, 1, *inner, *outer).flatten(1, 1 + d)


def pixels(x: Tensor, side: int, space: Sequence[int]) -> Tensor:
    """The inverse of :func:`patches`, cut to ``space``.

    >>> x = torch.randn(2, 3, 5, 7)
    >>> bool((pixels(patches(x, 2), 2, (5, 7)) == x).all())
    True
    """
    if side == 1:
        return x
    d = x.ndim - 2
    x = x.unflatten(1, (-1, *[side] * d))
    order = [axis for k in range(d) for axis in (2 + d + k, 2 + k)]
    x = x.permute(0, 1, *order)
    x = x.reshape(*x.shape[:2], *(x.shape[2 + 2 * k] * side for k in range(d)))
    for axis, length in enumerate(space):
        if x.shape[2 + axis] != length:
            x = x.narrow(2 + axis, 0, length)
    return x


class ConvBlock(nn.Module):
    """``shortcut(h) + conv(drop(silu(film(norm(conv(silu(norm(h))))))))``, the last one zero at first.

    Args:
        dims: how many sides the space has.
        inputs, outputs: channels.
        embedding: the size of the noise level's and context's embedding; 0 is none.
        dropout: the rate of dropout before the last convolution.
    """

    def __init__(
        self, dims: int, inputs: int, outputs: int, embedding: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = group_norm(inputs)
        self.up = convolution(dims, inputs, outputs)
        self.film = zero(nn.Linear(embedding, 2 * outputs)) if embedding else None
        self.norm_out = group_norm(outputs)
        self.drop = nn.Dropout(dropout)
        self.down = zero(convolution(dims, outputs, outputs))
        self.shortcut = (
            nn.Identity() if inputs == outputs else convolution(dims, inputs, outputs, kernel=1)
        )

    def forward(self, h: Tensor, embedding: Tensor | None = None) -> Tensor:
        """``(B, inputs, *space)`` to ``(B, outputs, *space)``; ``embedding`` is ``(B, embedding)``."""
        g = self.norm_out(self.up(F.silu(self.norm(h))))
        if self.film is not None and embedding is not None:
            shift, scale = self.film(embedding)[(..., *[None] * (h.ndim - 2))].chunk(2, 1)
            g = torch.addcmul(shift, g, 1 + scale)
        added: Tensor = self.shortcut(h) + self.down(self.drop(F.silu(g)))
        return added


class Attention(nn.Module):
    """Self-attention over all places, with a residual path; the identity at first.

    Args:
        dims: how many sides the space has.
        channels: a multiple of the number of heads, ``max(1, channels // head)``.
        head: channels of one head.

    Raises:
        ValueError: channels that heads do not share evenly.

    Reference: Vaswani et al., "Attention is all you need" (2017), eq. 1.
    """

    def __init__(self, dims: int, channels: int, head: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head)
        require(
            channels % self.heads == 0,
            f"{channels} channels for {self.heads} heads of about {head}",
            "heads that share the channels evenly",
            "choose multiples of 32 for resolutions with attention",
        )
        self.norm = group_norm(channels)
        self.qkv = convolution(dims, channels, 3 * channels, kernel=1)
        self.project = zero(convolution(dims, channels, channels, kernel=1))

    def forward(self, h: Tensor) -> Tensor:
        """``(B, channels, *space)`` to the same."""
        parts = self.qkv(self.norm(h)).flatten(2).unflatten(1, (3, self.heads, -1))
        query, key, value = (part.transpose(-1, -2) for part in parts.unbind(1))
        attended = attend(query, key, value).transpose(-1, -2).reshape(h.shape)
        added: Tensor = h + self.project(attended)
        return added


_SHORT = 64
"""Places up to which plain softmax attention beats the fused kernel: ten times in half precision on
a CPU at 49 places, while at 196 places the fused one is three times faster."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``softmax(query key' / sqrt(d)) value`` over places, ``(B, heads, places, d)``.

    Reference: Vaswani et al., "Attention is all you need" (2017), eq. 1.
    """
    if query.shape[-2] > _SHORT:
        return F.scaled_dot_product_attention(query, key, value)
    scale: float = query.shape[-1] ** -0.5
    return (query * scale @ key.transpose(-1, -2)).softmax(-1) @ value
