"""The package's names, part 2: bounds, objectives, samples."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from genmod.denoisers import (
    Guided,
    calibrate,
)
from genmod.diffusion import (
    Analytic,
    FixedLarge,
    LossAwareTimesteps,
    UniformTimesteps,
)
from genmod.editing import interpolate, sdedit
from genmod.models import (
    with_denoiser,
)
from genmod.objectives import (
    P2,
    Batch,
    Beta,
    Bound,
    EDMWeight,
    Hybrid,
    LearnedSchedule,
    MinSNR,
    SigmoidWeight,
    Simple,
    TruncatedSNR,
    WarmUp,
    Weighted,
    explain,
)
from genmod.path import AutoTimesteps
from genmod.samplers import (
    DDIM,
    IPNDM,
    Ancestral,
    DPMSolver,
    Euler,
    Heun,
    PolynomialGrid,
    StochasticHeun,
    UniformLogSNR,
    UniformTime,
    UniPC,
)
from genmod.schedules import (
    Schedule,
)
from tests.unmoved.models import denoiser_of, schedule_of

Model: TypeAlias = Any
Visited: TypeAlias = Any

# ---------------------------------------------------------------- bounds

RATES = {
    "autoencoder": (),
    "vae": ("prior",),
    "hvae": ("z1", "z2", "z3"),
    "diffusion": ("prior", "steps"),
    "latent diffusion": ("latent", "prior", "steps"),
    "flow": ("z0",),
}
"""The names of a bound's rates, in the order in which this script lists them."""


def bound_of(
    model: Model,
    x: Tensor,
    visited: Visited = None,
    context: Tensor | None = None,
    observed: Any = None,
) -> Any:
    """The bound; `visited` is the number of timesteps of a row, or a timestep sampler (None: all)."""
    return model.elbo(x, timesteps=visited, context=context, observed=observed)


def bound_terms(family: str, bound: Any) -> list[Tensor]:
    """The reconstruction, each rate, and the value, one number a row each."""
    nats = {level.name: level.nats for level in bound.levels()}
    assert set(nats) == set(RATES[family]), sorted(nats)
    return [bound.reconstruction, *(nats[name] for name in RATES[family]), bound.value]


def steps_of(bound: Any) -> dict[str, Tensor]:
    """The fields of a diffusion's rate at each visited level, (B, L)."""
    rate = bound.rates["steps"]
    noise = rate.noise
    return {
        "nats": rate.nats,
        "weight": rate.weight,
        "level": rate.level,
        "log_snr": noise.log_snr,
        "gap": noise.gap,
        "error": noise.error,
        "share": noise.dt,
    }


def units_of(bound: Any) -> Tensor:
    """Nats of each dimension of a VAE's latent, (B, U)."""
    return bound.rates["prior"].per_dim[0]


def bits_per_dim_of(bound: Any, dims: int) -> Tensor:
    return bound.bits_per_dim(dims)


def log_weight_of(model: Model, x: Tensor, context: Tensor | None = None) -> Tensor:
    return model.log_weight(x, context)


def visiting(name: str, count: int) -> Any:
    if name == "uniform":
        return UniformTimesteps(count)
    return LossAwareTimesteps(count, bins=4)


def visiting_as_edm(schedule: Schedule, count: int) -> Any:
    return EDMWeight.timestep_sampler(schedule, n=count)


# ---------------------------------------------------------------- objectives


def build_objective(name: str, visited: Visited = 2) -> Any:
    return {
        "bound": lambda: Bound(timesteps=visited),
        "beta": lambda: Beta(0.3, timesteps=visited),
        "warm-up": lambda: WarmUp(4, timesteps=visited),
        "simple": lambda: Simple(timesteps=visited),
        "weighted": lambda: Weighted(torch.sigmoid, timesteps=visited),
        "min-snr": lambda: MinSNR(5.0, timesteps=visited),
        "truncated snr": lambda: TruncatedSNR(timesteps=visited),
        "p2": lambda: P2(gamma=0.5, k=1.0, timesteps=visited),
        "sigmoid": lambda: SigmoidWeight(0.5, timesteps=visited),
        "edm": lambda: EDMWeight(timesteps=visited),
        "hybrid": lambda: Hybrid(0.1, timesteps=visited),
        "learned schedule": lambda: LearnedSchedule(Bound(timesteps=visited)),
    }[name]()


