"""An encoder: from data to a posterior over latents, ``q(z | x)``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.encoders.posteriors import Posterior as Posterior
from genmod.spec import Bins
from genmod.types import Batch


class Encoder(nn.Module, ABC):
    """``q(z | x)``.

    Args:
        bins: how many levels integer data have; they are put on [-1, 1]. ``None``: real data.
    """

    def __init__(self, bins: int | None = None) -> None:
        super().__init__()
        self.bins = None if bins is None else Bins(bins)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    anchor: Tensor
    """An empty tensor that knows the encoder's type: integers become reals of that type."""

    @abstractmethod
    def forward(self, x: Batch, context: Tensor | None = None) -> Posterior | Distribution:
        """The posterior of a batch ``(B, *event)``."""

    @abstractmethod
    def formula(self) -> str:
        """The encoder as it would stand on paper."""

    def real(self, x: Tensor) -> Tensor:
        """The data as real numbers."""
        return x if self.bins is None else self.bins.center(x.to(self.anchor.dtype))
