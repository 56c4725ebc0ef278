"""Weights on the levels of a diffusion: all of them on the one integrand of the bound."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from genmod.checks import require
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.objectives.base import Objective
from genmod.types import PerSample
from genmod.visits import Draws


class Weighted(Objective):
    r"""A weight of one's own on each level of a diffusion, a function of its log-SNR.

    .. math:: L_w = -\log p(x|z_0) + \text{prior} + \sum_t w(\lambda_t)\,\tfrac{1}{2}\,\text{gap}_t
        \|\varepsilon - \hat\varepsilon\|^2

    With ``w = 1`` it is :class:`Bound`.

    Args:
        weight: from log-SNRs to weights at least 0, elementwise.
        draws: how many levels each sample visits.

    Reference: Kingma, Gao, "Understanding Diffusion Objectives as the ELBO with Simple Data
    Augmentation" (2023), eq. 5.
    """

    def __init__(self, weight: Callable[[Tensor], Tensor], draws: Draws = 1) -> None:
        super().__init__(draws)
        self.weight = weight

    def cost(self, elbo: ELBO) -> PerSample:
        """The bound's terms, with the levels of a diffusion weighted."""
        cost = -elbo.reconstruction
        for rate in elbo.rates.values():
            if rate.log_snr is None:
                cost = cost + rate.total
            else:
                cost = cost + (self.weight(rate.log_snr) * rate.weight * rate.nats).sum(-1)
        return cost

    def check(self, model: LatentModel) -> None:
        """Refuse a model whose encoder learns: the weights would teach it to hide information."""
        _require_fixed_encoder(model, type(self).__name__)


class Simple(Objective):
    r"""The lecture's :math:`L_{\text{simple}} = \mathbb{E}_t \|\varepsilon - \hat\varepsilon\|^2`.

    Every level counts alike, so low noise levels count far less than in the bound. The other terms of
    the bound are left out; the scale of a decoder's last step then stays where it started.

    Args:
        draws: how many levels each sample visits.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 14.
    """

    def cost(self, elbo: ELBO) -> PerSample:
        """The mean squared error of the noise over the visited levels, summed over dimensions."""
        return _steps(elbo).mean(-1)

    def check(self, model: LatentModel) -> None:
        """Refuse a model whose encoder learns."""
        _require_fixed_encoder(model, type(self).__name__)


def _steps(elbo: ELBO) -> Tensor:
    """The denoising errors of a bound, ``(B, L)``."""
    for rate in elbo.rates.values():
        if rate.error is not None:
            return rate.error
    raise ValueError(
        "got a model without denoising steps; expected a diffusion of at least two latents; use "
        "objectives.Bound for other models"
    )


def _require_fixed_encoder(model: LatentModel, name: str) -> None:
    learns = any(parameter.requires_grad for parameter in model.encoder.parameters())
    require(
        not learns,
        f"{name} on a model whose encoder learns",
        "a fixed encoder",
        "a reweighted prior loss must not reach an encoder (it would teach it to hide information "
        "where the weight is small): train in two stages (LatentDiffusion.freeze), or use Bound",
    )
