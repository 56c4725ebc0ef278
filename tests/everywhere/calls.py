"""Calls of every public entry point, each on one :class:`~tests.everywhere.families.Case`."""

from __future__ import annotations

import dataclasses
import tempfile
from typing import Any

import pyro
import torch
from torch import Tensor

from genmod import editing, evaluation, load, objectives
from genmod.chunks import COPIES, memory_limit
from genmod.data import Dataset, conditional
from genmod.data.rows import dataset
from genmod.evaluation.information import GaussianTail, NoTail
from genmod.interop.pyro import to_pyro
from genmod.model import LatentModel, Request
from genmod.models import (
    Diffusion,
    LatentDiffusion,
    with_denoiser,
    with_depth,
    with_probability_flow,
    with_steps,
)
from genmod.models.replace import find_diffusion
from genmod.models.sampling import DiffusionBased
from genmod.nn import MLPs
from genmod.priors.simple import DistributionPrior
from genmod.samplers import DDIM
from genmod.tensors import size
from genmod.training import fit
from tests.everywhere.families import Case
from tests.everywhere.found import Found, rows, tensors, whole

# ------------------------------------------------------------------ methods of models


def elbo(given: Case) -> Found:
    bound = given.model.elbo(given.x, context=given.context)
    terms = {level.name: level.nats for level in bound.levels()}
    return rows(value=bound.value, reconstruction=bound.reconstruction, **terms)


def observed(given: Case) -> Found:
    seen = torch.ones_like(given.x, dtype=torch.bool)
    seen[..., 0] = False
    return rows(value=given.model.elbo(given.x, context=given.context, observed=seen).value)


def imputed(given: Case) -> Found:
    seen = torch.ones_like(given.x, dtype=torch.bool)
    seen[..., 0] = False
    found = given.model.impute(given.x, seen, 2, 4, context=given.context)
    size = found.effective_sample_size
    return rows(first=found[0], second=found[1], mean=found.mean, size=size)


def some_timesteps(given: Case) -> Found:
    return rows(value=given.model.elbo(given.x, timesteps=2, context=given.context).value)


def log_weight(given: Case) -> Found:
    return rows(value=given.model.log_weight(given.x, given.context))


def path(given: Case) -> Found:
    request = Request(given.context, samples=3, needs_path=True)
    bound, drawn = given.model(given.x, request)
    assert drawn is not None
    return rows(value=bound.value, weights=drawn.log_weight().T)


def sample(given: Case) -> Found:
    with memory_limit(_bytes(given)):
        drawn = given.model.sample(len(given.x), given.context, seeds=given.ids.tolist())
    return rows(x=drawn)


def _bytes(given: Case) -> int:
    """Memory for as many rows as the case wants at a time."""
    together = len(given.x) if given.batch_size is None else given.batch_size
    return 4 * COPIES * size(given.model.spec.shape) * together


def few_steps(given: Case) -> Found:
    model = given.model
    assert isinstance(model, DiffusionBased)
    settings: dict[str, Any] = {"sampler": DDIM(), "steps": 3, "seeds": given.ids.tolist()}
    drawn = model.sample(len(given.x), given.context, **settings)
    last = list(model.states(len(given.x), given.context, **settings))[-1]
    return rows(x=drawn, z=last.z, x_hat=last.x_hat)


def guided(given: Case) -> Found:
    model = given.model
    assert isinstance(model, DiffusionBased)
    seeds = given.ids.tolist()
    drawn = model.sample(
        len(given.x), given.context, steps=3, sampler=DDIM(), guidance_scale=2.0, seeds=seeds
    )
    return rows(x=drawn)


def codes(given: Case) -> Found:
    model = given.model
    z = model.encode(given.x, given.context)
    law = model.decode(z, given.context)
    parts = (z,) if isinstance(z, Tensor) else z
    named = {f"z{number}": part for number, part in enumerate(parts)}
    return rows(mean=law.mean, nats=law.log_prob(given.x), **named)


