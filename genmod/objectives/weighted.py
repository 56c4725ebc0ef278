r"""Weights on the terms of the bound: on whole rates, and on the levels of a diffusion.

A level of a diffusion has :math:`\tfrac{1}{2}\,\text{gap}\,\|\varepsilon - \hat\varepsilon\|^2` nats. So
every weighted loss is a weighted integral of the bound. A weight is given in one of two ways:

* of the *bound*, :math:`w(\lambda)`: in continuous time the loss is
  :math:`\tfrac{1}{2} \int w(\lambda) \|\varepsilon - \hat\varepsilon\|^2 d\lambda` for every schedule
  (:class:`Weighted`, :class:`BoundWeighted`);
* of the *error* of the noise, :math:`\omega(\lambda)`, averaged over time:
  :math:`\mathbb{E}_t\, \omega(\lambda_t) \|\varepsilon - \hat\varepsilon\|^2`. The time that the schedule
  spends at a level is then a weight, too (:class:`NoiseWeighted`).

They are equal where :math:`w(\lambda) = 2\, \omega(\lambda)\, p(\lambda)`, with
:math:`p(\lambda) = -dt/d\lambda`. :func:`~genmod.objectives.explain` computes ``w`` for any objective.

Reference: Kingma, Gao, "Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation"
(2023), section 3.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.elbo import ELBO, Rate
from genmod.model import LatentModel
from genmod.objectives.base import MeanObjective
from genmod.objectives.requirements import require_fixed_encoder
from genmod.path import AutoTimesteps, Timesteps
from genmod.tensors import PerLevel, PerSample


class Beta(MeanObjective):
    r"""The objective of a beta-VAE: every rate is multiplied by :math:`\beta`.

    .. math:: L = -\log p(x|z) + \beta\, \mathrm{KL}(q(z|x) \,\|\, p(z))

    With a :math:`\beta` above 1 the latents carry less information, below 1 more. The bound that training
    logs is the one with :math:`\beta = 1`.

    Args:
        beta: the weight of every rate, at least 0.
        timesteps: which levels of a diffusion each row visits.

    Reference: Higgins et al., "beta-VAE" (2017), eq. 4.

    >>> import torch
    >>> from genmod.models import VAE
    >>> from genmod.objectives import Batch
    >>> loss, elbo = Beta(4.0)(VAE(2, latents=1, width=8), Batch(torch.zeros(4, 2)))
    >>> expected = (4 * elbo.rates["prior"].total - elbo.reconstruction).mean()
    >>> bool(torch.isclose(loss, expected))
    True
    """

    def __init__(self, beta: float, timesteps: Timesteps = AutoTimesteps.TRAINING) -> None:
        super().__init__(timesteps)
        if not 0 <= beta < float("inf"):
            raise invalid(f"beta={beta}", "beta >= 0", "1 is the bound")
        self.beta = beta

    def cost(self, elbo: ELBO) -> PerSample:
        """Minus the reconstruction, plus beta times the rates."""
        return self.beta * (elbo.reconstruction - elbo.value) - elbo.reconstruction

    def extra_repr(self) -> str:
        return self._with_timesteps(f"beta={self.beta}")


class Weighted(MeanObjective):
    r"""The bound with a weight of your own on each level of a diffusion, a function of its log-SNR.

    .. math:: L_w = -\log p(x|z_0) + \text{prior} + \sum_t w(\lambda_t)\,\tfrac{1}{2}\,\text{gap}_t
        \|\varepsilon - \hat\varepsilon\|^2

    With ``w = 1`` it is :class:`Bound`. In continuous time its mean is the same for every schedule with
    the same ends.

    Args:
        weight: from log-SNRs to weights at least 0, elementwise. In a run with a checkpoint it must
            have a name: pass it to :func:`genmod.register` first.
        timesteps: which levels of a diffusion each row visits.

    Reference: Kingma, Gao, "Understanding Diffusion Objectives as the ELBO with Simple Data
    Augmentation" (2023), eq. 5.
    """

    def __init__(
        self,
        weight: Callable[[Tensor], Tensor],
        timesteps: Timesteps = AutoTimesteps.TRAINING,
    ) -> None:
        super().__init__(timesteps)
        self.weight = weight

    def cost(self, elbo: ELBO) -> PerSample:
        """The bound's terms, with the levels of a diffusion weighted."""
        cost = -elbo.reconstruction
        for rate in elbo.rates.values():
            if rate.noise is None:
                cost = cost + rate.total
            else:
                cost = cost + (rate.weight * self.per_level(rate)).sum(-1)
        return cost

    def per_level(self, rate: Rate) -> PerLevel:
        """The weight of each level, times its nats."""
        return self.weight(_log_snr(rate)) * rate.nats

    def check(self, model: LatentModel) -> None:
        """Refuse a model with an encoder that learns."""
        super().check(model)
        require_fixed_encoder(model, type(self).__name__)


