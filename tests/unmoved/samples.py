"""Values of samples, codes and edits."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.unmoved.calls import (
    between,
    build_grid,
    build_sampler,
    calibrated_chain,
    code_of,
    edited,
    guided,
    last_state,
    mean_of_code,
    reconstruction_of,
    sample_of,
    sampled,
)
from tests.unmoved.evaluation import with_chain
from tests.unmoved.inputs import (
    INTS,
    LABELS,
    REALS,
    SEEDS,
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
    value,
)
from tests.unmoved.models import build_diffusion, build_schedule, keyed


@value("samples/vae, vae with a mixture prior, hvaes")
def _() -> object:
    with keyed(40):
        found = [sample_of(vae(), 2).double().flatten(1).mean(1)]
    torch.manual_seed(40)
    with keyed(40):
        found.append(sample_of(vae_mixture(), 2))
    for top_down in (False, True):
        with keyed(40):
            found.append(sample_of(hvae(top_down), 2).double().flatten(1).mean(1))
    return found


@value("samples/diffusions by their own chain")
def _() -> object:
    found: list[Any] = []
    for model in (steps10(), large()):
        with keyed(41):
            found.append(sample_of(model, 2).double().flatten(1).mean(1))
    for model in (learned(), with_chain(continuous(), 6)):
        with keyed(41):
            found.append(sample_of(model, 1))
    with keyed(41):
        found.append(sample_of(labeled(), 2, LABELS[:2]).double().flatten(1).mean(1))
    return found


for _name, _grid in [
    ("chain", "time"),
    ("chain, large", "time"),
    ("ddim 0", "log-snr"),
    ("ddim 0.5", "time"),
    ("euler", "time"),
    ("heun", "polynomial"),
    ("stochastic heun", "log-snr"),
    ("dpm 2", "log-snr"),
    ("dpm 3", "log-snr"),
    ("dpm 3 published", "time"),
    ("dpm sde", "log-snr"),
    ("unipc 2", "log-snr"),
    ("unipc 3 bh1", "time"),
    ("ipndm", "polynomial"),
]:

    @value(f"samples/{_name}")
    def _(name: str = _name, grid: str = _grid) -> object:
        sampler, stops = build_sampler(name), build_grid(grid)
        return sampled(continuous(), sampler, 12, SEEDS, stops)


for _name in ("dpm 2", "stochastic heun"):

    @value(f"samples/exploding and rectified flow by {_name}, last state and x_hat")
    def _(sampler: str = _name) -> object:
        found: list[Any] = []
        for name in ("exploding", "rectified flow"):
            model = built(partial(build_diffusion, 3, None, 10, schedule=build_schedule(name)), 14)
            found.append(last_state(model, build_sampler(sampler), 6, [5], build_grid("log-snr")))
        return found


@value("samples/guided: scale 2, rescaled, in an interval")
def _() -> object:
    found: list[Any] = []
    for settings in ({}, {"rescale": 0.7}, {"interval": (-2.0, 4.0)}):
        model = guided(labeled(), 2.0, **settings)
        state = last_state(model, build_sampler("dpm 2"), 6, SEEDS, context=LABELS[:2])
        found.append(state.flatten(1).norm(dim=1))
    return found


@value("samples/latent diffusion by ddim 0.5, by its chain")
def _() -> object:
    model = latent_diffusion(10)
    own = sampled(model, None, None, SEEDS)
    ddim = sampled(model, build_sampler("ddim 0.5"), 5, SEEDS)
    states = last_state(model, build_sampler("ddim 0.5"), 5, SEEDS[:1])
    return [own.double().flatten(1).mean(1), ddim.double().flatten(1).mean(1), states]


@value("samples/calibrated chain")
def _() -> object:
    model = continuous()
    with keyed(42):
        chain = calibrated_chain(model, REALS)
    return sampled(model, chain, 6, SEEDS)


@value("codes/encoded, decoded, reconstructed")
def _() -> object:
    found: list[Any] = []
    for model in (vae(), hvae(False), hvae(True)):
        code = code_of(model, INTS)
        parts = [code] if isinstance(code, Tensor) else list(code)
        found += [part.norm() for part in parts]
        found += [mean_of_code(model, code).norm(), reconstruction_of(model, INTS).norm()]
    with keyed(43):
        found.append(reconstruction_of(steps10(), INTS).norm())
    return found


@value("codes/diffusion: encoded, decoded")
def _() -> object:
    model = continuous()
    code = code_of(model, REALS[:1])
    return [code, mean_of_code(model, code)]


@value("editing/sdedit")
def _() -> object:
    with keyed(44):
        return edited(continuous(), REALS[:2], 0.5)


@value("editing/interpolate")
def _() -> object:
    return between(continuous(), REALS[:1], REALS[1:2])