def reconstruct(given: Case) -> Found:
    return rows(x=given.model.reconstruct(given.x, given.context))


def parts(given: Case) -> Found:
    """The posterior, drawn by the prior, and data drawn from the state."""
    model = given.model
    posterior = model.posterior(given.x, given.context)
    state, _ = model.prior.rates(posterior, context=given.context)
    return rows(state=state, x=model.draw(state, given.context))


def saved(given: Case) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        copied = load(given.model.save(f"{folder}/model"))
    assert isinstance(copied, LatentModel)
    return elbo(dataclasses.replace(given, model=copied))


def freeze(given: Case) -> Found:
    model = given.copied()
    assert isinstance(model, LatentDiffusion)
    model.freeze(given.x, given.context)
    assert not any(p.requires_grad for part in model.fixed() for p in part.parameters())
    first = model.first_stage().elbo(given.x, context=given.context).value
    nested = model.nested
    found = rows(first=first)
    found.whole = {"shift": nested.shift.double(), "scale": nested.log_scale.double()}
    return found


# ------------------------------------------------------------------ models made of models


def replaced(given: Case) -> Found:
    """The bound in other steps, under a wrapped denoiser, through the probability flow."""
    model = given.model
    steps = 3 if find_diffusion(model).variance.learned else None
    other = with_denoiser(with_steps(model, steps), lambda denoiser: denoiser)
    flow = with_probability_flow(model, steps=4)
    bounds = {"steps": other, "flow": flow}
    if isinstance(model, Diffusion):
        small = MLPs(width=8, depth=1)
        bounds["depth"] = with_depth(model, 2, learned_encoder=True, networks=small)
    # The density of a flow gives its encoder no gradient.
    with torch.no_grad():
        found = {k: m.elbo(given.x, context=given.context).value for k, m in bounds.items()}
    return rows(**found)


# ------------------------------------------------------------------ evaluation


def _given(given: Case) -> dict[str, Any]:
    return {"batch_size": given.batch_size, "ids": given.ids}


def score(given: Case) -> Found:
    scores = evaluation.score(given.model, given.x, given.context, **_given(given))
    found = rows(value=scores.value, **scores.terms)
    found.whole = dict(tensors(scores))
    return found


def log_weights(given: Case) -> Found:
    found = evaluation.log_weights(
        given.model, given.x, given.context, importance_samples=2, **_given(given)
    )
    return rows(weights=found)


def evaluate(given: Case) -> Found:
    proper = given.model.prior.proper
    continuous = given.diffusion is not None and given.diffusion.steps is None
    draws = 2 if proper and not continuous else 0
    report = evaluation.evaluate(
        given.model, given.x, given.context, importance_samples=draws, **_given(given)
    )
    return whole(report)


def amortization_gap(given: Case) -> Found:
    found = evaluation.amortization_gap(
        given.model, given.x, given.context, steps=3, importance_samples=2, **_given(given)
    )
    return rows(gap=found.per_row)


def collapse(given: Case) -> Found:
    return whole(evaluation.collapse(given.model, given.x, given.context, **_given(given)))


def profile(given: Case) -> Found:
    return whole(
        evaluation.profile(given.model, given.x, given.context, timesteps=4, **_given(given))
    )


def refinement(given: Case) -> Found:
    return whole(evaluation.refinement(given.model, given.x, given.context, **_given(given)))


def immse(given: Case) -> Found:
    tail = NoTail() if given.model.spec.is_integer else GaussianTail()
    report = evaluation.immse(
        given.model, given.x, given.context, timesteps=4, tail=tail, **_given(given)
    )
    assert report.scores is not None
    found = rows(value=report.scores.value)
    found.whole = dict(tensors(report))
    return found


