"""Values of inverse problems, training and Pyro."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

from genmod.data.rows import dataset
from genmod.diffusion import LossAwareTimesteps
from genmod.interop.pyro import to_pyro
from genmod.inverse import DPS, MMPS, AveragePool, Blur, Mask, PiGDM, RePaint
from genmod.models import with_denoiser
from genmod.samplers import DDIM
from genmod.training import training_loop
from tests.unmoved import models
from tests.unmoved.inputs import (
    BINS,
    IMAGE,
    IMAGES,
    INTS,
    LABELS,
    MANY,
    REALS,
    bound,
    noised,
    x_hat,
)
from tests.unmoved.objectives import fitting, objective
from tests.unmoved.samples import sampled

# ---------------------------------------------------------------- inverse problems

HALF = torch.ones(IMAGE, dtype=torch.bool)
HALF[..., IMAGE[-1] // 2 :] = False
OPERATORS: list[Any] = [Mask(HALF), AveragePool(IMAGE, 2) @ Blur(IMAGE, std=0.8)]


def posteriors(kind: Callable[..., Any]) -> object:
    """A denoiser conditioned on a measurement: x_hat, bound, sample."""
    found: list[Any] = []
    for operator in OPERATORS:

        def given(y: Tensor, operator: Any = operator) -> Any:
            return with_denoiser(models.images10(), lambda d: kind(d, operator, y, std=0.3))

        posterior = given(operator(IMAGES[:2]))
        x = x_hat(posterior, noised(models.images10(), IMAGES[:2], 0.5, 48), 1.0)
        found += [x.norm(), x.sum()]
        # One measurement for all rows: the bound repeats rows, one for each visited level.
        found.append(bound(given(operator(IMAGES[:1])), IMAGES[:2], 48)[2])
        found.append(sampled(posterior, DDIM(), 5).norm())
    return found


def posterior_samplers() -> object:
    half, found = OPERATORS[0], []
    y = half(IMAGES[:2])
    for sampler in (
        DPS(operator=half, y=y, zeta=0.3),
        RePaint(operator=half, y=y, repeats=2, jump=2),
    ):
        sample = sampled(models.images10(), sampler, 6)
        found += [sample.norm(), sample.sum()]
    return found


def integers() -> object:
    """On their real scale."""
    model, half = models.steps10(), OPERATORS[0]
    z = noised(model, INTS[:2], 0.5, 49)
    y = half(model.posterior(INTS[:2]).x)
    posterior = with_denoiser(model, lambda d: MMPS(d, half, y, std=0.3, iterations=2))
    return x_hat(posterior, z, 1.0).flatten(1)[:, ::5]


# ---------------------------------------------------------------- training

DATA = dataset(MANY, bins=BINS, validation=0.25, test=0.25, seed=0)


def trained(model: Any, data: Any, chosen: Any = None, steps: int = 3) -> list[float]:
    """The loss of each step, the batch's mean bound at the last, and its validation where there is one."""
    chosen = None if chosen is None else fitting(chosen, model)
    found: list[Any] = []
    for step in training_loop(
        model,
        data,
        chosen,
        steps=steps,
        batch_size=4,
        learning_rate=1e-2,
        warmup=1,
        ema=0.9,
        seed=1,
        device="cpu",
        validate_every=1,
        validation_timesteps=2 if model.prior.has_timesteps else None,
        stages="joint",
        progress=False,
    ):
        found.append(step.loss)
    found.append(step.bound)
    return found if step.validation is None else [*found, step.validation.nats]


def of_latent_diffusion() -> object:
    """Jointly, then frozen."""
    model = models.latent_diffusion(None)
    found = trained(model, DATA)
    model.freeze(MANY)
    return [found, trained(model, DATA, objective("min-snr"))]


def importance_visits() -> object:
    model = models.continuous()
    chosen = objective("bound", LossAwareTimesteps(2, bins=4))
    found = trained(model, REALS, chosen, steps=6)
    return [found, bound(model, REALS, 50, timesteps=4)]


# ---------------------------------------------------------------- Pyro


def pyro_losses(model: Any, name: str) -> list[float]:
    """Minus the bound, by Pyro's Trace_ELBO and TraceMeanField_ELBO."""
    pyro.clear_param_store()
    pair, found = to_pyro(model, name=name), []
    for estimator in (Trace_ELBO(), TraceMeanField_ELBO()):
        torch.manual_seed(8)
        found.append(estimator.loss(pair.model, pair.guide, INTS))
    pyro.clear_param_store()
    return found


def by_pyro() -> object:
    of = {
        "vae": models.vae(),
        "up": models.hvae(False),
        "down": models.hvae(True),
        "steps": models.steps10(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the order of a bottom-up guide: known, see the module.
        return [pyro_losses(model, name) for name, model in of.items()]


VALUES: dict[str, Callable[[], object]] = {
    "inverse/mmps: x_hat, bound, sample": lambda: posteriors(partial(MMPS, iterations=2)),
    "inverse/pigdm: x_hat, bound, sample": lambda: posteriors(PiGDM),
    "inverse/dps, repaint": posterior_samplers,
    "inverse/integers on their real scale, mmps": integers,
    "fit/autoencoder, vae: losses": lambda: [
        trained(model, DATA) for model in (models.autoencoder(), models.vae())
    ],
    "fit/vae, reals, mixture prior": lambda: trained(models.vae_mixture(), REALS),
    "fit/hvaes: beta, warm-up": lambda: [
        trained(models.hvae(False), DATA, objective("beta")),
        trained(models.hvae(True), DATA, objective("warm-up")),
    ],
    "fit/diffusion 10: bound, min-snr": lambda: [
        trained(models.steps10(), DATA, objective(name)) for name in ("bound", "min-snr")
    ],
    "fit/diffusion continuous: importance visits, then its bound": importance_visits,
    "fit/diffusion learned variance: hybrid": lambda: trained(
        models.learned(), REALS, objective("hybrid")
    ),
    "fit/diffusion conditional: simple": lambda: trained(
        models.labeled(), (INTS, LABELS), objective("simple")
    ),
    "fit/learned schedule": lambda: trained(
        models.diffusion(21, 3, None, None, "monotone"), REALS, objective("learned schedule")
    ),
    "fit/latent diffusion: jointly, then frozen with min-snr": of_latent_diffusion,
    "pyro/trace and mean-field loss of vae, hvaes, diffusion": by_pyro,
}
