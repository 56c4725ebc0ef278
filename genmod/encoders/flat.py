"""Encoders of one latent: a point, or a Gaussian around one."""

from __future__ import annotations

from torch import Tensor, nn

from genmod.distributions import Dirac, Normal
from genmod.encoders.base import Encoder
from genmod.nn.modules import outputs
from genmod.shapes import Batch, Mask, Shape
from genmod.spec import SpecLike


class DiracEncoder(Encoder):
    """An autoencoder's encoder: one point, no uncertainty.

    Args:
        network: gives the latent's numbers.
        shape: the latent's event shape.
        spec: the data it reads.
    """

    latent_shape: Shape

    def __init__(self, network: nn.Module, shape: Shape, spec: SpecLike | None = None) -> None:
        super().__init__(spec)
        self.network, self.latent_shape = network, tuple(shape)

    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> Dirac:
        """The point of each row."""
        return Dirac(outputs(self.network, self.latent_shape, self.real(x), context=context))

    def formula(self) -> str:
        """The encoder as it stands on paper."""
        return "q(z | x) = delta(z - e(x))"


class GaussianEncoder(Encoder):
    """``N(mean(x), std(x)^2)``, drawn by reparameterization.

    Args:
        network: gives two numbers for each of the latent's: its mean, then its log-std.
        shape: the latent's event shape.
        spec: the data it reads.
    """

    latent_shape: Shape

    def __init__(self, network: nn.Module, shape: Shape, spec: SpecLike | None = None) -> None:
        super().__init__(spec)
        self.network, self.latent_shape = network, tuple(shape)

    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> Normal:
        """The Gaussian of each row."""
        both = outputs(self.network, (2, *self.latent_shape), self.real(x), context=context)
        return Normal(both[:, 0], both[:, 1])

    def formula(self) -> str:
        """The encoder as it stands on paper."""
        return "q(z | x) = N(z; mean(x), diag std(x)^2)"
