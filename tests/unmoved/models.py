"""The package's names, part 1: models and their parts, as the values of f5e1b7b have them.

A change of the package's names changes this file, ``calls.py`` and ``evaluation.py``. The values stay.
The defaults of f5e1b7b are stated here: a default that moves later moves no value.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from genmod import random
from genmod.decoders import (
    BernoulliDecoder,
    CategoricalDecoder,
    DiscretizedGaussianDecoder,
    DiscretizedMixtureDecoder,
    GaussianDecoder,
    GlobalScale,
    PerDimensionScale,
)
from genmod.denoisers import (
    DataTarget,
    EDMTarget,
    EmpiricalDenoiser,
    FlowVelocityTarget,
    GaussianDenoiser,
    Learned,
    NoiseTarget,
    ScoreTarget,
    VelocityTarget,
)
from genmod.diffusion import (
    FixedLarge,
    LearnedInterpolation,
)
from genmod.models import (
    HVAE,
    VAE,
    Autoencoder,
    Diffusion,
    Inference,
    LatentDiffusion,
)
from genmod.nn import NULL_LABEL, ConvNets, DenoisingMLP, DiTs, Labels
from genmod.priors import DistributionPrior
from genmod.schedules import (
    Cosine,
    CosineBeta,
    Laplace,
    LinearBeta,
    LinearLogSNR,
    Logistic,
    LogNormal,
    MonotoneNetwork,
    Polynomial,
    RectifiedFlow,
    ScaledLinearBeta,
    Schedule,
    Shifted,
    Sigmoid,
    SigmoidBeta,
    VarianceExploding,
    ZeroTerminalSNR,
)
from genmod.shapes import Shape

Model: TypeAlias = Any


def keyed(seed: int) -> Any:
    """A context in which noise is a function of the seed."""
    return random.keyed(seed)


# ---------------------------------------------------------------- models (float32; `built` finishes them)


def build_autoencoder(shape: Any, bins: int | None) -> Any:
    return Autoencoder(shape, bins=bins, latents=4, width=16)


def build_vae(shape: Any, bins: int | None, latents: int = 4, classes: int | None = None) -> Any:
    condition = None if classes is None else Labels(classes)
    return VAE(shape, bins=bins, latents=latents, width=16, condition=condition)


def build_vae_under(
    law: torch.distributions.Distribution, shape: Any, bins: int | None, latents: int
) -> Any:
    """A VAE whose prior is a distribution of torch's."""
    return VAE(shape, bins=bins, latents=latents, width=16, prior=DistributionPrior(law))


def build_vae_deciding(decoder: str, latents: int = 4) -> Any:
    """A VAE of (1, 4, 4) with a named decoder on one linear layer; and its number of values."""
    shape, entries = (1, 4, 4), 16
    made: dict[str, Any] = {
        "bernoulli": lambda: (2, BernoulliDecoder(nn.Linear(latents, entries), shape)),
        "categorical": lambda: (
            17,
            CategoricalDecoder(nn.Linear(latents, 17 * entries), shape, 17),
        ),
        "discretized gaussian": lambda: (
            17,
            DiscretizedGaussianDecoder(nn.Linear(latents, entries), shape, 17),
        ),
        "discretized mixture": lambda: (
            17,
            DiscretizedMixtureDecoder(nn.Linear(latents, 9 * entries), shape, 17, components=3),
        ),
        "gaussian per dimension": lambda: (
            None,
            GaussianDecoder(nn.Linear(latents, entries), shape, PerDimensionScale(shape)),
        ),
    }
    bins, made_decoder = made[decoder]()
    return VAE(shape, bins=bins, latents=latents, width=16, decoder=made_decoder), bins


def build_hvae(shape: Any, bins: int | None, top_down: bool, latents: Shape = (4, 3, 2)) -> Any:
    order = Inference.TOP_DOWN if top_down else Inference.BOTTOM_UP
    return HVAE(shape, bins=bins, latents=latents, width=16, inference=order)


def build_diffusion(
    shape: Any,
    bins: int | None,
    chain: int | None,
    schedule: Schedule | None = None,
    variance: str | None = None,
    classes: int | None = None,
    network: str | None = None,
    target: str | None = None,
    fourier: Any = (),
) -> Any:
    """A diffusion; `chain` is its number of latents, None for continuous time."""
    variances: dict[str | None, Any] = {
        None: None,
        "large": FixedLarge,
        "learned": LearnedInterpolation,
    }
    chosen = variances[variance]
    schedule = schedule or build_schedule("linear log-snr")
    settings: dict[str, Any] = {
        "steps": chain,
        "schedule": schedule,
        "variance": None if chosen is None else chosen(),
    }
    if target is not None:
        net = DenoisingMLP((shape,), width=16, depth=2)
        return Diffusion(
            shape, bins=bins, denoiser=Learned(net, target=build_target(target)), **settings
        )
    kinds: dict[str | None, Any] = {
        None: lambda: {"width": 16, "depth": 2},
        "u-net": lambda: {"networks": ConvNets(width=8, head=8)},
        "transformer": lambda: {"networks": DiTs(width=16, depth=1, head=8, patch=2)},
    }
    condition = None if classes is None else Labels(classes)
    model = Diffusion(
        shape, bins=bins, fourier=fourier, condition=condition, **kinds[network](), **settings
    )
    if bins is not None:
        _plain_scale(model, schedule)
    return model


