"""Encoders of one latent: a point, or a Gaussian around one."""

from __future__ import annotations

from torch import Tensor, nn

from genmod.distributions import Dirac as DiracPosterior
from genmod.distributions import Normal
from genmod.encoders.base import Encoder
from genmod.nn import outputs
from genmod.types import Batch, Shape


class DiracEncoder(Encoder):
    """An autoencoder's encoder: one point, no uncertainty.

    Args:
        network: gives the latent's numbers.
        shape: the latent's event shape.
        bins: how many levels integer data have.
    """

    def __init__(self, network: nn.Module, shape: Shape, bins: int | None = None) -> None:
        super().__init__(bins)
        self.network, self.shape = network, tuple(shape)

    def forward(self, x: Batch, context: Tensor | None = None) -> DiracPosterior:
        """The point of each row."""
        return DiracPosterior(outputs(self.network, self.shape, self.real(x), context=context))

    def formula(self) -> str:
        """The encoder as it would stand on paper."""
        return "q(z | x) = delta(z - e(x))"


class GaussianEncoder(Encoder):
    """``N(mean(x), std(x)^2)``, drawn by reparameterization.

    Args:
        network: gives two numbers for each of the latent's: its mean, then its log-std.
        shape: the latent's event shape.
        bins: how many levels integer data have.
    """

    def __init__(self, network: nn.Module, shape: Shape, bins: int | None = None) -> None:
        super().__init__(bins)
        self.network, self.shape = network, tuple(shape)

    def forward(self, x: Batch, context: Tensor | None = None) -> Normal:
        """The Gaussian of each row."""
        both = outputs(self.network, (2, *self.shape), self.real(x), context=context)
        return Normal(both[:, 0], both[:, 1])

    def formula(self) -> str:
        """The encoder as it would stand on paper."""
        return "q(z | x) = N(z; mean(x), diag std(x)^2)"
