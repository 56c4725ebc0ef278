"""Values of objectives and their gradients."""

from __future__ import annotations

from typing import Any, TypeAlias

from torch import Tensor

from tests.unmoved.calls import build_objective, explained, loss_of
from tests.unmoved.inputs import (
    INTS,
    REALS,
    built,
    continuous,
    hvae,
    latent_diffusion,
    learned,
    steps10,
    vae,
    value,
)
from tests.unmoved.models import build_diffusion, build_schedule, keyed, schedule_of

Model: TypeAlias = Any
Visited: TypeAlias = Any


def loss(
    name: str,
    model: Model,
    x: Tensor,
    seed: int,
    visited: Visited = 2,
    context: Tensor | None = None,
) -> Tensor:
    with keyed(seed):
        return loss_of(build_objective(name, visited), model, x, context)


@value("objectives/bound, beta, warm-up of families that learn their encoder")
def _() -> object:
    found: list[Any] = []
    for model in (vae(), hvae(False), hvae(True), latent_diffusion(None)):
        found += [loss(name, model, INTS, 30) for name in ("bound", "beta", "warm-up")]
    return found


for _name in [
    "bound",
    "beta",
    "simple",
    "weighted",
    "min-snr",
    "truncated snr",
    "p2",
    "sigmoid",
    "edm",
]:

    @value(f"objectives/{_name}: 10 steps, continuous")
    def _(name: str = _name) -> object:
        return [loss(name, steps10(), INTS, 31), loss(name, continuous(), REALS, 31)]


@value("objectives/hybrid, and simple beside it")
def _() -> object:
    return [loss(name, learned(), REALS, 32) for name in ("hybrid", "simple")]


@value("objectives/hybrid, its gradient")
def _() -> object:
    model = learned()
    loss("hybrid", model, REALS, 32).backward()
    return [
        parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None
    ][-3:]


@value("objectives/bound, gradient through the chain of all levels")
def _() -> object:
    model = steps10()
    loss("bound", model, INTS, 33, visited=None).backward()
    return [sum(float(p.grad.square().sum()) for p in model.parameters()) ** 0.5]


@value("objectives/learned schedule, its gradient to the schedule")
def _() -> object:
    model = built(lambda: build_diffusion(3, None, None, schedule=build_schedule("monotone")), 21)
    found = loss("learned schedule", model, REALS, 34)
    found.backward()
    schedule = list(schedule_of(model).parameters())
    return [found, *(parameter.grad.double().norm() for parameter in schedule)]


@value("objectives/explained")
def _() -> object:
    schedule = build_schedule("cosine")
    return [
        explained(build_objective(name), schedule) for name in ("simple", "min-snr", "p2", "edm")
    ]
