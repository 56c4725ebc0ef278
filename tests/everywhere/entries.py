"""Every public entry point of a model, as a function of a :class:`~tests.everywhere.families.Case`.

An entry gives numbers a row, the rows first, and numbers of all rows together (means, for example).
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import pyro
import torch
from torch import Tensor

from genmod import editing, evaluation, load, objectives, random
from genmod.chunks import COPIES, memory_limit
from genmod.data import conditional, dataset
from genmod.evaluation import GaussianTail, IntegerTail, NoTail, Scores
from genmod.interop.pyro import to_pyro
from genmod.model import LatentModel, Request
from genmod.models import (
    LatentDiffusion,
    find_diffusion,
    with_denoiser,
    with_probability_flow,
    with_steps,
)
from genmod.models.sampling import DiffusionBased
from genmod.samplers import DDIM
from genmod.shapes import size
from genmod.training import fit
from tests.everywhere.families import Case

Numbers: TypeAlias = "Tensor | float | None"


@dataclass
class Found:
    """What an entry gave.

    Args:
        rows: numbers of each row, ``(N, ...)``.
        whole: numbers of all rows together.
    """

    rows: dict[str, Tensor] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A public entry point.

    Args:
        run: calls it.
        names: the public names that it calls.
        wants: the families that have it, and a pattern of the refusal for all others.
        keyed: whether it takes ids itself; else noise is keyed around it.
        rowwise: whether it takes rows of which it can be given fewer.
        limit: the largest relative difference between float32 and float64.
    """

    run: Callable[[Case], Found]
    names: tuple[str, ...]
    wants: Callable[[Case], str | None] = lambda _: None
    keyed: bool = False
    rowwise: bool = True

    def __call__(self, given: Case) -> Found:
        """Run it on all rows, or on as many at a time as the case says."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            if self.keyed:
                return self.run(given)
            count = len(given.x)
            most = count if given.batch_size is None else given.batch_size
            found = []
            for start in range(0, count, most):
                piece = given.part(slice(start, start + most))
                with random.keyed(0, ids=piece.ids):
                    found.append(self.run(piece))
        rows = {name: torch.cat([each.rows[name] for each in found]) for name in found[0].rows}
        return Found(rows, found[0].whole)


# ------------------------------------------------------------------ numbers in what is returned


def tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every number in a result: tensors, floats, and those of dataclasses, mappings and tuples."""
    if isinstance(value, Tensor):
        yield name, value.detach().double()
    elif isinstance(value, float):
        yield name, torch.tensor(value, dtype=torch.float64)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from tensors(inner, f"{name}.{key}")
    elif isinstance(value, tuple | list):
        for number, inner in enumerate(value):
            yield from tensors(inner, f"{name}.{number}")
    elif isinstance(value, Scores):
        yield from tensors((value.per_dim, value.levels), name)
    elif dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            yield from tensors(getattr(value, each.name), f"{name}.{each.name}")


def whole(value: object) -> Found:
    """Numbers of all rows together."""
    return Found(whole=dict(tensors(value)))


def rows(**values: Tensor) -> Found:
    """Numbers of each row."""
    return Found(rows={name: value.detach().double() for name, value in values.items()})


# ------------------------------------------------------------------ methods of models


def elbo(given: Case) -> Found:
    bound = given.model.elbo(given.x, context=given.context)
    terms = {level.name: level.nats for level in bound.levels()}
    return rows(value=bound.value, reconstruction=bound.reconstruction, **terms)


def observed(given: Case) -> Found:
    seen = torch.ones_like(given.x, dtype=torch.bool)
    seen[..., 0] = False
    return rows(value=given.model.elbo(given.x, context=given.context, observed=seen).value)


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
    settings = {"sampler": DDIM(), "steps": 3, "seeds": given.ids.tolist()}
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
    model = copy.deepcopy(given.model)
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
    # The density of a flow gives its encoder no gradient.
    with torch.no_grad():
        found = {k: m.elbo(given.x, context=given.context).value for k, m in bounds.items()}
    return rows(**found)


# ------------------------------------------------------------------ evaluation


def _given(given: Case) -> dict[str, object]:
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
    draws = 2 if log_weight_refusal(given) is None else 0
    report = evaluation.evaluate(
        given.model, given.x, given.context, importance_samples=draws, **_given(given)
    )
    return whole(report)


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
    return whole(objectives.explain(objectives.Simple(), given.model, points=5))


# ------------------------------------------------------------------ editing, training, Pyro


def sdedit(given: Case) -> Found:
    return rows(x=editing.sdedit(given.model, given.x, 0.5, steps=2, context=given.context))


def interpolate(given: Case) -> Found:
    other = given.x.flip(-1)
    return rows(x=editing.interpolate(given.model, given.x, other, 3, given.context))