def _plain_scale(model: Model, schedule: Schedule) -> None:
    """The scale of the last step as at f5e1b7b: another start, and no gain."""
    noise = math.exp(-0.5 * schedule.log_snr_range()[0])
    model.decoder.decoder.scale = GlobalScale(max(noise, model.spec.width / 8))


def build_target(name: str) -> Any:
    targets: dict[str, Any] = {
        "noise": NoiseTarget,
        "data": DataTarget,
        "velocity": VelocityTarget,
        "score": ScoreTarget,
        "flow velocity": FlowVelocityTarget,
        "edm": EDMTarget,
    }
    return targets[name]()


def build_latent_diffusion(
    shape: Any, bins: int | None, chain: int | None, latents: int = 3
) -> Any:
    vae = VAE(shape, bins=bins, latents=latents, width=16)
    return LatentDiffusion(vae=vae, diffusion=Diffusion((latents,), width=16, depth=2, steps=chain))


def build_gaussian_diffusion(mean: Tensor, covariance: Tensor, chain: int | None) -> Any:
    """A diffusion whose denoiser is the optimum for a Gaussian; no parameter but the decoder's."""
    return Diffusion(len(mean), denoiser=GaussianDenoiser(mean, covariance), steps=chain)


def build_empirical_diffusion(points: Tensor, std: float, chain: int | None) -> Any:
    return Diffusion(
        points.shape[1],
        denoiser=EmpiricalDenoiser(points, std=std),
        schedule=LinearLogSNR(9.0, -12.0),
        steps=chain,
    )


CLEAN, NOISY = 13.3, -5.0


def build_schedule(name: str) -> Any:
    return {
        "linear log-snr": lambda: LinearLogSNR(CLEAN, NOISY),
        "linear log-snr 8..-6": lambda: LinearLogSNR(8.0, -6.0),
        "cosine": lambda: Cosine(clean=CLEAN),
        "cosine 0.008": lambda: Cosine(offset=0.008, clean=CLEAN),
        "linear beta": lambda: LinearBeta(),
        "scaled linear beta": lambda: ScaledLinearBeta(),
        "sigmoid beta": lambda: SigmoidBeta(),
        "cosine beta": lambda: CosineBeta(),
        "zero terminal linear beta": lambda: ZeroTerminalSNR(LinearBeta()),
        "sigmoid": lambda: Sigmoid(clean=CLEAN),
        "laplace": lambda: Laplace(clean=CLEAN),
        "logistic": lambda: Logistic(clean=CLEAN),
        "log-normal": lambda: LogNormal(clean=-2 * math.log(0.002)),
        "polynomial": lambda: Polynomial(smallest=0.002),
        "rectified flow": lambda: RectifiedFlow(Logistic(clean=CLEAN)),
        "exploding": lambda: VarianceExploding(LinearLogSNR(8.0, -8.0)),
        "shifted cosine": lambda: Shifted(Cosine(clean=CLEAN), by=-1.5),
        "monotone": lambda: MonotoneNetwork(clean=CLEAN, features=8),
    }[name]()


NULL = NULL_LABEL
"""The label of an unconditional row."""


# ---------------------------------------------------------------- parts of the models


def schedule_of(model: Model) -> Any:
    return model.prior.schedule


def denoiser_of(model: Model) -> Any:
    return model.prior.denoiser


def real_of(model: Model, x: Tensor) -> Tensor:
    """Integer data as the reals that the model sees."""
    return model.posterior(x).x


def noised(model: Model, x: Tensor, t: float) -> Tensor:
    """A draw of q(z_t | x)."""
    q = model.posterior(x)
    return q.at(torch.full((len(x),), t, dtype=torch.float64)).sample()


def x_hat_of(model: Model, z: Tensor, log_snr: float, context: Tensor | None = None) -> Tensor:
    denoised = denoiser_of(model)(z, torch.full((len(z),), log_snr, dtype=torch.float64), context)
    return denoised.x_hat


def schedule_values(schedule: Schedule, t: Tensor) -> Tensor:
    """Log-SNR, its slope, alpha and sigma at some times, and the time that is read back."""
    log_snr = schedule.log_snr(t)
    return torch.stack([log_snr, schedule.slope(t), *schedule.scales(t), schedule.time(log_snr)])
