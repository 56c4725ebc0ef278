"""Priors of one latent: the standard normal, any distribution of torch's, and none at all."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.distributions import Distribution

from genmod import distributions
from genmod.checks import check_shape, require
from genmod.diffusion.timesteps import Timesteps
from genmod.elbo import Rate
from genmod.encoders import Posterior
from genmod.prior import GenerativePath, InferencePath, Latent, Prior, require_distribution
from genmod.types import LatentTensors, Shape


class NormalPrior(Prior):
    """``N(0, I)``.

    Args:
        shape: the latent's event shape.
        name: what its rate is called.
    """

    def __init__(self, shape: Shape, name: str = "prior") -> None:
        super().__init__(shape)
        self.name = name

    def _law(self, n: int) -> distributions.StandardNormal:
        anchor = self.anchor
        return distributions.StandardNormal((n, *self.shape), anchor.dtype, anchor.device)

    def levels(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """One level."""
        q = require_distribution(posterior, self.shape)
        z = yield Latent(self.name, q, self._law(q.batch_shape[0]))
        return z

    def descent(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """One draw."""
        z = yield self.name, self._law(n)
        return z

    def formula(self) -> str:
        """The prior as it would stand on paper."""
        return f"p(z) = N(z; 0, I), z in R^{'x'.join(map(str, self.shape))}"


class DistributionPrior(Prior):
    """Any distribution of torch's (or Pyro's), fixed.

    The KL is closed where torch's registry has one, else sampled. Its own draws follow torch's
    generator: what it samples is not keyed by :mod:`genmod.random`.

    Args:
        distribution: an empty batch shape; its event shape is the latent's.
        name: what its rate is called.

    >>> import torch
    >>> mixture = torch.distributions.MixtureSameFamily(
    ...     torch.distributions.Categorical(torch.ones(2)),
    ...     torch.distributions.Independent(
    ...         torch.distributions.Normal(torch.tensor([[-2.0], [2.0]]), torch.ones(2, 1)), 1
    ...     ),
    ... )
    >>> DistributionPrior(mixture).shape
    (1,)
    """

    def __init__(self, distribution: Distribution, name: str = "prior") -> None:
        require(
            not distribution.batch_shape,
            f"a distribution of batch shape {tuple(distribution.batch_shape)}",
            "an empty batch shape: one event is one latent",
            "wrap it in torch.distributions.Independent",
        )
        super().__init__(tuple(distribution.event_shape))
        self.distribution, self.name = distribution, name

    def levels(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """One level."""
        z = yield Latent(self.name, require_distribution(posterior, self.shape), self.distribution)
        return z

    def descent(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """One draw."""
        z = yield self.name, self.distribution
        return z

    def formula(self) -> str:
        """The prior as it would stand on paper."""
        return f"p(z) = {type(self.distribution).__name__}"


class FlatPrior(Prior):
    """No prior: every code is as good as any other. What an autoencoder has.

    It does not normalize, so a model with it bounds nothing and cannot be sampled.

    Args:
        shape: the latent's event shape.
    """

    proper = False

    def rates(
        self,
        posterior: Posterior | Distribution,
        draws: Timesteps = None,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, Rate]]:
        """A draw of the posterior, for nothing."""
        return require_distribution(posterior, self.shape).rsample(), {}

    def encode(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> LatentTensors:
        """The posterior's mean."""
        return require_distribution(posterior, self.shape).mean

    def state(self, z: LatentTensors, context: Tensor | None = None) -> Tensor:
        """The code itself."""
        if not isinstance(z, Tensor):
            raise ValueError(
                f"got {len(z)} latents; expected one tensor of codes; pass what encode gives"
            )
        check_shape(z, self.shape, "z")
        return z

    def levels(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """Refused: nothing is paid.

        Raises:
            ValueError: always.
        """
        raise ValueError(self._refusal("a log-ratio of"))

    def descent(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """Refused: there is nothing to draw from.

        Raises:
            ValueError: always.
        """
        raise ValueError(self._refusal("a sample from"))

    def _refusal(self, wanted: str) -> str:
        return (
            f"got a request for {wanted} a flat prior, which is no distribution; expected a model with "
            "a proper prior; use a VAE, or decode codes of your own with decode(z)"
        )

    def formula(self) -> str:
        """The prior as it would stand on paper."""
        return "p(z) = 1 (improper)"