def fitting(objective: Any, model: Model) -> Any:
    """The objective without a number of levels where the model has none to choose from."""
    if objective is not None and not model.prior.has_timesteps:
        objective.timesteps = AutoTimesteps.TRAINING
    return objective


def loss_of(objective: Any, model: Model, x: Tensor, context: Tensor | None = None) -> Tensor:
    loss, _ = fitting(objective, model)(model, Batch(x, context))
    return loss


def explained(objective: Any, schedule: Schedule) -> tuple[float, float, float]:
    """The mean weight of the bound that an objective is, its weights at both ends."""
    found = explain(objective, schedule, points=101)
    return float(found.weight.mean()), float(found.weight[0]), float(found.weight[-1])


# ---------------------------------------------------------------- samples


def build_sampler(name: str) -> Any:
    return {
        "chain": lambda: Ancestral(),
        "chain, large": lambda: Ancestral(variance=FixedLarge()),
        "ddim 0": lambda: DDIM(),
        "ddim 0.5": lambda: DDIM(eta=0.5),
        "euler": lambda: Euler(),
        "heun": lambda: Heun(published=True),
        "stochastic heun": lambda: StochasticHeun(churn=4.0, published=True),
        "dpm 2": lambda: DPMSolver(order=2, published=True),
        "dpm 3": lambda: DPMSolver(order=3),
        "dpm 3 published": lambda: DPMSolver(order=3, published=True, lower_order_final=True),
        "dpm sde": lambda: DPMSolver(order=2, sde=True),
        "unipc 2": lambda: UniPC(order=2),
        "unipc 3 bh1": lambda: UniPC(order=3, scale="bh1", lower_order_final=True),
        "ipndm": lambda: IPNDM(published=True),
    }[name]()


def build_grid(name: str) -> Any:
    return {"time": UniformTime, "log-snr": UniformLogSNR, "polynomial": PolynomialGrid}[name]()


def sample_of(model: Model, count: int, context: Tensor | None = None) -> Tensor:
    return model.sample(count, context=context)


def sampled(
    model: Model,
    sampler: Any,
    stops: int | None,
    seeds: list[int],
    grid: Any = None,
    context: Tensor | None = None,
) -> Tensor:
    """One sample a seed, by a sampler in `stops` steps; noise depends on the seeds alone."""
    return model.sample(
        len(seeds), context=context, sampler=sampler, steps=stops, grid=grid, seeds=seeds
    )


def last_state(
    model: Model,
    sampler: Any,
    stops: int,
    seeds: list[int],
    grid: Any = None,
    context: Tensor | None = None,
) -> Tensor:
    """The state that the decoder is given, and the last x_hat."""
    *_, last = model.states(
        len(seeds), context=context, sampler=sampler, steps=stops, grid=grid, seeds=seeds
    )
    return torch.stack([last.z, last.x_hat])


def guided(model: Model, scale: float, **settings: Any) -> Any:
    return with_denoiser(model, lambda denoiser: Guided(denoiser, scale=scale, **settings))


def calibrated_chain(model: Model, x: Tensor) -> Any:
    """The chain with the best variance that calibration finds."""
    known = calibrate(denoiser_of(model), schedule_of(model), x, levels=9)
    return Ancestral(known, variance=Analytic())


def code_of(model: Model, x: Tensor) -> Any:
    return model.encode(x)


def mean_of_code(model: Model, z: Any) -> Tensor:
    return model.decode(z).mean


def reconstruction_of(model: Model, x: Tensor) -> Tensor:
    return model.reconstruct(x)


def edited(model: Model, x: Tensor, t: float) -> Tensor:
    return sdedit(model, x, t, steps=4)


def between(model: Model, a: Tensor, b: Tensor) -> Tensor:
    return interpolate(model, a, b, 3)


def freeze(model: Model, x: Tensor) -> None:
    """End the first stage of a latent diffusion."""
    model.freeze(x)
