r"""What training minimizes: the only place with a mean over the batch, or a weight.

An objective takes a model and a batch and returns a scalar loss beside the bound it came from, so
that every run can show the loss and the true bound side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from genmod.checks import require
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.types import Batch, PerSample


class Objective(nn.Module, ABC):
    """A loss to minimize, from a model's bound.

    Args:
        draws: how many levels of a diffusion each sample visits; ``None`` visits all.
    """

    def __init__(self, draws: int | None = 1) -> None:
        super().__init__()
        self.draws = draws

    def forward(
        self, model: nn.Module, x: Batch, context: Tensor | None = None
    ) -> tuple[Tensor, ELBO]:
        """The loss, a scalar, and the bound of each sample.

        Args:
            model: a :class:`~genmod.models.LatentModel`, or whatever wraps one.
            x: data, ``(B, *event)``.
            context: what the model is told beside the data.
        """
        elbo = model(x, self.draws, context)
        return self.cost(elbo).mean(), elbo

    @abstractmethod
    def cost(self, elbo: ELBO) -> PerSample:
        """What each sample costs, ``(B,)``."""

    def check(self, model: LatentModel) -> None:
        """Refuse a model that this objective would train to something else than it says.

        Raises:
            ValueError: a reweighted prior loss would reach a learned encoder.
        """

    def extra_repr(self) -> str:
        """What tells it from another of its kind."""
        return f"draws={self.draws}"


class Bound(Objective):
    """The bound itself, nats: maximum likelihood as far as it can be had."""

    def cost(self, elbo: ELBO) -> PerSample:
        """Minus the bound."""
        return -elbo.value


class Beta(Objective):
    r"""Rates times :math:`\beta`: less information in the latents above 1, more below.

    Args:
        beta: the weight of every rate, at least 0.
        draws: how many levels of a diffusion each sample visits.

    Reference: Higgins et al., "beta-VAE" (2017), eq. 4.
    """

    def __init__(self, beta: float, draws: int | None = 1) -> None:
        super().__init__(draws)
        require(0 <= beta < float("inf"), f"beta={beta}", "beta >= 0", "1 is the bound")
        self.beta = beta

    def cost(self, elbo: ELBO) -> PerSample:
        """Minus the reconstruction, plus beta times the rates."""
        return self.beta * (elbo.reconstruction - elbo.value) - elbo.reconstruction

    def extra_repr(self) -> str:
        """What tells it from another of its kind."""
        return f"beta={self.beta}, draws={self.draws}"


class WarmUp(Objective):
    """The bound, with rates that rise from nothing to their full price over the first steps.

    A hierarchy that pays full price from the start often never uses its latents: the decoder learns
    the data's marginals first, and latents that carry nothing cost nothing.

    Args:
        steps: after how many batches of training the rates have their full price.
        draws: how many levels of a diffusion each sample visits.

    Reference: Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2.3; Bowman et al.,
    "Generating sentences from a continuous space" (2016), section 3.1.
    """

    seen: Tensor
    """How many batches training has shown so far: part of a checkpoint."""

    def __init__(self, steps: int, draws: int | None = 1) -> None:
        super().__init__(draws)
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
        return f"steps={self.steps}, draws={self.draws}"


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

    def __init__(self, weight: Callable[[Tensor], Tensor], draws: int | None = 1) -> None:
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


def broken_terms(elbo: ELBO) -> list[str]:
    """The names of the bound's terms that are NaN or infinite for some sample."""
    terms = {"reconstruction": elbo.reconstruction}
    terms |= {name: rate.total for name, rate in elbo.rates.items()}
    return [name for name, values in terms.items() if not bool(torch.isfinite(values).all())]
