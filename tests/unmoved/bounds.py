"""Values of bounds, schedules and Gaussians."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tests.unmoved.calls import (
    bits_per_dim_of,
    bound_of,
    bound_terms,
    freeze,
    steps_of,
    units_of,
    visiting,
    visiting_as_edm,
)
from tests.unmoved.evaluation import gaussian_values
from tests.unmoved.inputs import (
    BINS,
    IMAGE,
    IMAGES,
    INTS,
    LABELS,
    POINTS,
    REALS,
    SEEN,
    autoencoder,
    bound,
    built,
    continuous,
    hvae,
    labeled,
    large,
    latent_diffusion,
    learned,
    steps10,
    vae,
    vae_mixture,
    vae_reals,
    value,
)
from tests.unmoved.models import (
    NULL,
    build_diffusion,
    build_empirical_diffusion,
    build_gaussian_diffusion,
    build_schedule,
    build_vae,
    build_vae_deciding,
    keyed,
    schedule_of,
    schedule_values,
)


@value("autoencoder/terms")
def _() -> object:
    return bound("autoencoder", autoencoder(), INTS, 1)


@value("vae integers/terms")
def _() -> object:
    return bound("vae", vae(), INTS, 2)


@value("vae integers/bound of each row")
def _() -> object:
    with keyed(2):
        return bound_terms("vae", bound_of(vae(), INTS))[-1]


@value("vae integers/observed entries alone")
def _() -> object:
    return bound("vae", vae(), INTS, 2, observed=SEEN)


@value("vae integers/units and bits per dimension")
def _() -> object:
    with keyed(2):
        found = bound_of(vae(), INTS)
    return [units_of(found).mean(0), bits_per_dim_of(found, 16).mean()]


@value("vae integers/conditional")
def _() -> object:
    model = built(lambda: build_vae(IMAGE, BINS, classes=3), 20)
    return bound("vae", model, INTS, 2, context=LABELS)


@value("vae reals/terms")
def _() -> object:
    return bound("vae", vae_reals(), REALS, 3)


@value("vae reals, mixture prior/terms")
def _() -> object:
    return bound("vae", vae_mixture(), REALS, 4)


@value("vae/decoders")
def _() -> object:
    found: list[Any] = []
    for number, name in enumerate(
        [
            "bernoulli",
            "categorical",
            "discretized gaussian",
            "discretized mixture",
            "gaussian per dimension",
        ]
    ):
        kept: dict[str, Any] = {}

        def make(name: str = name, kept: dict[str, Any] = kept) -> Any:
            model, kept["bins"] = build_vae_deciding(name)
            return model

        model = built(make, 30 + number)
        x = IMAGES if kept["bins"] is None else INTS % kept["bins"]
        found.append(bound("vae", model, x, 5)[0])
    return found


@value("hvae bottom-up/terms")
def _() -> object:
    return bound("hvae", hvae(False), INTS, 6)


@value("hvae top-down/terms")
def _() -> object:
    return bound("hvae", hvae(True), INTS, 7)


@value("diffusion 10/terms")
def _() -> object:
    return bound("diffusion", steps10(), INTS, 8)


@value("diffusion 10/terms, 3 levels visited")
def _() -> object:
    return bound("diffusion", steps10(), INTS, 9, visited=3)


@value("diffusion 10/noise levels of a row")
def _() -> object:
    with keyed(9):
        known = steps_of(bound_of(steps10(), INTS, visited=2))
    return [each[4] for each in known.values()]


@value("diffusion continuous/terms, 4 levels visited")
def _() -> object:
    return bound("diffusion", continuous(), REALS, 10, visited=4)


@value("diffusion continuous/timestep samplers")
def _() -> object:
    model = continuous()
    ways = [
        visiting("uniform", 3),
        visiting("importance", 3),
        visiting_as_edm(schedule_of(model), 3),
    ]
    return [bound("diffusion", model, REALS, 11, visited=way)[2] for way in ways]


@value("diffusion fixed large/terms")
def _() -> object:
    return bound("diffusion", large(), INTS, 12)


@value("diffusion learned variance/terms")
def _() -> object:
    return bound("diffusion", learned(), REALS, 13)


@value("diffusion conditional/terms")
def _() -> object:
    return bound("diffusion", labeled(), INTS, 14, context=LABELS)


@value("diffusion conditional/null context in some rows")
def _() -> object:
    context = torch.where(torch.arange(6) % 2 == 0, LABELS, NULL)
    return bound("diffusion", labeled(), INTS, 14, context=context)


@value("diffusion/schedules, 10 steps")
def _() -> object:
    names = [
        "cosine",
        "linear beta",
        "zero terminal linear beta",
        "exploding",
        "rectified flow",
        "log-normal",
    ]
    found: list[Any] = []
    for name in names:
        model = built(partial(build_diffusion, 3, None, 10, schedule=build_schedule(name)), 14)
        found += bound("diffusion", model, REALS, 15)[1:3]
    return found


@value("diffusion/exploding and rectified flow, fixed large")
def _() -> object:
    found: list[Any] = []
    for name in ["exploding", "rectified flow"]:
        make = partial(build_diffusion, 3, None, 10, build_schedule(name), variance="large")
        found.append(bound("diffusion", built(make, 15), REALS, 16)[2])
    return found


@value("diffusion/targets")
def _() -> object:
    found: list[Any] = []
    for name in ["noise", "data", "velocity", "score", "flow velocity", "edm"]:
        model = built(partial(build_diffusion, 3, None, None, target=name), 16)
        found.append(bound("diffusion", model, REALS, 17, visited=4)[2])
    return found


@value("diffusion/networks: u-net, transformer, fourier features")
def _() -> object:
    found: list[Any] = []
    for settings in ({"network": "u-net"}, {"network": "transformer"}, {"fourier": (2, 3)}):
        model = built(partial(build_diffusion, IMAGE, BINS, 4, **settings), 17)
        found.append(bound("diffusion", model, INTS, 18)[2])
    return found


@value("diffusion/optimal denoisers")
def _() -> object:
    covariance = torch.tensor(
        [[1.0, 0.5, 0.0], [0.5, 0.8, 0.1], [0.0, 0.1, 0.4]], dtype=torch.float64
    )
    mean = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64)
    known = built(lambda: build_gaussian_diffusion(mean, covariance, 10), 18)
    points = built(lambda: build_empirical_diffusion(POINTS, 0.3, 10), 19)
    return [bound("diffusion", known, REALS, 19), bound("diffusion", points, REALS, 19)]


@value("latent diffusion 10/terms")
def _() -> object:
    return bound("latent diffusion", latent_diffusion(10), INTS, 20)


@value("latent diffusion continuous, frozen/terms, 4 levels visited")
def _() -> object:
    model = latent_diffusion(None)
    freeze(model, INTS)
    return bound("latent diffusion", model, INTS, 21, visited=4)


# ---------------------------------------------------------------- schedules, Gaussians


@value("schedules/at t = 0.3")
def _() -> object:
    names = [
        "linear log-snr",
        "cosine 0.008",
        "linear beta",
        "scaled linear beta",
        "sigmoid beta",
        "cosine beta",
        "sigmoid",
        "laplace",
        "logistic",
        "log-normal",
        "polynomial",
        "rectified flow",
        "exploding",
        "shifted cosine",
        "monotone",
    ]
    t = torch.tensor([0.3], dtype=torch.float64)
    return [schedule_values(build_schedule(name), t) for name in names]


@value("gaussians")
def _() -> object:
    m, s, n, r = torch.tensor(
        [[0.3, -1.2], [0.5, 2.0], [-0.4, 0.1], [1.5, 0.7]], dtype=torch.float64
    )
    lower_q = torch.tensor([[0.9, 0.0], [0.4, 0.6]], dtype=torch.float64)
    lower_p = torch.tensor([[1.3, 0.0], [-0.2, 0.8]], dtype=torch.float64)
    return gaussian_values(m, s, n, r, lower_q, lower_p)
