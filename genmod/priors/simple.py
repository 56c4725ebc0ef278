"""Priors of one latent: the standard normal, any distribution of torch's, and none at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import check_shape, invalid
from genmod.distributions.base import has_mass, moved
from genmod.distributions.normal import StandardNormal
from genmod.elbo import Rate
from genmod.encoders import Posterior
from genmod.encoders.base import require_distribution
from genmod.path import AutoTimesteps, GenerativePath, InferencePath, Timesteps, draw_posterior
from genmod.prior import DensityPrior, Prior
from genmod.tensors import LatentTensors, Shape


class NormalPrior(DensityPrior):
    r"""The standard normal prior, ``p(z) = N(z; 0, I)``: that of a VAE.

    With a Gaussian posterior :math:`\mathcal{N}(\mu, \sigma^2)` its rate is the closed KL, in nats,

    .. math:: \mathrm{KL} = \tfrac{1}{2} \sum_d (\mu_d^2 + \sigma_d^2 - 1 - \log \sigma_d^2)

    Args:
        shape: the latent's event shape.
        name: the name of its rate.

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), appendix B.

    >>> from genmod.distributions import Normal
    >>> posterior = Normal(torch.ones(5, 2), torch.zeros(5, 2))  # mean 1, log std 0
    >>> z, rates = NormalPrior((2,)).rates(posterior)
    >>> rates["prior"].total
    tensor([1., 1., 1., 1., 1.])
    """

    like: Tensor
    """A scalar that moves with the model: the prior draws in its type and on its device."""

    def __init__(self, shape: Shape | int, name: str = "prior") -> None:
        super().__init__(shape, name)
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def law(self, n: int, context: Tensor | None = None) -> StandardNormal:
        """``N(0, I)`` of ``n`` rows."""
        return StandardNormal((n, *self.shape), self.like.dtype, self.like.device)

    def formula(self) -> str:
        """The formula of the prior, as text."""
        return f"p(z) = N(z; 0, I), z in R^{'x'.join(map(str, self.shape))}"


class DistributionPrior(DensityPrior):
    """Any torch (or Pyro) distribution as a prior. It is fixed, and its tensors move with the model.

    The KL is closed where torch's registry has one for exactly this pair, else sampled.

    Args:
        distribution: an empty batch shape; its event shape is the latent's.
        name: the name of its rate.

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
        if not isinstance(distribution, Distribution):
            raise invalid(
                f"{distribution!r} for a prior",
                "a torch distribution",
                "pass an instance such as Independent(Normal(mean, std), 1)",
            )
        if distribution.batch_shape:
            raise invalid(
                f"a distribution of batch shape {tuple(distribution.batch_shape)}",
                "an empty batch shape: one event is one latent",
                "wrap it in torch.distributions.Independent",
            )
        if has_mass(distribution):
            raise invalid(
                f"a {type(distribution).__name__} for a prior: it has a mass on integers",
                "a law with a density, because latents are real",
                "use a continuous law, such as Independent(Normal(mean, std), 1)",
            )
        super().__init__(tuple(distribution.event_shape), name)
        like = torch.zeros(())

        # Detached: a tensor computed from a parameter keeps a graph that only one backward pass can use.
        def fixed(tensor: Tensor) -> Tensor:
            nonlocal like
            like = tensor.detach() if tensor.is_floating_point() else like
            return tensor.detach()

        self.distribution = moved(distribution, fixed)
        # Saved with a model, so that a law that was cast along with it is cast again after loading.
        self.register_buffer("like", like.new_zeros(()), persistent=False)

    def law(self, n: int, context: Tensor | None = None) -> Distribution:
        """The distribution, the same for each row."""
        return self.distribution

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DistributionPrior:
        """Move the distribution's own tensors along with the module's: ``.to()``, ``.double()``."""
        whole: Callable[..., nn.Module] = super()._apply  # torch's has no types
        whole(fn, recurse)
        self.distribution = moved(self.distribution, fn)
        return self

    def formula(self) -> str:
        """The formula of the prior, as text."""
        return f"p(z) = {type(self.distribution).__name__}"


class FlatPrior(Prior):
    """The flat prior of an autoencoder: all codes have the same (unnormalized) density.

    It does not normalize, so a model with it bounds nothing and cannot be sampled.

    Args:
        shape: the latent's event shape.
    """

    proper = False

    def rates(
        self,
        posterior: Posterior | Distribution,
        timesteps: Timesteps = AutoTimesteps.EVALUATION,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, Rate]]:
        """A draw of the posterior, without a rate."""
        return draw_posterior(require_distribution(posterior, self.shape)), {}

    def means(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> LatentTensors:
        """The posterior's mean."""
        return require_distribution(posterior, self.shape).mean

    def state_from(self, z: LatentTensors, context: Tensor | None = None) -> Tensor:
        """The code itself."""
        if not isinstance(z, Tensor):
            raise invalid(f"{len(z)} latents", "one tensor of codes", "pass what encode returns")
        check_shape(z, self.shape, "z")
        return z

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """Refused: a flat prior has no rate.

        Raises:
            ValueError: always.
        """
        raise self._refusal("a log-ratio of")

    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """Refused: there is nothing to draw from.

        Raises:
            ValueError: always.
        """
        raise self._refusal("a sample from")

    def _refusal(self, request: str) -> ValueError:
        return invalid(
            f"a request for {request} a flat prior, which is no distribution",
            "a model with a proper prior",
            "use a VAE, or decode codes of your own with decode(z)",
        )

    def formula(self) -> str:
        """The formula of the prior, as text."""
        return "p(z) = 1 (improper)"
