r"""Objectives that change during training: KL warm-up, linear or cyclical, and a capacity target.

Each acts on the whole rate of the bound, :math:`R = \sum_\text{groups} \text{rate}`, the nats that the
latents carry. So it is defined for every model, also where rates are log-ratios at a draw. The step counter
is a buffer: a checkpoint holds it, and a resumed run continues it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.checks import check_at_least, check_positive, invalid
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.objectives.base import Batch, MeanObjective, Objective
from genmod.objectives.requirements import require_prior
from genmod.path import AutoTimesteps, Path, Timesteps
from genmod.tensors import PerSample


class ScheduledObjective(Objective):
    """The base class of objectives that depend on the number of the training step.

    Args:
        steps: the number of training steps during which the objective changes.
        timesteps: which levels of a diffusion each row visits.
    """

    steps_done: Tensor
    """The number of training steps so far: part of a checkpoint."""

    def __init__(self, steps: int, timesteps: Timesteps = AutoTimesteps.TRAINING) -> None:
        super().__init__(timesteps)
        check_at_least(steps, 1, "steps", "use Bound for none")
        self.steps = steps
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    @property
    def step(self) -> Tensor:
        """The number of the step that is being made, from 1 on; in evaluation that of the last one."""
        return self.steps_done + self.training

    @property
    def warmup_steps(self) -> int:
        """The steps during which the objective changes."""
        return self.steps

    def update(self, elbo: ELBO, batch: Batch) -> None:
        """Count the step."""
        super().update(elbo, batch)
        self.steps_done += 1


class WarmUp(ScheduledObjective, MeanObjective):
    r"""The bound with a KL warm-up (KL annealing): the weight of every rate rises from 0 to 1.

    .. math:: L_i = -\log p(x|z) + \min(1, i / \text{steps})\, \mathrm{KL}(q(z|x) \,\|\, p(z))

    in training step ``i = 1, 2, ...``. Without it a hierarchy often never uses its latents (posterior
    collapse): the decoder learns the marginals of the data first, and a posterior equal to the prior has a
    rate of zero. Each run restarts the warm-up; a resumed run continues it.

    With several cycles (cyclical annealing) the weight returns to 0 at the start of each cycle, rises
    linearly over the part ``ramp`` of it, and stays at 1 for the rest. A cycle starts from latents that the
    one before has made useful.

    Args:
        steps: the number of training steps after which every rate has its full weight for good.
        cycles: how many times the weight rises within these steps; 4 in the paper on cycles.
        ramp: the part of a cycle during which the weight rises, above 0 and at most 1. By default 1 for one
            cycle, and one half for several.
        timesteps: which levels of a diffusion each row visits.

    Raises:
        ValueError: fewer steps than cycles; a part that is not above 0 and at most 1.

    Reference: Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2.3; Bowman et al.,
    "Generating sentences from a continuous space" (2016), section 3.1; with cycles, Fu et al., "Cyclical
    Annealing Schedule" (2019), eqs. 6-7.

    >>> WarmUp(steps=2000)
    WarmUp(steps=2000)
    >>> cyclical = WarmUp(steps=8, cycles=2)
    >>> [float(cyclical.weight(torch.tensor(step))) for step in range(1, 11)]
    [0.5, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        steps: int,
        cycles: int = 1,
        ramp: float | None = None,
        timesteps: Timesteps = AutoTimesteps.TRAINING,
    ) -> None:
        super().__init__(steps, timesteps)
        if not 1 <= cycles <= steps:
            raise invalid(f"cycles={cycles}", f"1 to {steps} cycles", "4 are in the paper")
        ramp = (1.0 if cycles == 1 else 0.5) if ramp is None else ramp
        if not 0 < ramp <= 1:
            raise invalid(f"ramp={ramp}", "a part in (0, 1]", "0.5 is the paper's")
        self.cycles, self.ramp = cycles, ramp

    def weight(self, step: Tensor) -> Tensor:
        """The weight of every rate in a training step, from 0 to 1."""
        cycle = ((step - 1) * self.cycles // self.steps).clamp(0, self.cycles - 1)
        within = step - cycle * (self.steps / self.cycles)
        return (within / (self.ramp * self.steps / self.cycles)).clamp(max=1)

    def cost(self, elbo: ELBO) -> PerSample:
        """Minus the reconstruction, plus the rates at the weight of this step."""
        weight = self.weight(self.step).to(elbo.reconstruction.dtype)
        return weight * (elbo.reconstruction - elbo.value) - elbo.reconstruction

    def extra_repr(self) -> str:
        """Its settings."""
        cyclical = (f"cycles={self.cycles}", f"ramp={self.ramp}") if self.cycles > 1 else ()
        return self._with_timesteps(f"steps={self.steps}", *cyclical)


class CapacityTarget(ScheduledObjective):
    r"""A capacity target: the rate is kept at a number of nats, which rises linearly during training.

    .. math:: L_i = -\log p(x|z) + \gamma\, \big| R - C_i \big|, \qquad
        C_i = \min(1, i / \text{steps})\, C, \qquad R = \textstyle\sum \text{rates}

    in training step ``i``. Latents become useful one after another as the capacity rises, and the rate
    cannot collapse to zero. ``R`` is the mean over the batch, as in Locatello et al.'s code, so that rows
    may differ. (The paper's equation is for one row.) The bound that training logs has the plain rate.

    With validation data ``fit`` keeps the weights of the best bound, which may be those of an earlier
    capacity. To keep the last ones, train on rows without a validation part.

    Args:
        nats: ``C``, the rate at the end, in nats per sample.
        steps: the number of training steps until the capacity is ``nats``.
        weight: :math:`\gamma`, the weight of the distance from the target. A small one lets the rate leave
            the target where that gains more reconstruction. A large one, such as the paper's 1000, leaves
            the reconstruction little of a gradient whose norm is clipped.
        timesteps: which levels of a diffusion each row visits.

    Raises:
        ValueError: a capacity, a number of steps or a weight out of range.

    Reference: Burgess et al., "Understanding disentangling in beta-VAE" (2018), eq. 8; Locatello et al.,
    "Challenging common assumptions in the unsupervised learning of disentangled representations" (2019).

    >>> from genmod.models import VAE
    >>> target = CapacityTarget(nats=10.0, steps=1000)
    >>> loss, elbo = target(VAE(2, latents=1, width=8), Batch(torch.zeros(4, 2)))
    >>> rate = (elbo.reconstruction - elbo.value).mean()
    >>> expected = 10 * (rate - 10 / 1000).abs() - elbo.reconstruction.mean()
    >>> bool(torch.isclose(loss, expected))
    True
    """

    def __init__(
        self,
        nats: float,
        steps: int,
        weight: float = 10.0,
        timesteps: Timesteps = AutoTimesteps.TRAINING,
    ) -> None:
        super().__init__(steps, timesteps)
        check_positive(nats, "nats")
        check_positive(weight, "weight")
        self.nats, self.weight = nats, weight

    def capacity(self, step: Tensor) -> Tensor:
        """The target in a training step, in nats."""
        return self.nats * (step / self.steps).clamp(max=1)

    def loss(self, elbo: ELBO, path: Path | None, batch: Batch) -> Tensor:
        """Minus the mean reconstruction, plus the weighted distance of the mean rate from the target."""
        rate = (elbo.reconstruction - elbo.value).mean()
        target = self.capacity(self.step).to(rate)
        return self.weight * (rate - target).abs() - elbo.reconstruction.mean()

    def check(self, model: LatentModel) -> None:
        """Refuse a model without a rate."""
        super().check(model)
        require_prior(model, type(self).__name__)

    def extra_repr(self) -> str:
        """Its settings."""
        return self._with_timesteps(
            f"nats={self.nats}", f"steps={self.steps}", f"weight={self.weight}"
        )
