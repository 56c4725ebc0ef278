r"""What training minimizes: the only place with a mean over the batch, or a weight.

An objective takes a model and a batch and returns a scalar loss beside the bound it came from, so
that every run can show the loss and the true bound side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from genmod.diffusion.timesteps import Timesteps, TimestepSampler
from genmod.elbo import ELBO, Rate
from genmod.model import LatentModel, Request
from genmod.prior import AutoTimesteps
from genmod.types import Batch, PerLevel, PerSample


class Objective(nn.Module, ABC):
    """A loss to minimize, from a model's bound.

    Args:
        timesteps: how many levels of a diffusion each sample visits; ``None`` visits all. Or a way to
            choose them (:mod:`genmod.diffusion.timesteps`), which changes the noise of the loss, not its mean.
    """

    def __init__(self, timesteps: Timesteps = AutoTimesteps.TRAINING) -> None:
        super().__init__()
        self.timesteps = timesteps

    def forward(
        self, model: nn.Module, x: Batch, context: Tensor | None = None
    ) -> tuple[Tensor, ELBO]:
        """The loss, a scalar, and the bound of each sample.

        Args:
            model: a :class:`~genmod.models.LatentModel`, or whatever wraps one.
            x: data, ``(B, *event)``.
            context: what the model is told beside the data.
        """
        elbo, _ = model(x, Request(context, timesteps=self.timesteps))
        loss = self.cost(elbo).mean()
        if self.training and isinstance(self.timesteps, TimestepSampler):
            for rate in elbo.rates.values():
                if rate.noise is not None:
                    self.timesteps.update(rate.level, rate.noise.dt, self.per_level(rate).detach())
        return loss, elbo

    @abstractmethod
    def cost(self, elbo: ELBO) -> PerSample:
        """What each sample costs, ``(B,)``."""

    def per_level(self, rate: Rate) -> PerLevel:
        """What each visited level of a diffusion costs, ``(B, L)``, without the weight of the visit.

        Up to a constant: :class:`~genmod.diffusion.timesteps.LossAwareTimesteps` learns from it where to look.
        """
        return rate.nats

    def check(self, model: LatentModel) -> None:
        """Refuse a model that this objective would train to something else than it says.

        Raises:
            ValueError: a reweighted prior loss would reach a learned encoder.
        """

    def extra_repr(self) -> str:
        """What tells it from another of its kind."""
        return self._says()

    def _says(self, *settings: str) -> str:
        """Settings, and how many levels are visited; a way to choose them prints below, as a module."""
        own = (
            () if isinstance(self.timesteps, TimestepSampler) else (f"timesteps={self.timesteps}",)
        )
        return ", ".join((*settings, *own))


def broken_terms(elbo: ELBO) -> list[str]:
    """The names of the bound's terms that are NaN or infinite for some sample."""
    terms = {"reconstruction": elbo.reconstruction}
    terms |= {name: rate.total for name, rate in elbo.rates.items()}
    return [name for name, values in terms.items() if not bool(torch.isfinite(values).all())]
