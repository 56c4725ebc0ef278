"""Values of inverse problems, training and Pyro."""

from __future__ import annotations

import warnings
from typing import Any

from tests.unmoved.calls import (
    build_objective,
    build_sampler,
    freeze,
    sampled,
    visiting,
)
from tests.unmoved.evaluation import (
    build_dataset,
    build_operator,
    build_posterior_sampler,
    posterior_of,
    pyro_losses,
    trained,
)
from tests.unmoved.inputs import (
    BINS,
    IMAGE,
    IMAGES,
    INTS,
    LABELS,
    MANY,
    REALS,
    SEEDS,
    autoencoder,
    bound,
    built,
    continuous,
    hvae,
    images10,
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
    build_schedule,
    keyed,
    noised,
    real_of,
    x_hat_of,
)

# ---------------------------------------------------------------- inverse problems


for _kind in ["mmps", "pigdm"]:

    @value(f"inverse/{_kind}: x_hat, bound, sample")
    def _(kind: str = _kind) -> object:
        found: list[Any] = []
        for name in ("half", "blurred"):
            operator, model = build_operator(name, IMAGE), images10()
            posterior = posterior_of(kind, model, operator, operator(IMAGES[:2]))
            with keyed(48):
                z = noised(model, IMAGES[:2], 0.5)
            x_hat = x_hat_of(posterior, z, 1.0)
            found += [x_hat.norm(), x_hat.sum()]
            # One measurement for all rows: the bound repeats rows, one for each visited level.
            one = posterior_of(kind, model, operator, operator(IMAGES[:1]))
            found.append(bound("diffusion", one, IMAGES[:2], 48)[2])
            found.append(sampled(posterior, build_sampler("ddim 0"), 5, SEEDS).norm())
        return found


@value("inverse/dps, repaint")
def _() -> object:
    operator, model = build_operator("half", IMAGE), images10()
    y = operator(IMAGES[:2])
    found = [
        sampled(model, build_posterior_sampler(kind, operator, y), 6, SEEDS)
        for kind in ("dps", "repaint")
    ]
    return [[each.norm(), each.sum()] for each in found]


@value("inverse/integers on their real scale, mmps")
def _() -> object:
    operator, model = build_operator("half", IMAGE), steps10()
    with keyed(49):
        z = noised(model, INTS[:2], 0.5)
    posterior = posterior_of("mmps", model, operator, operator(real_of(model, INTS[:2])))
    return x_hat_of(posterior, z, 1.0).flatten(1)[:, ::5]


# ---------------------------------------------------------------- training


@value("fit/autoencoder, vae: losses")
def _() -> object:
    return [trained(model, build_dataset(MANY, BINS)) for model in (autoencoder(), vae())]


@value("fit/vae, reals, mixture prior")
def _() -> object:
    return trained(vae_mixture(), REALS)


@value("fit/hvaes: beta, warm-up")
def _() -> object:
    data = build_dataset(MANY, BINS)
    return [
        trained(hvae(False), data, build_objective("beta")),
        trained(hvae(True), data, build_objective("warm-up")),
    ]


@value("fit/diffusion 10: bound, min-snr")
def _() -> object:
    data = build_dataset(MANY, BINS)
    return [trained(steps10(), data, build_objective(name)) for name in ("bound", "min-snr")]


@value("fit/diffusion continuous: importance visits, then its bound")
def _() -> object:
    model = continuous()
    found = trained(model, REALS, build_objective("bound", visiting("importance", 2)), count=6)
    return [found, bound("diffusion", model, REALS, 50, visited=4)]


@value("fit/diffusion learned variance: hybrid")
def _() -> object:
    return trained(learned(), REALS, build_objective("hybrid"))


@value("fit/diffusion conditional: simple")
def _() -> object:
    return trained(labeled(), (INTS, LABELS), build_objective("simple"))


@value("fit/learned schedule")
def _() -> object:
    model = built(lambda: build_diffusion(3, None, None, schedule=build_schedule("monotone")), 21)
    return trained(model, REALS, build_objective("learned schedule"))


@value("fit/latent diffusion: jointly, then frozen with min-snr")
def _() -> object:
    data, model = build_dataset(MANY, BINS), latent_diffusion(None)
    found = trained(model, data)
    freeze(model, MANY)
    return [found, trained(model, data, build_objective("min-snr"))]


# ---------------------------------------------------------------- Pyro


@value("pyro/trace and mean-field loss of vae, hvaes, diffusion")
def _() -> object:
    models = {"vae": vae(), "up": hvae(False), "down": hvae(True), "steps": steps10()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the order of a bottom-up guide: known, see the module.
        return [pyro_losses(model, INTS, name) for name, model in models.items()]
