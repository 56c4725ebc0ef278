r"""Weights on the levels of a diffusion: all of them on the one integrand of the bound.

With :math:`\tfrac{1}{2}\,\text{gap}\,\|\varepsilon - \hat\varepsilon\|^2` nats for each level, a weight is
stated in one of two ways:

* of the *bound*, :math:`w(\lambda)`: in continuous time
  :math:`\tfrac{1}{2} \int w(\lambda) \|\varepsilon - \hat\varepsilon\|^2 d\lambda`, whatever the schedule
  (:class:`Weighted`, :class:`BoundWeighted`);
* of the *error* of the noise, :math:`\omega(\lambda)`, averaged over time:
  :math:`\mathbb{E}_t\, \omega(\lambda_t) \|\varepsilon - \hat\varepsilon\|^2`, which weighs a level by how
  long the schedule stays there, too (:class:`NoiseWeighted`).

They are the same where :math:`w(\lambda) = 2\, \omega(\lambda)\, p(\lambda)`, and
:math:`p(\lambda) = -dt/d\lambda`: :func:`~genmod.objectives.explain` says it for any objective.

Reference: Kingma, Gao, "Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation"
(2023), section 3.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from genmod.checks import require
from genmod.diffusion.timesteps import Timesteps
from genmod.elbo import ELBO, Rate
from genmod.model import LatentModel
from genmod.objectives.base import Objective
from genmod.prior import AutoTimesteps
from genmod.types import PerLevel, PerSample


class Weighted(Objective):
    r"""A weight of one's own on each level of the bound, a function of its log-SNR.

    .. math:: L_w = -\log p(x|z_0) + \text{prior} + \sum_t w(\lambda_t)\,\tfrac{1}{2}\,\text{gap}_t
        \|\varepsilon - \hat\varepsilon\|^2

    With ``w = 1`` it is :class:`Bound`. In continuous time its mean is the same for every schedule with
    the same ends.

    Args:
        weight: from log-SNRs to weights at least 0, elementwise.
        timesteps: how many levels each sample visits, or which.

    Reference: Kingma, Gao, "Understanding Diffusion Objectives as the ELBO with Simple Data
    Augmentation" (2023), eq. 5.
    """

    def __init__(
        self, weight: Callable[[Tensor], Tensor], timesteps: Timesteps = AutoTimesteps.TRAINING
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
        """Refuse a model whose encoder learns: the weights would teach it to hide information."""
        require_fixed_encoder(model, type(self).__name__)


class DenoisingObjective(Objective):
    """The denoising steps of a diffusion alone, at weights that a subclass states.

    The other terms of the bound are left out, as in the papers; the scale of a decoder's last step then
    stays where it started.
    """

    @abstractmethod
    def weight(self, log_snr: Tensor) -> Tensor:
        """The weight of each log-SNR, at least 0, elementwise."""

    @abstractmethod
    def per_level(self, rate: Rate) -> PerLevel:
        """What each visited level costs, ``(B, L)``, without the weight of the visit."""

    def cost(self, elbo: ELBO) -> PerSample:
        """The (estimated) sum over all levels."""
        for rate in elbo.rates.values():
            if rate.noise is not None:
                return (rate.weight * self.per_level(rate)).sum(-1)
        raise ValueError(
            "got a model without denoising steps; expected a diffusion of at least two latents; use "
            "objectives.Bound for other models"
        )

    def check(self, model: LatentModel) -> None:
        """Refuse a model whose encoder learns."""
        require_fixed_encoder(model, type(self).__name__)


class BoundWeighted(DenoisingObjective):
    r"""Steps at a weight of the bound, :math:`\sum_t w(\lambda_t) \tfrac{1}{2} \text{gap}_t
    \|\varepsilon - \hat\varepsilon\|^2`: in continuous time no schedule changes its mean.
    """

    def per_level(self, rate: Rate) -> PerLevel:
        """The weight of each level, times its nats."""
        return self.weight(_log_snr(rate)) * rate.nats


class NoiseWeighted(DenoisingObjective):
    r"""Steps at a weight of the squared error of the noise, averaged over time:
    :math:`\mathbb{E}_t\, \omega(\lambda_t) \|\varepsilon - \hat\varepsilon\|^2`, summed over dimensions.

    A loss on another prediction is one on the noise, because all have one error:

    .. math:: \|x - \hat x\|^2 = e^{-\lambda} \|\varepsilon - \hat\varepsilon\|^2, \qquad
        \|v - \hat v\|^2 = (1 + e^{-\lambda}) \|\varepsilon - \hat\varepsilon\|^2
    """

    def per_level(self, rate: Rate) -> PerLevel:
        """The weight of each level, times its squared error and its share of time."""
        if rate.noise is None:
            raise ValueError(
                "got levels without the error of their noise or their share of time; expected those of "
                "diffusion.DiffusionPrior; set error and share on the Rate of a prior of your own"
            )
        return self.weight(_log_snr(rate)) * rate.noise.dt * rate.noise.error


class Simple(NoiseWeighted):
    r"""The lecture's :math:`L_{\text{simple}} = \mathbb{E}_t \|\varepsilon - \hat\varepsilon\|^2`.

    Every level counts alike, so low noise levels count far less than in the bound. The other terms of
    the bound are left out; the scale of a decoder's last step then stays where it started.

    Args:
        timesteps: how many levels each sample visits, or which.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 14.
    """

    def weight(self, log_snr: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(log_snr)


def _log_snr(rate: Rate) -> Tensor:
    if rate.noise is None:
        raise ValueError(
            "got a rate without log-SNRs; expected the levels of a diffusion; use objectives.Bound for "
            "other models"
        )
    return rate.noise.log_snr


def require_fixed_encoder(
    model: LatentModel, name: str, apart: Iterable[nn.Parameter] = ()
) -> None:
    """Refuse a model whose encoder learns anything but the parameters ``apart``.

    Raises:
        ValueError: it does.
    """
    known = {id(parameter) for parameter in apart}
    learns = any(p.requires_grad and id(p) not in known for p in model.encoder.parameters())
    require(
        not learns,
        f"{name} on a model whose encoder learns",
        "a fixed encoder",
        "a reweighted prior loss must not reach an encoder (it would teach it to hide information "
        "where the weight is small): train in two stages (LatentDiffusion.freeze), or use Bound",
    )
