"""Values of objectives and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genmod import objectives
from genmod.objectives import Batch, Objective, explain
from genmod.path import AutoTimesteps
from genmod.random import keyed
from tests.unmoved import models
from tests.unmoved.inputs import INTS, REALS

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "bound": objectives.Bound,
    "beta": partial(objectives.Beta, 0.3),
    "simple": objectives.Simple,
    "weighted": partial(objectives.Weighted, torch.sigmoid),
    "min-snr": partial(objectives.MinSNR, 5.0),
    "truncated snr": objectives.TruncatedSNR,
    "p2": partial(objectives.P2, gamma=0.5, k=1.0),
    "sigmoid": partial(objectives.SigmoidWeight, 0.5),
    "edm": objectives.EDMWeight,
}
"""Of the bound of a diffusion. Those below are for some models alone."""
OTHERS: dict[str, Callable[..., Objective]] = {
    "warm-up": partial(objectives.WarmUp, 4),
    "hybrid": partial(objectives.Hybrid, 0.1),
    "learned schedule": lambda timesteps: objectives.LearnedSchedule(
        objectives.Bound(timesteps=timesteps)
    ),
}


def objective(name: str, timesteps: Any = 2) -> Objective:
    return (OBJECTIVES | OTHERS)[name](timesteps=timesteps)


def fitting(chosen: Objective, model: Any) -> Any:
    """The objective, without a number of levels where the model has none to choose from."""
    if not model.prior.has_timesteps:
        chosen.timesteps = AutoTimesteps.TRAINING
    return chosen


def loss(name: str, model: Any, x: Tensor, seed: int, timesteps: Any = 2) -> Tensor:
    """Of one batch."""
    with keyed(seed):
        found, _ = fitting(objective(name, timesteps), model)(model, Batch(x))
    return found


def of_learned_encoders() -> object:
    found = []
    for model in (
        models.vae(),
        models.hvae(False),
        models.hvae(True),
        models.latent_diffusion(None),
    ):
        found += [loss(name, model, INTS, 30) for name in ("bound", "beta", "warm-up")]
    return found


def of_diffusions(name: str) -> object:
    return [
        loss(name, models.steps10(), INTS, 31),
        loss(name, models.continuous(), REALS, 31),
    ]


def gradient_of_hybrid() -> object:
    model = models.learned()
    loss("hybrid", model, REALS, 32).backward()
    return [p.grad.norm() for p in model.parameters() if p.grad is not None][-3:]


def gradient_of_the_bound() -> object:
    model = models.steps10()
    loss("bound", model, INTS, 33, None).backward()
    return sum(float(p.grad.square().sum()) for p in model.parameters()) ** 0.5


def gradient_to_the_schedule() -> object:
    model = models.diffusion(21, 3, None, None, "monotone")
    found = loss("learned schedule", model, REALS, 34)
    found.backward()
    return [found, *(p.grad.double().norm() for p in model.prior.schedule.parameters())]


def explained() -> object:
    """The mean weight of the bound that an objective is, its weights at both ends."""
    found = []
    for name in ("simple", "min-snr", "p2", "edm"):
        weight = explain(objective(name), models.SCHEDULES["cosine"](), points=101).weight
        found.append([weight.mean(), weight[0], weight[-1]])
    return found


VALUES: dict[str, Callable[[], object]] = {
    "objectives/bound, beta, warm-up of families that learn their encoder": of_learned_encoders,
    **{
        f"objectives/{name}: 10 steps, continuous": partial(of_diffusions, name)
        for name in OBJECTIVES
    },
    "objectives/hybrid, and simple beside it": lambda: [
        loss(name, models.learned(), REALS, 32) for name in ("hybrid", "simple")
    ],
    "objectives/hybrid, its gradient": gradient_of_hybrid,
    "objectives/bound, gradient through the chain of all levels": gradient_of_the_bound,
    "objectives/learned schedule, its gradient to the schedule": gradient_to_the_schedule,
    "objectives/explained": explained,
}
