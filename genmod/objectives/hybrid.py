r"""The hybrid loss of improved DDPM: the simple loss for the mean, the bound for the variance."""

from __future__ import annotations

from genmod.checks import require
from genmod.elbo import ELBO, Rate
from genmod.model import LatentModel
from genmod.objectives.base import MeanObjective
from genmod.objectives.weighted import Simple
from genmod.prior import AutoTimesteps, Timesteps
from genmod.types import PerLevel, PerSample


class Hybrid(MeanObjective):
    r""":math:`L_\text{simple} + w L_\text{vlb}`, where the second part trains the variance alone.

    The mean has the gradient of :class:`Simple` and no other. The learned variance has ``w`` times the
    gradient of the bound, in which the mean is held fixed. The terms of the bound that contain no
    variance (the prior's and the reconstruction) are left out.

    Both parts are sums over dimensions, in nats. The paper's are means over dimensions, and its code
    computes the second in bits: that is ``weight = 0.001 / ln 2`` here. The parts share no output of the
    network, so the weight only decides which part its common layers fit better.

    Args:
        weight: ``w``, above 0.
        timesteps: which levels of a diffusion each row visits.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 16.

    >>> import torch
    >>> from genmod.models import Diffusion
    >>> from genmod.objectives import Batch
    >>> from genmod.diffusion import LearnedInterpolation
    >>> model = Diffusion(2, steps=10, variance=LearnedInterpolation())
    >>> loss, elbo = Hybrid()(model, Batch(torch.zeros(4, 2)))
    >>> bool(loss > 0)
    True
    """

    def __init__(
        self, weight: float = 0.001, timesteps: Timesteps = AutoTimesteps.TRAINING
    ) -> None:
        super().__init__(timesteps)
        require(
            0 < weight < float("inf"), f"weight={weight}", "weight > 0", "use Simple for none of it"
        )
        self.weight = weight
        self.simple = Simple()

    def cost(self, elbo: ELBO) -> PerSample:
        """The mean squared error of the noise, plus the nats of the steps as far as the variance goes."""
        simple = self.simple.cost(elbo)
        (steps,) = (rate for rate in elbo.rates.values() if rate.noise is not None)
        return simple + self.weight * (steps.weight * _variance_nats(steps)).sum(-1)

    def per_level(self, rate: Rate) -> PerLevel:
        """The cost of each visited level in both parts."""
        return self.simple.per_level(rate) + self.weight * _variance_nats(rate)

    def check(self, model: LatentModel) -> None:
        """Refuse a model with an encoder that learns."""
        super().check(model)
        self.simple.check(model)

    def extra_repr(self) -> str:
        """Its weight."""
        return self._with_timesteps(f"weight={self.weight}")


def _variance_nats(rate: Rate) -> PerLevel:
    """The nats of each visited step, with a gradient to the reverse variance alone."""
    levels = rate.noise
    if levels is None or levels.variance_nats is None:
        raise ValueError(
            "got a model whose reverse variance is not learned; expected a diffusion in T steps with one "
            "that is; build it with variance=LearnedInterpolation(), or use objectives.Simple"
        )
    return levels.variance_nats
