"""The diffusion transformer (DiT): self-attention over patches, conditioned by adaLN-zero.

Reference: Peebles, Xie, "Scalable Diffusion Models with Transformers" (2023); Vaswani et al.,
"Attention is all you need" (2017), section 3.5, for the positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genmod.checks import require
from genmod.config import Settings
from genmod.nn.conditioning import Condition
from genmod.nn.convolution import attend, patches, pixels, space_of, zero
from genmod.nn.mlp import FourierFeatures, NoiseLevelEmbedding
from genmod.nn.modules import in_full
from genmod.shapes import Shape


class DiT(Settings, nn.Module):
    """A diffusion transformer, a denoiser's network for sequences, images or volumes.

    An event is cut into patches, the tokens, each with a fixed sine and cosine position. Noise level and
    context enter every block as shift, scale and gate of its norms (*adaLN-zero*): each block starts as
    the identity, and the output at zero.

    Args:
        shape: the shape of one event, ``(C, *space)``, with one to three sides of any length.
        width: numbers in a token; a multiple of ``head``.
        depth: how many blocks.
        head: numbers of a token in one head of attention.
        patch: pixels a side of a patch. Attention costs the square of the number of patches.
        dropout: the rate of dropout at the end of attention and of each perceptron.
        fourier: exponents ``n`` of the features ``sin, cos(2^n pi z)`` fed beside ``z``; they let a
            network see differences far below the data's spread, as likelihood training needs
            (Kingma et al. 2021, appendix C).
        outputs: channels it gives; as many as it takes, by default.
        context: the kind of context, if it takes one; ``n`` is short for ``Vectors(n)``.

    Raises:
        ValueError: an event without one to three sides, or settings that do not fit each other.

    Reference: Peebles, Xie (2023), figure 3. The noise level is the log-SNR here, not a step.

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
        """``(B, *event)`` and ``(B,)`` to ``(B, outputs, *space)``."""
        require(
            tuple(z.shape[1:]) == self.shape,
            f"events of shape {tuple(z.shape[1:])}",
            f"shape {self.shape}, for which the network has positions",
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
    """``h += gate attention(film(norm(h)))``, then ``h += gate perceptron(film(norm(h)))``.

    Args:
        width: numbers in a token.
        head: numbers of a token in one head.
        dropout: the rate of dropout before each gate.
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
        """``(B, tokens, width)`` to the same; ``embedding`` is ``(B, width)``."""
        film = self.film(embedding)[:, None].chunk(6, -1)
        h = torch.addcmul(h, film[2], self.drop(self._attention(_modulated(h, film[0], film[1]))))
        return torch.addcmul(h, film[5], self.drop(self.mlp(_modulated(h, film[3], film[4]))))

    def _attention(self, h: Tensor) -> Tensor:
        parts = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        projected: Tensor = self.project(attend(*parts.unbind(0)).transpose(1, 2).flatten(2))
        return projected


def positions(grid: Shape, width: int) -> Tensor:
    r"""Sines and cosines of the place along each side, ``(places, width)``.

    Each side has an equal part of the width, with frequencies :math:`10000^{-k/K}`; what is left
    over is zero.

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
    """``(1 + scale) norm(h) + shift``; the norm has no weights of its own."""
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:], eps=1e-6), 1 + scale)


def _check(width: int, depth: int, head: int, patch: int) -> None:
    require(
        min(depth, head, patch) >= 1,
        f"depth={depth}, head={head}, patch={patch}",
        "at least 1 each",
        "depth=6, head=32, patch=2 suit small images",
    )
    require(
        width >= head and width % head == 0,
        f"width={width} for heads of {head}",
        "heads that share the width evenly",
        f"choose a multiple of {head}",
    )
