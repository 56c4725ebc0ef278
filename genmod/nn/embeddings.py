"""Embeddings: noise levels and data as features of many frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genmod.checks import require
from genmod.config import Settings
from genmod.nn.conditioning import Condition, ContextEmbedding


class Sinusoidal(Settings, nn.Module):
    r"""Log-SNR as ``width`` features: sines and cosines of geometrically spaced frequencies.

    DDPM embeds the step. The log-SNR means the same noise for every schedule and number of steps.

    Args:
        width: the number of features, even.
        shortest: the shortest period, in units of log-SNR.
        longest: the longest period.

    Reference: Vaswani et al., "Attention is all you need" (2017), section 3.5.
    """

    frequencies: Tensor

    def __init__(self, width: int, shortest: float = 0.5, longest: float = 200.0) -> None:
        super().__init__()
        require(width % 2 == 0, f"width={width}", "an even width", "half sines, half cosines")
        periods = torch.logspace(math.log10(longest), math.log10(shortest), width // 2)
        self.register_buffer("frequencies", 2 * math.pi / periods, persistent=False)

    def forward(self, log_snr: Tensor) -> Tensor:
        """``(B,)`` to ``(B, width)``."""
        angle = log_snr[:, None] * self.frequencies.to(log_snr.dtype)
        return torch.cat([angle.sin(), angle.cos()], -1)


class FourierFeatures(Settings, nn.Module):
    r"""``z`` beside :math:`\sin(2^n \pi z)` and :math:`\cos(2^n \pi z)`, stacked along dimension 1.

    Args:
        exponents: the exponents ``n``; none gives ``z`` alone.

    Reference: Kingma et al., "Variational Diffusion Models" (2021), appendix C.
    """

    def __init__(self, exponents: tuple[int, ...]) -> None:
        super().__init__()
        self.exponents = exponents

    @property
    def copies(self) -> int:
        """How many times as many channels (or entries) come out as go in."""
        return 1 + 2 * len(self.exponents)

    def forward(self, z: Tensor) -> Tensor:
        """``(B, C, ...)`` to ``(B, copies * C, ...)``."""
        angles = [2.0**n * math.pi * z for n in self.exponents]
        return torch.cat([z, *(a.sin() for a in angles), *(a.cos() for a in angles)], 1)


class NoiseLevelEmbedding(Settings, nn.Module):
    """The embedding of noise level and context that every block of a denoiser's network gets.

    In float32 it differs between all neighbors of a chain of 100,000 latents. Under autocast in bfloat16
    it does so up to 10,000; of 100,000 under the cosine schedule, about two hundred pairs coincide.

    Args:
        width: how many numbers it gives.
        context: the kind of context, if any; ``n`` is short for ``Vectors(n)``.
    """

    def __init__(self, width: int, context: Condition | int = 0) -> None:
        super().__init__()
        self.time = nn.Sequential(Sinusoidal(64), nn.Linear(64, width), nn.SiLU())
        self.mix = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.embed = ContextEmbedding(context, width)

    def forward(self, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B,)`` and the context to ``(B, width)``."""
        level, embedding = self.time(log_snr), self.embed(context, len(log_snr))
        mixed: Tensor = self.mix(level if embedding is None else level + embedding)
        return mixed
