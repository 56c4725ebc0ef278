"""The package's names, part 3: evaluation, inverse problems, Gaussians, training, Pyro."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from genmod import evaluation, gaussian
from genmod.data.rows import dataset
from genmod.evaluation.baselines import global_histogram
from genmod.evaluation.information import NoTail
from genmod.gaussian.diagonal import kl_isotropic, product_log_normalizer
from genmod.gaussian.full import entropy_full, kl_standard_full
from genmod.gaussian.kernels import kl_log_std, kl_standard_log_std
from genmod.inverse import DPS, MMPS, AveragePool, Blur, Mask, PiGDM, RePaint
from genmod.models import (
    with_denoiser,
    with_probability_flow,
    with_steps,
)
from genmod.shapes import Shape
from genmod.training import training_loop
from tests.unmoved.calls import fitting

Model: TypeAlias = Any
Visited: TypeAlias = Any

# ---------------------------------------------------------------- evaluation


def evaluated(
    model: Model,
    x: Any,
    visited: Visited = None,
    importance: int = 0,
    replicates: int = 1,
    seed: int = 0,
    context: Tensor | None = None,
) -> list[float]:
    """Value, its error, each term, bits of a mass, the noise, the importance-weighted value."""
    report = evaluation.evaluate(
        model,
        x,
        context,
        timesteps=visited,
        importance_samples=importance,
        replicates=replicates,
        seed=seed,
    )
    return _report(report)


def _report(report: Any) -> list[float]:
    found = [report.value.mean, report.value.error, *(term.mean for term in report.terms.values())]
    if report.bits_per_dim is not None:
        found.append(report.bits_per_dim.mean)
    if report.noise is not None:
        found.append(report.noise)
    if report.importance is not None:
        found += [report.importance.mean, report.importance.error]
    return found


def immse_of(model: Model, x: Tensor, visited: Visited = 8, separated: bool = False) -> list[float]:
    tail = NoTail() if separated else None
    return _report(evaluation.immse(model, x, timesteps=visited, tail=tail, seed=3))


def density_by_flow(
    model: Model, z: Tensor, probes: int | None, context: Tensor | None = None
) -> list[Tensor]:
    """Nats of each row, their errors over probes, and the drift."""
    found = evaluation.flow_density(model, z, context, steps=8, probes=probes, seed=4)
    return [found.nats, found.error, found.drift]


def bound_by_flow(model: Model, x: Tensor, probes: int | None, importance: int = 0) -> list[float]:
    found = evaluation.flow_bound(
        model, x, steps=8, probes=probes, importance_samples=importance, seed=5
    )
    return [*_report(found.report), found.drift.mean]


def with_flow(model: Model) -> Any:
    """The model with the probability flow's density for a prior."""
    return with_probability_flow(model, steps=4).double()


def with_chain(model: Model, chain: int | None) -> Any:
    """The same denoiser with another number of latents."""
    return with_steps(model, chain).double()


def profile_of(model: Model, x: Tensor, intervals: int) -> list[Tensor]:
    found = evaluation.profile(model, x, timesteps=intervals, seed=6)
    return [found.nats, found.rmse, torch.tensor([found.prior, found.decoder])]


def refinement_of(model: Model, x: Tensor) -> list[Tensor]:
    found = evaluation.refinement(model, x, seed=7)
    return [found.nats, found.rmse]


def baselines_of(train: Tensor, test: Tensor, bins: int) -> list[Tensor]:
    return [
        evaluation.pixel_histogram(train, test, bins).log_prob,
        global_histogram(train, test, bins).log_prob,
        evaluation.gaussian(train, test, bins).log_prob,
        evaluation.ppca(train, test, bins, rank=2).log_prob,
    ]


# ---------------------------------------------------------------- inverse problems


def build_operator(name: str, shape: Shape) -> Any:
    if name == "half":
        observed = torch.ones(shape, dtype=torch.bool)
        observed[..., shape[-1] // 2 :] = False
        return Mask(observed)
    return AveragePool(shape, 2) @ Blur(shape, std=0.8)


def posterior_of(kind: str, model: Model, operator: Any, y: Tensor) -> Any:
    """A model whose denoiser is conditioned on a measurement."""
    made = {
        "mmps": lambda d: MMPS(d, operator, y, std=0.3, iterations=2),
        "pigdm": lambda d: PiGDM(d, operator, y, std=0.3),
    }
    return with_denoiser(model, made[kind])


def build_posterior_sampler(kind: str, operator: Any, y: Tensor) -> Any:
    if kind == "dps":
        return DPS(operator=operator, y=y, zeta=0.3)
    return RePaint(operator=operator, y=y, repeats=2, jump=2)


# ---------------------------------------------------------------- Gaussians


def gaussian_values(
    m: Tensor, s: Tensor, n: Tensor, r: Tensor, lower_q: Tensor, lower_p: Tensor
) -> Any:
    """KLs, densities, entropies, products and distances of N(m, s^2) and N(n, r^2)."""
    product = gaussian.product(m, s, n, r)
    return {
        "kl": gaussian.kl(m, s, n, r),
        "kl standard": gaussian.kl_standard(m, s),
        "kl isotropic": kl_isotropic(m, s[0], n, r[0])[None],
        "kl log-std": kl_log_std(m, s.log(), n, r.log()),
        "kl standard log-std": kl_standard_log_std(m, s.log()),
        "kl full": gaussian.kl_full(m, lower_q, n, lower_p)[None],
        "kl standard full": kl_standard_full(m, lower_q)[None],
        "entropy": torch.cat([gaussian.entropy(s), entropy_full(lower_q)[None]]),
        "log_prob": torch.cat(
            [gaussian.log_prob(n, m, s), gaussian.log_prob_full(n, m, lower_q)[None]]
        ),
        "product": torch.cat([*product, product_log_normalizer(m, s, n, r)]),
        "wasserstein": torch.cat(
            [
                gaussian.wasserstein_squared(m, s, n, r),
                gaussian.wasserstein_squared_full(m, lower_q, n, lower_p)[None],
            ]
        ),
        "linear": torch.cat(
            [
                part.flatten()
                for part in gaussian.LinearGaussian(m, lower_q, lower_p, n, lower_q).posterior(n)
            ]
        ),
    }


# ---------------------------------------------------------------- training


def build_dataset(x: Tensor, bins: int | None) -> Any:
    return dataset(x, bins=bins, validation=0.25, test=0.25, seed=0)


def trained(model: Model, data: Any, objective: Any = None, count: int = 3) -> list[float]:
    """The loss of each step, the batch's mean bound at the last, and its validation where there is one."""
    found: list[Any] = []
    for step in training_loop(
        model,
        data,
        fitting(objective, model),
        steps=count,
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
    if step.validation is not None:
        found.append(step.validation.nats)
    return found


# ---------------------------------------------------------------- Pyro


def pyro_losses(model: Model, x: Tensor, name: str) -> list[float]:
    """Minus the bound, by Pyro's Trace_ELBO and TraceMeanField_ELBO."""
    import pyro
    from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

    from genmod.interop.pyro import to_pyro

    pyro.clear_param_store()
    pair, found = to_pyro(model, name=name), []
    for estimator in (Trace_ELBO(), TraceMeanField_ELBO()):
        torch.manual_seed(8)
        found.append(estimator.loss(pair.model, pair.guide, x))
    pyro.clear_param_store()
    return found
