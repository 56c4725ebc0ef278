"""Values of evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genmod import evaluation
from genmod.evaluation import baselines as simple
from genmod.evaluation.information import NoTail
from genmod.models import with_probability_flow, with_steps
from genmod.random import keyed
from tests.unmoved import models
from tests.unmoved.inputs import BINS, INTS, LABELS, MANY, POINTS, REALS, bound, noised


def numbers(report: Any) -> list[float]:
    """Value, its error, each term, bits of a mass, the noise, the importance-weighted value."""
    found = [report.value.mean, report.value.error, *(term.mean for term in report.terms.values())]
    if report.bits_per_dim is not None:
        found.append(report.bits_per_dim.mean)
    if report.noise is not None:
        found.append(report.noise)
    if report.importance is not None:
        found += [report.importance.mean, report.importance.error]
    return found


def evaluated(model: Any, x: Tensor, importance: int = 0, **settings: Any) -> list[float]:
    found = evaluation.evaluate(model, x, importance_samples=importance, seed=0, **settings)
    return numbers(found)


def immse(model: Any, x: Tensor, tail: Any = None) -> list[float]:
    return numbers(evaluation.immse(model, x, timesteps=8, tail=tail, seed=3))


def chained() -> object:
    """The same denoiser with other numbers of latents."""
    chains = [with_steps(models.continuous(), steps).double() for steps in (4, 20)]
    return [evaluated(model, REALS)[0] for model in chains]


def log_weights() -> object:
    found = []
    for model in (models.vae(), models.hvae(False), models.hvae(True), models.steps10()):
        with keyed(45):
            found.append(model.log_weight(INTS)[:2])
    return found


def flow_density(model: Any, probes: int | None) -> object:
    """Nats of each row, their errors over probes, and the drift."""
    z = noised(model, REALS[:3], 0.0, 46)
    found = evaluation.flow_density(model, z, steps=8, probes=probes, seed=4)
    return [found.nats, found.error, found.drift]


def flow_bound(model: Any, x: Tensor, probes: int | None, importance: int = 0) -> object:
    found = evaluation.flow_bound(
        model, x[:3], steps=8, probes=probes, importance_samples=importance, seed=5
    )
    return [*numbers(found.report), found.drift.mean]


def flow_prior() -> object:
    """The model with the probability flow's density for a prior."""
    model = with_probability_flow(models.continuous(), steps=4).double()
    found = bound(model, REALS[:3], 47)
    with keyed(47):
        return [found, model.sample(1)]


def profile() -> object:
    found = evaluation.profile(models.continuous(), REALS, timesteps=4, seed=6)
    return [found.nats, found.rmse, torch.tensor([found.prior, found.decoder])]


def refinement() -> object:
    found = evaluation.refinement(models.steps10(), INTS, seed=7)
    return [found.nats, found.rmse]


def baselines() -> object:
    found = [
        simple.pixel_histogram(MANY, INTS, BINS),
        simple.gaussian(MANY, INTS, BINS),
        simple.ppca(MANY, INTS, BINS, rank=2),
    ]
    return [each.log_prob.mean() for each in found]


VALUES: dict[str, Callable[[], object]] = {
    "evaluate/vae integers, importance 8, 2 replicates": lambda: evaluated(
        models.vae(), INTS, 8, replicates=2
    ),
    "evaluate/vae reals with a mixture prior, importance 8": lambda: evaluated(
        models.vae_mixture(), REALS, 8
    ),
    "evaluate/hvae bottom-up, importance 8": lambda: evaluated(models.hvae(False), INTS, 8),
    "evaluate/hvae top-down, importance 8": lambda: evaluated(models.hvae(True), INTS, 8),
    "evaluate/diffusion 10, importance 4": lambda: evaluated(models.steps10(), INTS, 4),
    "evaluate/diffusion continuous, 4 levels visited, 3 replicates": lambda: evaluated(
        models.continuous(), REALS, timesteps=4, replicates=3
    ),
    "evaluate/diffusion learned variance, importance 4": lambda: evaluated(
        models.learned(), REALS, 4
    ),
    "evaluate/diffusion conditional": lambda: evaluated(models.labeled(), INTS, context=LABELS),
    "evaluate/latent diffusion 10, importance 4": lambda: evaluated(
        models.latent_diffusion(10), INTS, 4
    ),
    "evaluate/chained: 4 steps, 20 steps": chained,
    "log weights/vae, hvaes, diffusion": log_weights,
    "evaluate/immse reals": lambda: immse(models.continuous(), REALS),
    "evaluate/immse integers": lambda: immse(models.steps10(), INTS),
    "evaluate/immse of points under their denoiser": lambda: immse(
        models.known_points(22, POINTS, 0.0, None), POINTS, NoTail()
    ),
    "flow/density, exact trace": lambda: flow_density(models.continuous(), None),
    "flow/density, 3 probes": lambda: flow_density(models.continuous(), 3),
    "flow/density, exploding schedule": lambda: flow_density(
        models.diffusion(14, 3, None, 10, "exploding"), None
    ),
    "flow/bound, exact trace, importance 2": lambda: flow_bound(
        models.continuous(), REALS, None, 2
    ),
    "flow/bound of integers, 2 probes": lambda: flow_bound(models.steps10(), INTS, 2),
    "flow/as a prior: terms, sample": flow_prior,
    "evaluate/profile": profile,
    "evaluate/refinement": refinement,
    "evaluate/baselines": baselines,
}
