"""Objectives for what a diffusion learns beside its denoiser: the reverse variance and the schedule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.diffusion import DiffusionPrior
from genmod.elbo import ELBO, Rate
from genmod.model import LatentModel
from genmod.objectives.base import Batch, Bound, MeanObjective, Objective
from genmod.objectives.requirements import require_fixed_encoder
from genmod.objectives.weighted import BoundWeighted, Simple, Weighted
from genmod.path import AutoTimesteps, Path, Timesteps
from genmod.schedules.curve import GradientScale, Learnable, scale_gradient
from genmod.tensors import PerLevel, PerSample


class Hybrid(MeanObjective):
    r"""The hybrid loss of Improved DDPM, :math:`L_\text{simple} + w L_\text{vlb}`, for a learned variance.

    The mean is trained by :class:`Simple` only. The reverse variance is trained by ``w`` times the bound,
    in which the mean is held fixed. The terms of the bound without a variance (the rate of the prior, and
    the reconstruction) are left out.

    Both parts are sums over dimensions, in nats. The paper's are means over dimensions, and its code
    computes the second in bits: that is ``weight = 0.001 / ln 2`` here. The two parts train different
    outputs of the network, so the weight only matters for the layers that they share.

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
        if not 0 < weight < float("inf"):
            raise invalid(f"weight={weight}", "weight > 0", "for 0, use objectives.Simple")
        self.weight = weight
        self.simple = Simple()

    def cost(self, elbo: ELBO) -> PerSample:
        """The squared error of the noise, plus ``w`` times the nats of the steps with a fixed mean."""
        simple = self.simple.cost(elbo)
        (steps,) = (rate for rate in elbo.rates.values() if rate.noise is not None)
        return simple + self.weight * (steps.weight * _variance_nats(steps)).sum(-1)

    def per_level(self, rate: Rate) -> PerLevel:
        """The loss of each visited level, both parts."""
        return self.simple.per_level(rate) + self.weight * _variance_nats(rate)

    def check(self, model: LatentModel) -> None:
        """Refuse a model with an encoder that learns."""
        super().check(model)
        self.simple.check(model)

    def extra_repr(self) -> str:
        return self._with_timesteps(f"weight={self.weight}")


def _variance_nats(rate: Rate) -> PerLevel:
    """The nats of each visited step, whose gradient reaches only the reverse variance."""
    levels = rate.noise
    if levels is None or levels.variance_nats is None:
        raise invalid(
            "a model whose reverse variance is not learned",
            "a diffusion in T steps with one that is",
            "build it with variance=LearnedInterpolation(), or use objectives.Simple",
        )
    return levels.variance_nats


class LearnedSchedule(Objective):
    r"""Train a schedule with its denoiser: the schedule minimizes the variance of the bound's estimate.

    In continuous time the bound does not depend on the schedule between its ends, but the variance of its
    estimate from a few levels does. So all other parameters follow the inner objective, and those of the
    schedule, :math:`\eta`, follow the mean square of the loss of the steps,

    .. math:: \nabla_\eta\, \mathbb{E}\left[(L / D)^2\right]
        = \mathbb{E}\left[2 L\, \nabla_\eta L\right] / D^2

    with :math:`L` the estimate of one sample and ``D`` its number of dimensions. The mean is fixed, so this
    minimizes the variance. One forward and one backward pass do both: the loss is that of the inner
    objective, bit for bit, and the gradient of each sample is multiplied by :math:`2 L / D^2` where
    it enters the schedule. (The paper has :math:`L` in bits per dimension: the same up to a factor.)

    Args:
        inner: the bound, or weights on it that depend on the log-SNR only.

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
        if not isinstance(inner, Bound | Weighted | BoundWeighted):
            raise invalid(
                f"{type(inner).__name__} as the inner objective",
                "Bound, or a weight of it by the log-SNR (Weighted, SigmoidWeight, EDMWeight)",
                "the mean of other objectives depends on the schedule, which would learn to spend "
                "time where the loss is small",
            )
        self.inner: MeanObjective = inner
        self._scale: GradientScale | None = None

    @contextmanager
    def around(self) -> Iterator[None]:
        """Mark the schedule's outputs, so that :meth:`loss` can scale the gradients that enter them."""
        with scale_gradient() as self._scale, self.inner.around():
            yield

    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """The inner loss. It also sets the factors of the gradients that enter the schedule."""
        if self._scale is not None:
            self._scale.rows = 2 * self.spread(elbo.detach()) / batch.x[0].numel() ** 2
        return self.inner.loss(elbo, path, batch)

    def update(self, elbo: ELBO, batch: Batch) -> None:
        self.inner.update(elbo, batch)

    def spread(self, elbo: ELBO) -> PerSample:
        """The loss of the denoising steps of each sample by the inner objective, ``(B,)``."""
        steps = {name: rate for name, rate in elbo.rates.items() if rate.noise is not None}
        nothing = torch.zeros_like(elbo.reconstruction)
        return self.inner.cost(replace(elbo, reconstruction=nothing, rates=steps))

    def extra_repr(self) -> str:
        return ""

    def check(self, model: LatentModel) -> None:
        """Refuse a model without a schedule to learn, or in discrete time."""
        super().check(model)
        priors = [part for part in model.modules() if isinstance(part, DiffusionPrior)]
        learn = [p for p in priors if any(isinstance(m, Learnable) for m in p.schedule.modules())]
        if not isinstance(self.inner, Bound):
            # The encoder of a diffusion holds the schedule, which does not follow the weighted loss.
            schedules = [p for prior in learn for p in prior.schedule.parameters()]
            require_fixed_encoder(model, type(self.inner).__name__, schedules)
        if not learn:
            raise invalid(
                f"{type(self).__name__} on a model whose schedule has no parameters",
                "a diffusion with a learnable schedule",
                "build it with schedule=schedules.MonotoneNetwork(), or train it with "
                "objectives.Bound",
            )
        if not all(prior.steps is None for prior in learn):
            raise invalid(
                f"{type(self).__name__} on a diffusion in discrete time",
                "steps=None",
                "the bound of T steps depends on the schedule itself: objectives.Bound learns "
                "both; or learn the schedule in continuous time and build a model of T steps with "
                "it",
            )
