r"""A mean trained to look right, and beside it a variance trained on the bound."""

from __future__ import annotations

from genmod.checks import require
from genmod.diffusion.timesteps import Timesteps
from genmod.elbo import ELBO, Rate
from genmod.model import LatentModel
from genmod.objectives.base import Objective
from genmod.objectives.weighted import Simple
from genmod.prior import AutoTimesteps
from genmod.types import PerLevel, PerSample


class Hybrid(Objective):
    r""":math:`L_\text{simple} + w L_\text{vlb}`, the second part of which trains the variance alone.

    The mean has the gradient of :class:`Simple` and no other; the learned variance has ``w`` times
    that of the bound, in which the mean is held fixed. The terms of the bound that no variance is in
    (the prior's and the reconstruction's) are left out.

    Both parts are sums over dimensions here and in nats. The paper's are means over dimensions, and its
    code counts the second in bits: that is ``weight = 0.001 / ln 2`` here. As the parts share no
    output of the network, the weight only says which one its common layers rather serve.

    Args:
        weight: ``w``, above 0.
        timesteps: how many levels each sample visits.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 16.

    >>> import torch
    >>> from genmod.models import Diffusion
    >>> from genmod.samplers import LearnedInterpolation
    >>> model = Diffusion(2, steps=10, variance=LearnedInterpolation())
    >>> loss, elbo = Hybrid()(model, torch.zeros(4, 2))
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
        self.simple = Simple(timesteps)

    def cost(self, elbo: ELBO) -> PerSample:
        """The mean squared error of the noise, plus what the steps cost as far as the variance goes."""
        simple = self.simple.cost(elbo)
        (steps,) = (rate for rate in elbo.rates.values() if rate.noise is not None)
        return simple + self.weight * (steps.weight * _variance_nats(steps)).sum(-1)

    def per_level(self, rate: Rate) -> PerLevel:
        """What each visited level costs in both parts."""
        return self.simple.per_level(rate) + self.weight * _variance_nats(rate)

    def check(self, model: LatentModel) -> None:
        """Refuse a model whose encoder learns."""
        self.simple.check(model)

    def extra_repr(self) -> str:
        """What tells it from another of its kind."""
        return self._says(f"weight={self.weight}")


def _variance_nats(rate: Rate) -> PerLevel:
    """The nats of each visited step, with a gradient to the reverse variance alone."""
    if rate.noise is None or rate.noise.variance_nats is None:
        raise ValueError(
            "got a model whose reverse variance is not learned; expected a diffusion in T steps with one "
            "that is; build it with variance=LearnedInterpolation(), or use objectives.Simple"
        )
    return rate.noise.variance_nats
