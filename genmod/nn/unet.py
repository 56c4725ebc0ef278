"""The U-Net: residual blocks at falling, then rising resolutions, with skip connections.

Reference: Ronneberger, Fischer, Brox, "U-Net" (2015); Ho, Jain, Abbeel, "Denoising Diffusion
Probabilistic Models" (2020), appendix B; Dhariwal, Nichol, "Diffusion Models Beat GANs on Image
Synthesis" (2021), for the scale and shift that depend on the noise level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.checks import invalid
from genmod.config import Settings
from genmod.nn.conditioning import Condition
from genmod.nn.convolution import (
    Attention,
    ConvBlock,
    channels_last,
    convolution,
    group_norm,
    patches,
    pixels,
    space_of,
)
from genmod.nn.mlp import FourierFeatures, NoiseLevelEmbedding
from genmod.nn.modules import in_full, zero
from genmod.tensors import Shape


class UNet(Settings, nn.Module):
    r"""A U-Net: a denoiser's network for sequences, images or volumes of any size.

    Residual blocks with group norm at each resolution, and self-attention at chosen resolutions. The
    embedded log-SNR and context give a scale and a shift of each block's second norm,

    .. math:: h \leftarrow h + \mathrm{conv}\big(\mathrm{silu}((1 + \text{scale})\,
        \mathrm{norm}(\mathrm{conv}(\mathrm{silu}(\mathrm{norm}(h)))) + \text{shift})\big).

    The last layer of each block starts at zero, so that it is the identity, and the output is zero.

    Args:
        shape: the shape of one event, ``(C, *space)``, with one to three spatial dimensions.
        width: channels at the first resolution; multiples of 16 are fast.
        multipliers: channels at each resolution, divided by ``width``. Each resolution has half the
            size of the one before.
        blocks: residual blocks at each resolution, on the way down and on the way up.
        attention: for each resolution, whether self-attention follows its blocks. By default only at
            the last resolution, if there are several.
        head: channels of one head of attention.
        patch: pixels along each side of a patch, which becomes one position of the first layer. With 2,
            a network for images costs about a fourth.
        embedding: the size of the embedding of noise level and context.
        dropout: the probability of dropout inside each block.
        fourier: exponents ``n`` of additional inputs ``sin(2^n pi z)`` and ``cos(2^n pi z)``. They show
            differences in ``z`` that are small against the data, which training on the bound needs
            (Kingma et al. 2021, appendix C).
        outputs: the number of output channels; that of ``shape`` by default.
        context: the kind of context, if any; ``n`` is short for ``Vectors(n)``.

    Raises:
        ValueError: an event without one to three spatial dimensions, or settings that do not match.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), appendix B.

    >>> UNet((1, 28, 28), width=16)(torch.randn(2, 1, 28, 28), torch.zeros(2)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        shape: Shape,
        *,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[bool] | None = None,
        head: int = 32,
        patch: int = 1,
        embedding: int = 128,
        dropout: float = 0.0,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        space, channels = space_of(shape), [width * multiplier for multiplier in multipliers]
        dims, last = len(space), len(channels) - 1
        attends = [last > 0 and level == last for level in range(last + 1)]
        attends = attends if attention is None else list(attention)
        _check(channels, blocks, attends, (patch, head, embedding))
        self.shape, self.patch = tuple(shape), patch
        self.features = FourierFeatures(fourier)
        self.level = NoiseLevelEmbedding(embedding, context)
        volume = patch**dims
        self.first = convolution(dims, shape[0] * self.features.copies * volume, width)

        def level(inputs: int, outputs: int, count: int, attend: bool) -> UNetLevel:
            return UNetLevel(
                dims, inputs, outputs, count, head if attend else 0, embedding, dropout
            )

        self.down = nn.ModuleList(
            level(channels[max(0, i - 1)], channels[i], blocks, attends[i]) for i in range(last + 1)
        )
        self.shrink = nn.ModuleList(convolution(dims, c, c, stride=2) for c in channels[:-1])
        self.middle = ConvBlock(dims, channels[-1], channels[-1], embedding, dropout)
        self.grow = nn.ModuleList(
            convolution(dims, channels[i + 1], channels[i], kernel=1) for i in range(last)
        )
        self.up = nn.ModuleList(
            level(2 * channels[i], channels[i], blocks, attends[i]) for i in range(last)
        )
        self.norm = group_norm(width)
        given = shape[0] if outputs is None else outputs
        self.last = zero(convolution(dims, width, given * volume))

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """States ``(B, *shape)`` and log-SNRs ``(B,)`` to ``(B, outputs, *space)``."""
        embedding = self.level(log_snr, context)
        inputs = channels_last(patches(self.features(z), self.patch))
        h = channels_last(in_full(self.first, inputs))
        skips = []
        for index, level in enumerate(self.down):
            h = level(h, embedding)
            if index < len(self.shrink):
                skips.append(h)
                h = self.shrink[index](h)
        h = self.middle(h, embedding)
        for grow, level in zip(reversed(self.grow), reversed(self.up), strict=True):
            skip = skips.pop()
            h = F.interpolate(grow(h), skip.shape[2:], mode="nearest")
            h = level(torch.cat([h, skip], 1), embedding)
        h = self.last(F.silu(self.norm(h)))
        return pixels(h, self.patch, z.shape[2:])


class UNetLevel(nn.Module):
    """The residual blocks of one resolution, and its self-attention.

    Args:
        dims: the number of spatial dimensions.
        inputs, outputs: the numbers of channels.
        blocks: the number of residual blocks.
        head: channels of one head of the self-attention after the blocks; 0: no attention.
        embedding: the size of the embedding of noise level and context.
        dropout: the probability of dropout inside each block.
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        blocks: int,
        head: int,
        embedding: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ConvBlock(dims, inputs if index == 0 else outputs, outputs, embedding, dropout)
            for index in range(blocks)
        )
        self.attend = Attention(dims, outputs, head) if head else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """``(B, inputs, *space)`` to ``(B, outputs, *space)``."""
        for block in self.blocks:
            h = block(h, embedding)
        attended: Tensor = self.attend(h)
        return attended


def _check(
    channels: Sequence[int], blocks: int, attends: Sequence[bool], sizes: tuple[int, int, int]
) -> None:
    if len(channels) == 0 or min(channels) < 1:
        raise invalid(
            f"channels {list(channels)}",
            "at least one resolution of at least one channel",
            "pass width=64, multipliers=(1, 2)",
        )
    if len(attends) != len(channels):
        raise invalid(
            f"attention for {len(attends)} of {len(channels)} resolutions",
            "one entry for each resolution",
            "pass as many entries as multipliers",
        )
    if min(blocks, *sizes) < 1:
        raise invalid(
            "blocks={}, patch={}, head={}, embedding={}".format(blocks, *sizes),
            "at least 1 each",
            "the defaults are blocks=1, patch=1, head=32, embedding=128",
        )
