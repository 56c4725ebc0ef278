"""Training a diffusion together with its schedule."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from genmod.checks import require
from genmod.diffusion import DiffusionPrior
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.objectives.base import Objective
from genmod.objectives.bounds import Bound
from genmod.objectives.weighted import BoundWeighted, Weighted, require_fixed_encoder
from genmod.schedules import Learnable, scale_gradient
from genmod.types import Batch, PerSample


class LearnedSchedule(Objective):
    r"""The bound for the denoiser; for its schedule, how much the bound varies from draw to draw.

    In continuous time the bound does not depend on the schedule between its ends, but the spread of
    the estimate from a few levels does. So while all other parameters :math:`\theta` follow the inner
    objective, those of the schedule, :math:`\eta`, follow the mean square of what the steps cost,

    .. math:: \nabla_\eta\, \mathbb{E}\left[(L / D)^2\right]
        = \mathbb{E}\left[2 L\, \nabla_\eta L\right] / D^2

    with :math:`L` the estimate of one sample and ``D`` its number of dimensions. The mean being fixed,
    this is the variance. One pass forward and one backward do both: the loss is the inner
    objective's, bit for bit, and the gradient of each sample is multiplied by :math:`2 L / D^2` where
    it enters the schedule. (The paper has :math:`L` in bits per dimension: the same up to a factor.)

    Args:
        inner: the bound, or weights on it that depend on the log-SNR alone.

    Raises:
        ValueError: another inner objective: its mean would depend on the schedule.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), section 5.1 and
    appendices H and I.2.

    >>> LearnedSchedule(Bound(timesteps=4))
    LearnedSchedule(
      (inner): Bound(timesteps=4)
    )
    """

    def __init__(self, inner: Objective | None = None) -> None:
        inner = inner or Bound()
        super().__init__(inner.timesteps)
        require(
            isinstance(inner, Bound | Weighted | BoundWeighted),
            f"{type(inner).__name__} as the inner objective",
            "Bound, or weights of it by the log-SNR (Weighted, Sigmoid, EDM)",
            "the mean of others depends on the schedule: it would learn to visit what costs little",
        )
        self.inner = inner

    def forward(
        self, model: nn.Module, x: Batch, context: Tensor | None = None
    ) -> tuple[Tensor, ELBO]:
        """The inner loss, a scalar, and the bound of each sample."""
        with scale_gradient() as gate:
            loss, elbo = self.inner(model, x, context)
        gate.rows = 2 * self.spread(elbo.detach()) / x[0].numel() ** 2
        return loss, elbo

    def cost(self, elbo: ELBO) -> PerSample:
        """The inner objective's."""
        return self.inner.cost(elbo)

    def spread(self, elbo: ELBO) -> PerSample:
        """What the denoising steps of each sample cost by the inner objective, ``(B,)``."""
        steps = {name: rate for name, rate in elbo.rates.items() if rate.noise is not None}
        nothing = torch.zeros_like(elbo.reconstruction)
        return self.inner.cost(replace(elbo, reconstruction=nothing, rates=steps))

    def extra_repr(self) -> str:
        """Nothing that the inner objective does not say."""
        return ""

    def check(self, model: LatentModel) -> None:
        """Refuse a model without a schedule to learn, or in discrete time."""
        priors = [part for part in model.modules() if isinstance(part, DiffusionPrior)]
        learn = [p for p in priors if any(isinstance(m, Learnable) for m in p.schedule.modules())]
        if not isinstance(self.inner, Bound):
            # A diffusion's encoder holds its schedule, which follows another loss than the weighted one.
            schedules = [p for prior in learn for p in prior.schedule.parameters()]
            require_fixed_encoder(model, type(self.inner).__name__, schedules)
        require(
            bool(learn),
            f"{type(self).__name__} on a model whose schedule has nothing to learn",
            "a diffusion with a learnable schedule",
            "build it with schedule=schedules.MonotoneNetwork(), or train it with objectives.Bound",
        )
        require(
            all(prior.steps is None for prior in learn),
            f"{type(self).__name__} on a diffusion in discrete time",
            "steps=None",
            "the bound of T steps depends on the schedule itself: objectives.Bound learns both; or "
            "learn the schedule in continuous time and build a model of T steps with it",
        )
