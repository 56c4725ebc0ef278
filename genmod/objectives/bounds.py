"""The bound itself, and the bound with a weight on whole rates."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.checks import require
from genmod.elbo import ELBO
from genmod.objectives.base import Batch, MeanObjective
from genmod.prior import AutoTimesteps, Timesteps
from genmod.types import PerSample


class Bound(MeanObjective):
    """Minus the evidence lower bound, in nats: maximum likelihood, as far as it can be computed.

    >>> import torch
    >>> from genmod.models import VAE
    >>> from genmod.objectives import Batch
    >>> loss, elbo = Bound()(VAE(2, latents=1, width=8), Batch(torch.zeros(4, 2)))
    >>> bool(loss == -elbo.value.mean())
    True
    """

    def cost(self, elbo: ELBO) -> PerSample:
        """Minus the bound."""
        return -elbo.value


class Beta(MeanObjective):
    r"""Beta-VAE: minus the reconstruction, plus :math:`\beta` times every rate.

    Above 1 the latents carry less information, below 1 more.

    Args:
        beta: the weight of every rate, at least 0.
        timesteps: which levels of a diffusion each row visits.

    Reference: Higgins et al., "beta-VAE" (2017), eq. 4.
    """

    def __init__(self, beta: float, timesteps: Timesteps = AutoTimesteps.TRAINING) -> None:
        super().__init__(timesteps)
        require(0 <= beta < float("inf"), f"beta={beta}", "beta >= 0", "1 is the bound")
        self.beta = beta

    def cost(self, elbo: ELBO) -> PerSample:
        """Minus the reconstruction, plus beta times the rates."""
        return self.beta * (elbo.reconstruction - elbo.value) - elbo.reconstruction

    def extra_repr(self) -> str:
        """Its weight."""
        return self._with_timesteps(f"beta={self.beta}")


class WarmUp(MeanObjective):
    """The bound with a KL warm-up: the weight of every rate rises from 0 to 1 over the first steps.

    A hierarchy trained with the full rates from the start often never uses its latents. The decoder
    learns the marginals of the data first, and a posterior equal to the prior costs nothing.

    Each run restarts the warm-up; a resumed run continues it.

    Args:
        steps: the step of training from which on every rate has its full weight.
        timesteps: which levels of a diffusion each row visits.

    Reference: Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2.3; Bowman et al.,
    "Generating sentences from a continuous space" (2016), section 3.1.
    """

    seen: Tensor
    """The number of steps that training has made: part of a checkpoint."""

    def __init__(self, steps: int, timesteps: Timesteps = AutoTimesteps.TRAINING) -> None:
        super().__init__(timesteps)
        require(steps >= 1, f"steps={steps}", "steps >= 1", "use Bound for none")
        self.steps = steps
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def cost(self, elbo: ELBO) -> PerSample:
        """Minus the reconstruction, plus the rates at the weight of this step."""
        step = self.seen + self.training
        weight = (step / self.steps).clamp(max=1).to(elbo.reconstruction.dtype)
        return weight * (elbo.reconstruction - elbo.value) - elbo.reconstruction

    def update(self, elbo: ELBO, batch: Batch) -> None:
        """Count the step."""
        super().update(elbo, batch)
        self.seen += 1

    def extra_repr(self) -> str:
        """How long it takes."""
        return self._with_timesteps(f"steps={self.steps}")