def flow_density(given: Case) -> Found:
    prior = find_diffusion(given.model)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(301, *prior.shape, generator=generator).to(_type(given))
    found = evaluation.flow_density(
        given.model, table[given.ids], given.context, steps=2, **_given(given)
    )
    probed = evaluation.flow_density(
        given.model, table[given.ids], given.context, steps=2, probes=2, **_given(given)
    )
    return rows(nats=found.nats, noise=found.noise, probed=probed.nats, error=probed.error)


def _type(given: Case) -> torch.dtype:
    kind = given.model.dtype
    assert kind is not None
    return kind


def flow_bound(given: Case) -> Found:
    found = evaluation.flow_bound(given.model, given.x, given.context, steps=2, **_given(given))
    return whole(found)


def explain(given: Case) -> Found:
    """The bound under a model, and a weighted loss under its schedule."""
    bound = objectives.explain(objectives.Bound(), given.model, points=5)
    schedule = find_diffusion(given.model).schedule
    return whole((bound, objectives.explain(objectives.Simple(), schedule, points=5)))


# ------------------------------------------------------------------ editing, training, Pyro


def sdedit(given: Case) -> Found:
    return rows(x=editing.sdedit(given.model, given.x, 0.5, steps=2, context=given.context))


def interpolate(given: Case) -> Found:
    other = given.x.flip(-1)
    if given.model.spec.columns is not None:
        other = given.x.clone()
        other[:, 0] += 5
    return rows(x=editing.interpolate(given.model, given.x, other, 3, given.context))


def latent_arithmetic(given: Case) -> Found:
    """Each row moved along one direction; the direction from a row to itself is none."""
    model, context = given.model, given.context
    twice = None if context is None else context[:1].repeat(2)
    still = editing.latent_direction(model, given.x[:1], given.x[:1], twice)
    parts = (still,) if isinstance(still, Tensor) else still
    steps = tuple(part.to(_type(given)) + 1 for part in parts)
    direction = steps[0] if len(steps) == 1 else steps
    return rows(x=editing.move(model, given.x, direction, [0.0, 0.5], context))


def traverse(given: Case) -> Found:
    # Draws of a law of torch's own are others in another type: there, quantiles of rows.
    plain = not given.model.prior.proper or isinstance(given.model.prior, DistributionPrior)
    over = "posterior" if plain else "prior"
    found = evaluation.traverse(
        given.model, given.x, given.context, row=int(given.ids.argmin()), over=over, count=3,
        **_given(given),
    )  # fmt: skip
    return whole(found)


def latent_map(given: Case) -> Found:
    found = evaluation.latent_map(given.model, given.x, given.context, **_given(given))
    return whole((found.points.square().mean(), found.shares))


def trained(given: Case) -> Found:
    with torch.inference_mode(False):
        model = given.copied()
    data: Tensor | Dataset = given.x
    if given.context is not None:
        both = torch.cat([given.x] * 12)
        labels = torch.cat([given.context] * 12)
        data = conditional(dataset(both, bins=model.spec.bins, labels=labels))
    history = fit(model, data, steps=2, batch_size=2, progress=False, stages="joint", device="cpu")
    found = whole({"losses": list(history.losses)})
    found.whole["weights"] = torch.cat([p.detach().flatten() for p in model.parameters()]).double()
    return found


def pyro_pair(given: Case) -> Found:
    """The log-weight of the pair at the latents of the model's own path."""
    pyro.clear_param_store()
    request = Request(given.context, needs_path=True)
    drawn = given.model(given.x, request)[1]
    assert drawn is not None
    pair = to_pyro(given.model)
    z = {name: values[0] for name, values in drawn.z.items()}
    logs = []
    for program in (pair.model, pair.guide):
        trace = pyro.poutine.trace(pyro.condition(program, data=z))
        sites = trace.get_trace(given.x, given.context)
        sites.compute_log_prob()
        kinds = sites.nodes.values()
        logs.append(sum(s["log_prob"] for s in kinds if "log_prob" in s and s["type"] == "sample"))
    pyro.clear_param_store()
    return rows(weight=logs[0] - logs[1], same=drawn.log_weight()[0])
