"""Building blocks of convolutional networks, for sequences, images and volumes.

All take and return ``(B, C, *space)``. ``space`` is one, two or three spatial dimensions of any size.

Reference: He et al., "Identity Mappings in Deep Residual Networks" (2016), for the order of norm,
nonlinearity and convolution; Wu, He, "Group Normalization" (2018); Perez et al., "FiLM: Visual
Reasoning with a General Conditioning Layer" (2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.checks import invalid
from genmod.nn.modules import zero
from genmod.tensors import Shape

_KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def convolution(
    dims: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1
) -> nn.Module:
    """A convolution, padded so that only the stride makes its output smaller.

    Args:
        dims: the number of spatial dimensions: 1, 2 or 3.
        inputs: input channels.
        outputs: output channels.
        kernel: the size of the kernel, odd.
        stride: a dimension of size ``n`` becomes ``ceil(n / stride)``.
    """
    return _KINDS[dims](inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def group_norm(channels: int) -> nn.GroupNorm:
    """A group norm with groups of 16 channels, or one group if 16 does not divide the channels.

    Measured in half precision with channels last, groups of 4 or 8 channels are 8 to 15 times slower
    than groups of 16.
    """
    return nn.GroupNorm(channels // 16 if channels % 16 == 0 else 1, channels)


def space_of(shape: Shape) -> Shape:
    """The spatial dimensions of an event ``(C, *space)``.

    Raises:
        ValueError: no channels, or not one, two or three spatial dimensions.
    """
    if not 2 <= len(shape) <= 4:
        raise invalid(
            f"an event of shape {tuple(shape)}",
            "(C, L), (C, H, W) or (C, D, H, W) for a convolutional network",
            "add a channel dimension to gray images, (1, H, W), and use an MLP for vectors",
        )
    return tuple(shape[1:])


def channels_last(x: Tensor) -> Tensor:
    """Images in channels-last memory format, which is faster on CPUs and GPUs.

    With a single channel both formats are the same in memory. So a network whose input may have one
    channel calls this again after its first layer.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.contiguous()


def patches(x: Tensor, side: int) -> Tensor:
    """Space to depth: each patch of ``side^d`` pixels becomes one position with more channels.

    ``(B, C, *space)`` to ``(B, C * side^d, *ceil(space / side))``. Incomplete patches are padded with
    zeros.

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
    """Depth to space: the inverse of :func:`patches`, cut to ``space``.

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
    """``shortcut(h) + conv(dropout(silu(film(norm(conv(silu(norm(h))))))))``.

    The outer ``conv`` starts at zero.

    Args:
        dims: the number of spatial dimensions.
        inputs, outputs: the numbers of channels.
        embedding: the size of the embedding of noise level and context; 0: no embedding.
        dropout: the probability of dropout before the last convolution.
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
    """Self-attention over all positions, with a residual connection. It starts as the identity.

    Args:
        dims: the number of spatial dimensions.
        channels: a multiple of the number of heads, ``max(1, channels // head)``.
        head: channels of one head.

    Raises:
        ValueError: channels that are not a multiple of the number of heads.

    Reference: Vaswani et al., "Attention is all you need" (2017), eq. 1.
    """

    def __init__(self, dims: int, channels: int, head: int = 32) -> None:
        super().__init__()
        self.heads = max(1, channels // head)
        if channels % self.heads != 0:
            raise invalid(
                f"{channels} channels for {self.heads} heads of about {head}",
                "channels that are a multiple of the number of heads",
                "choose multiples of 32 for resolutions with attention",
            )
        self.norm = group_norm(channels)
        self.qkv = convolution(dims, channels, 3 * channels, kernel=1)
        self.project = zero(convolution(dims, channels, channels, kernel=1))

    def forward(self, h: Tensor) -> Tensor:
        """``(B, channels, *space)`` to the same shape."""
        parts = self.qkv(self.norm(h)).flatten(2).unflatten(1, (3, self.heads, -1))
        query, key, value = (part.transpose(-1, -2) for part in parts.unbind(1))
        attended = attend(query, key, value).transpose(-1, -2).reshape(h.shape)
        added: Tensor = h + self.project(attended)
        return added


_SHORT = 64
"""Up to so many positions, plain softmax attention is faster than the fused kernel. In half precision on a
CPU it is ten times faster at 49 positions. At 196 positions the fused kernel is three times faster."""


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention, ``softmax(query key' / sqrt(d)) value``, of tensors ``(B, heads, positions, d)``.

    Reference: Vaswani et al., "Attention is all you need" (2017), eq. 1.
    """
    if query.shape[-2] > _SHORT:
        return F.scaled_dot_product_attention(query, key, value)
    scale: float = query.shape[-1] ** -0.5
    return (query * scale @ key.transpose(-1, -2)).softmax(-1) @ value