class DenoisingObjective(MeanObjective):
    """The base class of losses on the denoising steps of a diffusion, with weights of a subclass.

    The other terms of the bound are left out, as in the papers. So the scale of the decoder is not
    trained: :func:`genmod.diffusion.fit_scale` sets it afterwards.
    """

    @abstractmethod
    def weight(self, log_snr: Tensor) -> Tensor:
        """The weight of each log-SNR, at least 0, elementwise."""

    @abstractmethod
    def per_level(self, rate: Rate) -> PerLevel:
        """The loss of each visited level, ``(B, L)``, without the weight of the visit."""

    def cost(self, elbo: ELBO) -> PerSample:
        """The (estimated) sum over all levels."""
        for rate in elbo.rates.values():
            if rate.noise is not None:
                return (rate.weight * self.per_level(rate)).sum(-1)
        raise invalid(
            f"{type(self).__name__} on a model without denoising steps",
            "a diffusion of at least two latents",
            "use objectives.Bound for other models",
        )

    def check(self, model: LatentModel) -> None:
        """Refuse a model with an encoder that learns."""
        super().check(model)
        require_fixed_encoder(model, type(self).__name__)


class BoundWeighted(DenoisingObjective):
    r"""The base class of losses with a weight :math:`w(\lambda)` on the nats of the denoising steps.

    .. math:: \sum_t w(\lambda_t) \tfrac{1}{2} \text{gap}_t \|\varepsilon - \hat\varepsilon\|^2

    In continuous time its mean is the same for every schedule with the same ends.
    """

    def per_level(self, rate: Rate) -> PerLevel:
        """The weight of each level, times its nats."""
        return self.weight(_log_snr(rate)) * rate.nats


class NoiseWeighted(DenoisingObjective):
    r"""The base class of losses with a weight :math:`\omega(\lambda)` on the squared error of the noise.

    .. math:: \mathbb{E}_t\, \omega(\lambda_t) \|\varepsilon - \hat\varepsilon\|^2

    summed over dimensions. The errors of all predictions are proportional, so a loss on another prediction
    is a weight:

    .. math:: \|x - \hat x\|^2 = e^{-\lambda} \|\varepsilon - \hat\varepsilon\|^2, \qquad
        \|v - \hat v\|^2 = (1 + e^{-\lambda}) \|\varepsilon - \hat\varepsilon\|^2

    >>> class VelocityError(NoiseWeighted):
    ...     def weight(self, log_snr):
    ...         return 1 + (-log_snr).exp()
    """

    def per_level(self, rate: Rate) -> PerLevel:
        """The weight of each level, times its squared error and the length of its time step."""
        levels = rate.noise
        assert levels is not None
        return self.weight(levels.log_snr) * levels.dt * levels.error


class Simple(NoiseWeighted):
    r"""The simple loss of DDPM: the squared error of the noise, with equal weights.

    .. math:: L_\text{simple} = \mathbb{E}_t \|\varepsilon - \hat\varepsilon(z_t)\|^2

    summed over dimensions. Clean levels count far less than in the bound, where the weight is half the gap.
    The other terms of the bound are left out.

    Args:
        timesteps: which levels of a diffusion each row visits.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 14.

    >>> import torch
    >>> from genmod.models import Diffusion
    >>> from genmod.objectives import Batch
    >>> loss, elbo = Simple()(Diffusion(2), Batch(torch.zeros(4, 2)))
    >>> bool(torch.isclose(loss, elbo.rates["steps"].noise.error.mean()))
    True
    """

    def weight(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr)


def _log_snr(rate: Rate) -> Tensor:
    levels = rate.noise
    assert levels is not None
    return levels.log_snr
