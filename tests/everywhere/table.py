"""The table of public entry points, and how families that have none refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from genmod import random
from genmod.diffusion.depth import NoisingHierarchyPrior
from genmod.models import (
    LatentDiffusion,
)
from genmod.models.sampling import DiffusionBased
from tests.everywhere import calls
from tests.everywhere.families import Case
from tests.everywhere.found import Found


@dataclass(frozen=True)
class Entry:
    """A public entry point.

    Args:
        run: calls it.
        names: the public names that it calls.
        wants: the families that have it, and a pattern of the refusal for all others.
        keyed: whether it takes ids itself; else noise is keyed around it.
        rowwise: whether its rows have ids and may be computed in pieces.
        alone: whether the numbers of a row depend on that row alone.
    """

    run: Callable[[Case], Found]
    names: tuple[str, ...]
    wants: Callable[[Case], str | None] = lambda _: None
    keyed: bool = False
    rowwise: bool = True
    alone: bool = True

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


def _collapse(given: Case) -> str | None:
    if not given.model.prior.proper:
        return "flat prior"
    return None if given.diffusion is None else "posterior is fixed"


def _traversed(given: Case) -> str | None:
    return None if given.diffusion is None else "latents are noise"


def _mapped(given: Case) -> str | None:
    own = given.diffusion is not None and not isinstance(given.model, LatentDiffusion)
    return "codes are noise" if own else None


def _timesteps(given: Case) -> str | None:
    return None if given.diffusion is not None else "without noise levels"


def _imputed(given: Case) -> str | None:
    if not given.model.prior.proper:
        return "flat prior"
    own = given.diffusion is not None and not isinstance(given.model, LatentDiffusion)
    return "Diffusion to impute with" if own else None


def _amortized(given: Case) -> str | None:
    own = given.diffusion is not None and not isinstance(given.model, LatentDiffusion)
    own = own or isinstance(given.model.prior, NoisingHierarchyPrior)
    return "expected a Gaussian" if own or not given.model.prior.proper else None


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


def _pyro(given: Case) -> str | None:
    if not given.model.prior.proper:
        return "bounds nothing|flat prior"
    return log_weight_refusal(given)


ABSENT = "absent"
"""Families whose models have no such method."""

ENTRIES: dict[str, Entry] = {
    "elbo": Entry(calls.elbo, ("forward", "elbo")),
    "elbo of observed entries": Entry(calls.observed, ("elbo",)),
    "elbo at two timesteps": Entry(calls.some_timesteps, ("elbo",), _timesteps),
    "log_weight": Entry(calls.log_weight, ("log_weight",), log_weight_refusal),
    "path": Entry(calls.path, ("forward",), log_weight_refusal),
    "sample": Entry(calls.sample, ("sample",), _proper, keyed=True),
    "sample in few steps": Entry(
        calls.few_steps, ("sample", "states", "draw_from"), _only(DiffusionBased)
    ),
    "sample with guidance": Entry(calls.guided, ("guided",), _guided),
    "encode and decode": Entry(calls.codes, ("encode", "decode")),
    "reconstruct": Entry(calls.reconstruct, ("reconstruct",)),
    "impute": Entry(calls.imputed, ("impute", "law", "weighable", "check_missing"), _imputed),
    "posterior and draw": Entry(calls.parts, ("posterior", "draw")),
    "save and load": Entry(calls.saved, ("save", "load")),
    "freeze": Entry(calls.freeze, ("freeze", "first_stage", "fixed"), _only(LatentDiffusion)),
    "replace": Entry(
        calls.replaced,
        (
            "find_diffusion",
            "with_denoiser",
            "with_depth",
            "with_steps",
            "with_probability_flow",
        ),
        diffusion_refusal,
    ),
    "score": Entry(calls.score, ("score", "paired"), keyed=True),
    "log_weights": Entry(calls.log_weights, ("log_weights",), log_weight_refusal, keyed=True),
    "evaluate": Entry(calls.evaluate, ("evaluate",), keyed=True),
    "amortization gap": Entry(
        calls.amortization_gap, ("amortization_gap",), _amortized, keyed=True
    ),
    "collapse": Entry(calls.collapse, ("collapse",), _collapse, keyed=True, alone=False),
    "profile": Entry(calls.profile, ("profile",), diffusion_refusal, keyed=True),
    "refinement": Entry(calls.refinement, ("refinement",), _integers, keyed=True),
    # A pilot of the first rows decides which levels all rows visit.
    "immse": Entry(calls.immse, ("immse",), _immse, keyed=True, alone=False),
    "flow_density": Entry(calls.flow_density, ("flow_density",), diffusion_refusal, keyed=True),
    "flow_bound": Entry(calls.flow_bound, ("flow_bound",), diffusion_refusal, keyed=True),
    "explain": Entry(calls.explain, ("explain",), diffusion_refusal, keyed=True, rowwise=False),
    "sdedit": Entry(calls.sdedit, ("sdedit",), diffusion_refusal),
    "interpolate": Entry(calls.interpolate, ("interpolate",)),
    "latent arithmetic": Entry(calls.latent_arithmetic, ("move", "latent_direction")),
    "traverse": Entry(calls.traverse, ("traverse",), _traversed, keyed=True, alone=False),
    "latent map": Entry(calls.latent_map, ("latent_map",), _mapped, keyed=True, alone=False),
    "fit": Entry(calls.trained, ("fit", "check_full_precision"), keyed=True, rowwise=False),
    "pyro": Entry(calls.pyro_pair, ("to_pyro",), _pyro),
}

WITHOUT_A_MODEL = {
    "linear_forecast",
    "features",
    "frechet_distance",
}
"""Public functions that take no model."""
ELSEWHERE = {
    "predictive_check": "draws as sample does, and compares statistics of whole data sets",
    "quality": "draws by sample(seeds=...), and looks at images with a trained network",
    "formula": "gives words",
}
"""Entry points of models that are tested elsewhere, and why."""
