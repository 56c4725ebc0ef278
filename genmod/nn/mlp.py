"""Multilayer perceptrons: plain ones for encoders and decoders, a conditioned one for denoisers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genmod.config import Settings
from genmod.nn.conditioning import Condition, ContextEmbedding
from genmod.nn.embeddings import FourierFeatures, Sinusoidal
from genmod.nn.precision import in_full
from genmod.shapes import Shape, size


class MLP(Settings, nn.Module):
    """A residual multilayer perceptron on flattened events.

    Args:
        inputs: the shape of one event, or how many numbers it has.
        outputs: how many numbers it gives a row.
        width: the width of its hidden layers.
        depth: how many residual blocks.
        dropout: the rate of dropout inside each block.
        context: the kind of context, if it takes one; ``n`` is short for ``Vectors(n)``.
    """

    def __init__(
        self,
        inputs: Shape | int,
        outputs: int,
        *,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        entries = inputs if isinstance(inputs, int) else size(inputs)
        self.first = nn.Linear(entries, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, dropout) for _ in range(depth))
        self.last = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, outputs))
        self.embed = ContextEmbedding(context, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, *event)`` to ``(B, outputs)``."""
        h, embedding = self.first(x.flatten(1)), self.embed(context, len(x))
        h = h if embedding is None else h + embedding
        for block in self.blocks:
            h = block(h)
        output: Tensor = self.last(h)
        return output


class ResidualBlock(nn.Module):
    """``h + W2 drop(silu(W1 silu(norm(h))))``, which starts as the identity."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.down = nn.Linear(width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, h: Tensor, shift_scale: Tensor | None = None) -> Tensor:
        """``(B, width)`` to ``(B, width)``; ``shift_scale`` is ``(B, 2 width)``."""
        g = self.norm(h)
        if shift_scale is not None:
            shift, scale = shift_scale.chunk(2, -1)
            g = torch.addcmul(shift, g, 1 + scale)
        g = self.up(nn.functional.silu(g))
        added: Tensor = h + self.down(self.drop(nn.functional.silu(g)))
        return added


class DenoisingMLP(Settings, nn.Module):
    """A residual MLP conditioned on the noise level in every block: a denoiser's network for vectors.

    Its output starts at zero, the mean of the usual targets.

    Args:
        shape: the shape of one event.
        width: the width of its hidden layers.
        depth: how many residual blocks.
        dropout: the rate of dropout inside each block.
        fourier: exponents ``n`` of the features ``sin, cos(2^n pi z)`` fed beside ``z``; they let a
            network see differences far below the data's spread, as likelihood training needs
            (Kingma et al. 2021, appendix C).
        outputs: channels it gives; as many as it takes, by default.
        context: the kind of context, if it takes one; ``n`` is short for ``Vectors(n)``.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        width: int = 256,
        depth: int = 3,
        dropout: float = 0.0,
        fourier: tuple[int, ...] = (),
        outputs: int | None = None,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        entries = size(shape)
        self.shape = (shape[0] if outputs is None else outputs, *shape[1:])
        self.features = FourierFeatures(fourier)
        self.time = nn.Sequential(Sinusoidal(64), nn.Linear(64, 64), nn.SiLU())
        self.embed = ContextEmbedding(context, 64)
        self.first = nn.Linear(entries * self.features.copies, width)
        self.films = nn.ModuleList(nn.Linear(64, 2 * width) for _ in range(depth))
        self.blocks = nn.ModuleList(ResidualBlock(width, dropout) for _ in range(depth))
        self.last = nn.Sequential(
            nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, size(self.shape))
        )
        for layer in [*self.films, self.last[-1]]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, *event)`` and ``(B,)`` to ``(B, outputs, *space)``."""
        level, embedding = self.time(log_snr), self.embed(context, len(z))
        level = level if embedding is None else level + embedding
        h = in_full(self.first, self.features(z.flatten(1)))
        for film, block in zip(self.films, self.blocks, strict=True):
            h = block(h, film(level))
        output: Tensor = self.last(h)
        return output.reshape(-1, *self.shape)