def trained(given: Case) -> Found:
    model, data = copy.deepcopy(given.model), given.x
    if given.context is not None:
        both = torch.cat([data] * 6)
        data = conditional(dataset(both, bins=model.spec.bins), torch.cat([given.context] * 6))
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


# ------------------------------------------------------------------ who has what, and how others refuse


def diffusion_refusal(given: Case) -> str | None:
    return None if given.diffusion is not None else "expected"


def log_weight_refusal(given: Case) -> str | None:
    if not given.model.prior.proper:
        return "flat prior"
    return "continuous time" if _continuous(given) else None


def _continuous(given: Case) -> bool:
    return given.diffusion is not None and given.diffusion.steps is None


def _proper(given: Case) -> str | None:
    return None if given.model.prior.proper else "flat prior"


def _timesteps(given: Case) -> str | None:
    return None if given.diffusion is not None else "without noise levels"


def _integers(given: Case) -> str | None:
    return None if given.model.spec.is_integer else "decoder of real numbers"


def _immse(given: Case) -> str | None:
    nested = given.diffusion is None or isinstance(given.model, LatentDiffusion)
    return "expected a diffusion of the data" if nested else None


def _only(kind: type) -> Callable[[Case], str | None]:
    return lambda given: None if isinstance(given.model, kind) else ABSENT


def _guided(given: Case) -> str | None:
    if not isinstance(given.model, DiffusionBased):
        return ABSENT
    return None if given.context is not None else "condition|context|label"


def _masked(given: Case) -> str | None:
    return None


def _pyro(given: Case) -> str | None:
    if not given.model.prior.proper:
        return "bounds nothing|flat prior"
    return log_weight_refusal(given)


def _explained(given: Case) -> str | None:
    return None if given.diffusion is not None else "expected"


ABSENT = "absent"
"""Families whose models have no such method."""

ENTRIES: dict[str, Entry] = {
    "elbo": Entry(elbo, ("forward", "elbo")),
    "elbo of observed entries": Entry(observed, ("elbo",), _masked),
    "elbo at two timesteps": Entry(some_timesteps, ("elbo",), _timesteps),
    "log_weight": Entry(log_weight, ("log_weight",), log_weight_refusal),
    "path": Entry(path, ("forward",), log_weight_refusal),
    "sample": Entry(sample, ("sample",), _proper, keyed=True),
    "sample in few steps": Entry(
        few_steps, ("sample", "states", "draw_from"), _only(DiffusionBased)
    ),
    "sample with guidance": Entry(guided, ("guided",), _guided),
    "encode and decode": Entry(codes, ("encode", "decode")),
    "reconstruct": Entry(reconstruct, ("reconstruct", "restore")),
    "posterior and draw": Entry(parts, ("posterior", "draw")),
    "save and load": Entry(saved, ("save", "load")),
    "freeze": Entry(freeze, ("freeze", "first_stage", "fixed"), _only(LatentDiffusion)),
    "replace": Entry(
        replaced,
        (
            "find_diffusion",
            "has_diffusion",
            "with_denoiser",
            "with_steps",
            "with_probability_flow",
        ),
        diffusion_refusal,
    ),
    "score": Entry(score, ("score", "paired"), keyed=True),
    "log_weights": Entry(log_weights, ("log_weights",), log_weight_refusal, keyed=True),
    "evaluate": Entry(evaluate, ("evaluate",), keyed=True),
    "profile": Entry(profile, ("profile",), diffusion_refusal, keyed=True),
    "refinement": Entry(refinement, ("refinement",), _integers, keyed=True),
    "immse": Entry(immse, ("immse",), _immse, keyed=True),
    "flow_density": Entry(flow_density, ("flow_density",), diffusion_refusal, keyed=True),
    "flow_bound": Entry(flow_bound, ("flow_bound",), diffusion_refusal, keyed=True),
    "explain": Entry(explain, ("explain",), _explained, keyed=True, rowwise=False),
    "sdedit": Entry(sdedit, ("sdedit",), diffusion_refusal),
    "interpolate": Entry(interpolate, ("interpolate", "slerp")),
    "fit": Entry(trained, ("fit",), keyed=True, rowwise=False),
    "pyro": Entry(pyro_pair, ("to_pyro",), _pyro),
}

WITHOUT_A_MODEL = {
    "gaussian",
    "pixel_histogram",
    "ppca",
    "features",
    "frechet_distance",
    "quality_of",
}
"""Public functions that take no model."""
ELSEWHERE = {
    "quality": "draws by sample(seeds=...), and looks at images with a trained network",
    "formula": "gives words",
}
"""Entry points of models that are tested elsewhere, and why."""
__all__ = ["ELSEWHERE", "ENTRIES", "WITHOUT_A_MODEL", "Entry", "Found", "IntegerTail"]
