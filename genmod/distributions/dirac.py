"""A point: the posterior of an autoencoder."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import constraints

from genmod.distributions.base import Factorized
from genmod.shapes import Sizes


class Dirac(Factorized):
    """All probability at one point a row. It has no density, so its rate is not defined.

    Args:
        point: ``(B, *event)``.
    """

    has_rsample = True
    support = constraints.real

    def __init__(self, point: Tensor) -> None:
        self.point = point
        super().__init__(point.shape)

    @property
    def mean(self) -> Tensor:
        """The point."""
        return self.point

    def rsample(self, sample_shape: Sizes = ()) -> Tensor:
        """The point."""
        self.refuse_extra(sample_shape)
        return self.point

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """The point, without gradients."""
        return self.rsample(sample_shape).detach()

    def elementwise(self, x: Tensor) -> Tensor:
        """Refused: a point has no density.

        Raises:
            ValueError: always; what it costs under a prior is infinite.
        """
        raise ValueError(
            "got a Dirac posterior under a prior that is a density; expected a posterior with a "
            "density; use priors.FlatPrior() (an autoencoder, which bounds nothing), or "
            "encoders.GaussianEncoder"
        )
