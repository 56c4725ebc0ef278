"""The diffusion transformer (DiT): self-attention over patches, conditioned by adaLN-zero.

Reference: Peebles, Xie, "Scalable Diffusion Models with Transformers" (2023); Vaswani et al.,
"Attention is all you need" (2017), section 3.5, for the positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.checks import invalid
from genmod.config import Settings
from genmod.nn.conditioning import Condition
from genmod.nn.convolution import attend, patches, pixels, space_of
from genmod.nn.mlp import FourierFeatures, NoiseLevelEmbedding
from genmod.nn.modules import in_full, zero
from genmod.tensors import Shape


class DiT(Settings, nn.Module):
    r"""A diffusion transformer (DiT): a denoiser's network for sequences, images or volumes.

    An event is cut into patches. Each patch becomes a token, with a fixed sinusoidal position. The
    embedded log-SNR and context give the scale, shift and gate of every norm (*adaLN-zero*):

    .. math:: h \leftarrow h + \text{gate} \cdot \mathrm{Attention}\big((1 + \text{scale})\,
        \mathrm{LayerNorm}(h) + \text{shift}\big),

    then the same with an MLP. The gates start at zero, so that each block starts as the identity, and
    the output is zero.

    Args:
        shape: the shape of one event, ``(C, *space)``, with one to three spatial dimensions of any size.
        width: the size of a token; a multiple of ``head``.
        depth: the number of blocks.
        head: the size of one head of attention.
        patch: pixels along each side of a patch. Attention costs the square of the number of patches.
        dropout: the probability of dropout at the end of attention and of each MLP.
        fourier: exponents ``n`` of additional inputs ``sin(2^n pi z)`` and ``cos(2^n pi z)``. They show
            differences in ``z`` that are small against the data, which training on the bound needs
            (Kingma et al. 2021, appendix C).
        outputs: the number of output channels; that of ``shape`` by default.
        context: the kind of context, if any; ``n`` is short for ``Vectors(n)``.

    Raises:
        ValueError: an event without one to three spatial dimensions, or settings that do not match.

    Reference: Peebles, Xie, "Scalable Diffusion Models with Transformers" (2023), figure 3. Here the
    noise level is the log-SNR, not a step index.

    >>> DiT((1, 28, 28), width=32, depth=1)(torch.randn(2, 1, 28, 28), torch.zeros(2)).shape
    torch.Size([2, 1, 28, 28])
    """

    positions: Tensor

    def __init__(
        self,
        shape: Shape,
        *,
        width: int = 192,
        depth: int = 6,
        head: int = 32,
        patch: int = 2,
        dropout: float = 0.0,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        space = space_of(shape)
        _check(width, depth, head, patch)
        self.shape, self.patch = tuple(shape), patch
        self.grid = tuple(-(-side // patch) for side in space)
        self.features = FourierFeatures(fourier)
        self.level = NoiseLevelEmbedding(width, context)
        volume = patch ** len(space)
        self.first = nn.Linear(shape[0] * self.features.copies * volume, width)
        self.register_buffer("positions", positions(self.grid, width), persistent=False)
        self.blocks = nn.ModuleList(DiTBlock(width, head, dropout) for _ in range(depth))
        self.film = zero(nn.Linear(width, 2 * width))
        given = shape[0] if outputs is None else outputs
        self.last = zero(nn.Linear(width, given * volume))

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """States ``(B, *shape)`` and log-SNRs ``(B,)`` to ``(B, outputs, *space)``."""
        if tuple(z.shape[1:]) != self.shape:
            raise invalid(
                f"events of shape {tuple(z.shape[1:])}",
                f"shape {self.shape}, for which the network was built",
                "build the network for this shape",
            )
        embedding = self.level(log_snr, context)
        tokens = patches(self.features(z), self.patch).flatten(2).transpose(1, 2)
        h = in_full(self.first, tokens) + self.positions
        for block in self.blocks:
            h = block(h, embedding)
        shift, scale = self.film(embedding)[:, None].chunk(2, -1)
        h = self.last(_modulated(h, shift, scale))
        return pixels(h.transpose(1, 2).unflatten(2, self.grid), self.patch, z.shape[2:])


class DiTBlock(nn.Module):
    """``h += gate attention(film(norm(h)))``, then ``h += gate mlp(film(norm(h)))``.

    Args:
        width: the size of a token.
        head: the size of one head.
        dropout: the probability of dropout before each gate.
    """

    def __init__(self, width: int, head: int, dropout: float) -> None:
        super().__init__()
        self.heads = width // head
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(dropout)
        self.film = zero(nn.Linear(width, 6 * width))

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Tokens ``(B, tokens, width)`` to tokens; ``embedding`` is ``(B, width)``."""
        film = self.film(embedding)[:, None].chunk(6, -1)
        h = torch.addcmul(h, film[2], self.drop(self._attention(_modulated(h, film[0], film[1]))))
        return torch.addcmul(h, film[5], self.drop(self.mlp(_modulated(h, film[3], film[4]))))

    def _attention(self, h: Tensor) -> Tensor:
        parts = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        projected: Tensor = self.project(attend(*parts.unbind(0)).transpose(1, 2).flatten(2))
        return projected


def positions(grid: Shape, width: int) -> Tensor:
    r"""Sinusoidal positions: sines and cosines of the coordinates of each patch, ``(patches, width)``.

    Each spatial dimension gets an equal part of the width, with frequencies :math:`10000^{-k/K}`. The
    rest of the width is zero.

    >>> positions((2, 3), 8).shape
    torch.Size([6, 8])
    """
    count = width // (2 * len(grid))
    frequencies = 10000.0 ** -(torch.arange(count, dtype=torch.float64) / max(count, 1))
    places = torch.cartesian_prod(*(torch.arange(side, dtype=torch.float64) for side in grid))
    angles = (places.reshape(math.prod(grid), len(grid), 1) * frequencies).flatten(1)
    features = torch.cat([angles.sin(), angles.cos()], 1)
    return F.pad(features, (0, width - features.shape[1])).to(torch.get_default_dtype())


def _modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``(1 + scale) norm(h) + shift``. The norm has no weights of its own."""
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:], eps=1e-6), 1 + scale)


def _check(width: int, depth: int, head: int, patch: int) -> None:
    if min(depth, head, patch) < 1:
        raise invalid(
            f"depth={depth}, head={head}, patch={patch}",
            "at least 1 each",
            "depth=6, head=32, patch=2 suit small images",
        )
    if width < head or width % head != 0:
        raise invalid(
            f"width={width} for heads of {head}",
            "a width that is a multiple of the size of a head",
            f"choose a multiple of {head}",
        )
