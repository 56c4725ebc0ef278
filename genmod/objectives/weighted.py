r"""The bound as a loss, and weights on its terms: on whole rates, and on the levels of a diffusion.

A level of a diffusion costs :math:`\tfrac{1}{2}\,\text{gap}\,\|\varepsilon - \hat\varepsilon\|^2` nats. So
every weighted loss is a weighted integral of the bound. A weight is stated in one of two ways:

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

from genmod.checks import require
from genmod.elbo import ELBO, Rate
from genmod.model import LatentModel
from genmod.objectives.base import Batch, MeanObjective, require_fixed_encoder
from genmod.prior import AutoTimesteps, Timesteps
from genmod.shapes import PerLevel, PerSample


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

    @property
    def warmup_steps(self) -> int:
        """The steps of the warm-up."""
        return self.steps

    def update(self, elbo: ELBO, batch: Batch) -> None:
        """Count the step."""
        super().update(elbo, batch)
        self.seen += 1

    def extra_repr(self) -> str:
        """How long it takes."""
        return self._with_timesteps(f"steps={self.steps}")


class Weighted(MeanObjective):
    r"""The bound with your own weight on each level of a diffusion, a function of its log-SNR.

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
    """The denoising steps of a diffusion alone, with weights that a subclass defines.

    The other terms of the bound are left out, as in the papers. The scale of a decoder's last step is
    then not trained: :func:`genmod.training.fit_scale` sets it afterwards.
    """

    @abstractmethod
    def weight(self, log_snr: Tensor) -> Tensor:
        """The weight of each log-SNR, at least 0, elementwise."""

    @abstractmethod
    def per_level(self, rate: Rate) -> PerLevel:
        """The cost of each visited level, ``(B, L)``, without the weight of the visit."""

    def cost(self, elbo: ELBO) -> PerSample:
        """The (estimated) sum over all levels."""
        for rate in elbo.rates.values():
            if rate.noise is not None:
                return (rate.weight * self.per_level(rate)).sum(-1)
        raise ValueError(
            f"got {type(self).__name__} on a model without denoising steps; expected a diffusion of at "
            "least two latents; use objectives.Bound for other models"
        )

    def check(self, model: LatentModel) -> None:
        """Refuse a model with an encoder that learns."""
        super().check(model)
        require_fixed_encoder(model, type(self).__name__)


class BoundWeighted(DenoisingObjective):
    r"""Denoising steps with a weight :math:`w(\lambda)` of the bound.

    .. math:: \sum_t w(\lambda_t) \tfrac{1}{2} \text{gap}_t \|\varepsilon - \hat\varepsilon\|^2

    In continuous time no schedule changes its mean.
    """

    def per_level(self, rate: Rate) -> PerLevel:
        """The weight of each level, times its nats."""
        return self.weight(_log_snr(rate)) * rate.nats


class NoiseWeighted(DenoisingObjective):
    r"""Denoising steps with a weight :math:`\omega(\lambda)` of the squared error of the noise.

    .. math:: \mathbb{E}_t\, \omega(\lambda_t) \|\varepsilon - \hat\varepsilon\|^2

    summed over dimensions. All predictions have one error, so a loss on another one is a weight:

    .. math:: \|x - \hat x\|^2 = e^{-\lambda} \|\varepsilon - \hat\varepsilon\|^2, \qquad
        \|v - \hat v\|^2 = (1 + e^{-\lambda}) \|\varepsilon - \hat\varepsilon\|^2

    >>> class VelocityError(NoiseWeighted):
    ...     def weight(self, log_snr):
    ...         return 1 + (-log_snr).exp()
    """

    def per_level(self, rate: Rate) -> PerLevel:
        """The weight of each level, times its squared error and the time that it covers."""
        levels = rate.noise
        assert levels is not None
        return self.weight(levels.log_snr) * levels.dt * levels.error


class Simple(NoiseWeighted):
    r"""The simple loss of DDPM, :math:`\mathbb{E}_t \|\varepsilon - \hat\varepsilon\|^2`.

    Every level has the same weight, so clean levels count far less than in the bound. The other terms
    of the bound are left out.

    Args:
        timesteps: which levels of a diffusion each row visits.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 14.
    """

    def weight(self, log_snr: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(log_snr)


def _log_snr(rate: Rate) -> Tensor:
    levels = rate.noise
    assert levels is not None
    return levels.log_snr
