"""Values of samples, codes and edits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genmod import samplers
from genmod.denoisers import Guided, calibrate
from genmod.diffusion import Analytic, FixedLarge
from genmod.editing import interpolate, sdedit
from genmod.models import with_denoiser, with_steps
from genmod.random import keyed
from genmod.samplers import DDIM, Ancestral, DPMSolver, PolynomialGrid, UniformLogSNR, UniformTime
from tests.unmoved import models
from tests.unmoved.inputs import INTS, LABELS, REALS, SEEDS

SAMPLERS = {
    "chain": (Ancestral(), UniformTime()),
    "chain, large": (Ancestral(variance=FixedLarge()), UniformTime()),
    "ddim 0": (DDIM(), UniformLogSNR()),
    "ddim 0.5": (DDIM(eta=0.5), UniformTime()),
    "euler": (samplers.Euler(), UniformTime()),
    "heun": (samplers.Heun(published=True), PolynomialGrid()),
    "stochastic heun": (samplers.StochasticHeun(churn=4.0, published=True), UniformLogSNR()),
    "dpm 2": (DPMSolver(order=2, published=True), UniformLogSNR()),
    "dpm 3": (DPMSolver(order=3), UniformLogSNR()),
    "dpm 3 published": (
        DPMSolver(order=3, published=True, lower_order_final=True),
        UniformTime(),
    ),
    "dpm sde": (DPMSolver(order=2, sde=True), UniformLogSNR()),
    "unipc 2": (samplers.UniPC(order=2), UniformLogSNR()),
    "unipc 3 bh1": (
        samplers.UniPC(order=3, scale="bh1", lower_order_final=True),
        UniformTime(),
    ),
    "ipndm": (samplers.IPNDM(published=True), PolynomialGrid()),
}


def sampled(model: Any, sampler: Any, steps: int | None, grid: Any = None) -> Tensor:
    """One sample a seed, in some steps; noise depends on the seeds alone."""
    found: Tensor = model.sample(2, sampler=sampler, steps=steps, grid=grid, seeds=SEEDS)
    return found


def last(model: Any, sampler: Any, steps: int, seeds: list[int], **settings: Any) -> Tensor:
    """The state that the decoder is given, and the last x_hat."""
    *_, state = model.states(len(seeds), sampler=sampler, steps=steps, seeds=seeds, **settings)
    return torch.stack([state.z, state.x_hat])


def row_means(x: Tensor) -> Tensor:
    return x.double().flatten(1).mean(1)


def drawn(model: Any, count: int, seed: int, context: Tensor | None = None) -> Tensor:
    """Samples as the model makes them by itself."""
    with keyed(seed):
        found: Tensor = model.sample(count, context=context)
    return found


def of_learned_encoders() -> object:
    found = [row_means(drawn(models.vae(), 2, 40))]
    with keyed(40):  # torch draws from the mixture: from the state that building leaves
        found.append(models.vae_mixture().sample(2))
    return found + [row_means(drawn(models.hvae(order), 2, 40)) for order in (False, True)]


def of_chains() -> object:
    chained = with_steps(models.continuous(), 6).double()
    return [
        *[row_means(drawn(model, 2, 41)) for model in (models.steps10(), models.large())],
        *[drawn(model, 1, 41) for model in (models.learned(), chained)],
        row_means(drawn(models.labeled(), 2, 41, LABELS[:2])),
    ]


def by_each(sampler: Any, grid: Any) -> object:
    return sampled(models.continuous(), sampler, 12, grid)


def on_other_schedules(sampler: str) -> object:
    found = []
    for name in ("exploding", "rectified flow"):
        model = models.diffusion(14, 3, None, 10, name)
        found.append(last(model, SAMPLERS[sampler][0], 6, [5], grid=UniformLogSNR()))
    return found


def guided() -> object:
    found = []
    for settings in ({}, {"rescale": 0.7}, {"interval": (-2.0, 4.0)}):
        model = with_denoiser(models.labeled(), partial(Guided, scale=2.0, **settings))
        state = last(model, SAMPLERS["dpm 2"][0], 6, SEEDS, context=LABELS[:2])
        found.append(state.flatten(1).norm(dim=1))
    return found


def of_latent_diffusion() -> object:
    model, ddim = models.latent_diffusion(10), DDIM(eta=0.5)
    samples = [row_means(sampled(model, None, None)), row_means(sampled(model, ddim, 5))]
    return [*samples, last(model, ddim, 5, SEEDS[:1])]


def calibrated() -> object:
    """By the chain with the best variance that calibration finds."""
    model = models.continuous()
    with keyed(42):
        known = calibrate(model.prior.denoiser, model.prior.schedule, REALS, levels=9)
    return sampled(model, Ancestral(known, variance=Analytic()), 6)


def codes() -> object:
    found = []
    for model in (models.vae(), models.hvae(False), models.hvae(True)):
        code = model.encode(INTS)
        found += [part.norm() for part in ([code] if isinstance(code, Tensor) else code)]
        found += [model.decode(code).mean.norm(), model.reconstruct(INTS).norm()]
    with keyed(43):
        return [*found, models.steps10().reconstruct(INTS).norm()]


def code_of_diffusion() -> object:
    model = models.continuous()
    code = model.encode(REALS[:1])
    return [code, model.decode(code).mean]


def edited() -> object:
    with keyed(44):
        return sdedit(models.continuous(), REALS[:2], 0.5, steps=4)


VALUES: dict[str, Callable[[], object]] = {
    "samples/vae, vae with a mixture prior, hvaes": of_learned_encoders,
    "samples/diffusions by their own chain": of_chains,
    **{f"samples/{name}": partial(by_each, *of) for name, of in SAMPLERS.items()},
    **{
        f"samples/exploding and rectified flow by {name}, last state and x_hat": partial(
            on_other_schedules, name
        )
        for name in ("dpm 2", "stochastic heun")
    },
    "samples/guided: scale 2, rescaled, in an interval": guided,
    "samples/latent diffusion by ddim 0.5, by its chain": of_latent_diffusion,
    "samples/calibrated chain": calibrated,
    "codes/encoded, decoded, reconstructed": codes,
    "codes/diffusion: encoded, decoded": code_of_diffusion,
    "editing/sdedit": edited,
    "editing/interpolate": lambda: interpolate(models.continuous(), REALS[:1], REALS[1:2], 3),
}
