"""The bound, and the bound with rates at another price."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genmod.checks import require
from genmod.diffusion.timesteps import Timesteps
from genmod.elbo import ELBO
from genmod.objectives.base import Objective
from genmod.prior import AutoTimesteps
from genmod.types import Batch, PerSample


class Bound(Objective):
    """The bound itself, nats: maximum likelihood as far as it can be had."""

    def cost(self, elbo: ELBO) -> PerSample:
        """Minus the bound."""
        return -elbo.value


class Beta(Objective):
    r"""Rates times :math:`\beta`: less information in the latents above 1, more below.

    Args:
        beta: the weight of every rate, at least 0.
        timesteps: how many levels of a diffusion each sample visits.

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
        """What tells it from another of its kind."""
        return self._says(f"beta={self.beta}")


class WarmUp(Objective):
    """The bound, with rates that rise from nothing to their full price over the first steps.

    A hierarchy that pays full price from the start often never uses its latents: the decoder learns
    the data's marginals first, and latents that carry nothing cost nothing.

    Args:
        steps: after how many batches of training the rates have their full price.
        timesteps: how many levels of a diffusion each sample visits.

    Reference: Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2.3; Bowman et al.,
    "Generating sentences from a continuous space" (2016), section 3.1.
    """

    seen: Tensor
    """How many batches training has shown so far: part of a checkpoint."""

    def __init__(self, steps: int, timesteps: Timesteps = AutoTimesteps.TRAINING) -> None:
        super().__init__(timesteps)
        require(steps >= 1, f"steps={steps}", "steps >= 1", "use Bound for none")
        self.steps = steps
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(
        self, model: nn.Module, x: Batch, context: Tensor | None = None
    ) -> tuple[Tensor, ELBO]:
        """The loss, a scalar, and the bound of each sample; counts the batch in training mode."""
        if self.training:
            self.seen += 1
        return super().forward(model, x, context)

    def cost(self, elbo: ELBO) -> PerSample:
        """Minus the reconstruction, plus the rates at the price of the step."""
        price = (self.seen / self.steps).clamp(max=1).to(elbo.reconstruction.dtype)
        return price * (elbo.reconstruction - elbo.value) - elbo.reconstruction

    def extra_repr(self) -> str:
        """What tells it from another of its kind."""
        return self._says(f"steps={self.steps}")
