"""Values of evaluation."""

from __future__ import annotations

from typing import Any

from tests.unmoved.calls import (
    log_weight_of,
    sample_of,
)
from tests.unmoved.evaluation import (
    baselines_of,
    bound_by_flow,
    density_by_flow,
    evaluated,
    immse_of,
    profile_of,
    refinement_of,
    with_chain,
    with_flow,
)
from tests.unmoved.inputs import (
    BINS,
    INTS,
    LABELS,
    MANY,
    POINTS,
    REALS,
    bound,
    built,
    continuous,
    hvae,
    labeled,
    latent_diffusion,
    learned,
    steps10,
    vae,
    vae_mixture,
    value,
)
from tests.unmoved.models import (
    build_diffusion,
    build_empirical_diffusion,
    build_schedule,
    keyed,
    noised,
)


@value("evaluate/vae integers, importance 8, 2 replicates")
def _() -> object:
    return evaluated(vae(), INTS, importance=8, replicates=2)


@value("evaluate/vae reals with a mixture prior, importance 8")
def _() -> object:
    return evaluated(vae_mixture(), REALS, importance=8)


@value("evaluate/hvae bottom-up, importance 8")
def _() -> object:
    return evaluated(hvae(False), INTS, importance=8)


@value("evaluate/hvae top-down, importance 8")
def _() -> object:
    return evaluated(hvae(True), INTS, importance=8)


@value("evaluate/diffusion 10, importance 4")
def _() -> object:
    return evaluated(steps10(), INTS, importance=4)


@value("evaluate/diffusion continuous, 4 levels visited, 3 replicates")
def _() -> object:
    return evaluated(continuous(), REALS, visited=4, replicates=3)


@value("evaluate/diffusion learned variance, importance 4")
def _() -> object:
    return evaluated(learned(), REALS, importance=4)


@value("evaluate/diffusion conditional")
def _() -> object:
    return evaluated(labeled(), INTS, context=LABELS)


@value("evaluate/latent diffusion 10, importance 4")
def _() -> object:
    return evaluated(latent_diffusion(10), INTS, importance=4)


@value("evaluate/chained: 4 steps, 20 steps")
def _() -> object:
    return [evaluated(with_chain(continuous(), count), REALS)[0] for count in (4, 20)]


@value("log weights/vae, hvaes, diffusion")
def _() -> object:
    found: list[Any] = []
    for model in (vae(), hvae(False), hvae(True), steps10()):
        with keyed(45):
            found.append(log_weight_of(model, INTS)[:2])
    return found


@value("evaluate/immse reals")
def _() -> object:
    return immse_of(continuous(), REALS)


@value("evaluate/immse integers")
def _() -> object:
    return immse_of(steps10(), INTS)


@value("evaluate/immse of points under their denoiser")
def _() -> object:
    model = built(lambda: build_empirical_diffusion(POINTS, 0.0, None), 22)
    return immse_of(model, POINTS, separated=True)


@value("flow/density, exact trace")
def _() -> object:
    model = continuous()
    with keyed(46):
        z = noised(model, REALS[:3], 0.0)
    return density_by_flow(model, z, None)


@value("flow/density, 3 probes")
def _() -> object:
    model = continuous()
    with keyed(46):
        z = noised(model, REALS[:3], 0.0)
    return density_by_flow(model, z, 3)


@value("flow/density, exploding schedule")
def _() -> object:
    model = built(lambda: build_diffusion(3, None, 10, schedule=build_schedule("exploding")), 14)
    with keyed(46):
        z = noised(model, REALS[:3], 0.0)
    return density_by_flow(model, z, None)


@value("flow/bound, exact trace, importance 2")
def _() -> object:
    return bound_by_flow(continuous(), REALS[:3], None, importance=2)


@value("flow/bound of integers, 2 probes")
def _() -> object:
    return bound_by_flow(steps10(), INTS[:3], 2)


@value("flow/as a prior: terms, sample")
def _() -> object:
    model = with_flow(continuous())
    found = bound("flow", model, REALS[:3], 47)
    with keyed(47):
        return [found, sample_of(model, 1)]


@value("evaluate/profile")
def _() -> object:
    return profile_of(continuous(), REALS, 4)


@value("evaluate/refinement")
def _() -> object:
    return refinement_of(steps10(), INTS)


@value("evaluate/baselines")
def _() -> object:
    return [found.mean() for found in baselines_of(MANY, INTS, BINS)]
