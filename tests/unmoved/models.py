"""The models of commit f5e1b7b, with noise on every parameter, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributions, nn

from genmod import decoders, schedules
from genmod.config.settings import arguments, record_arguments
from genmod.denoisers import EmpiricalDenoiser, GaussianDenoiser, Learned
from genmod.diffusion import FixedLarge, LearnedInterpolation
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference, LatentDiffusion
from genmod.nn import DenoisingMLP, Labels
from genmod.priors.simple import DistributionPrior
from genmod.schedules import LinearLogSNR, Schedule
from genmod.tensors import Shape
from tests.unmoved.inputs import BINS, IMAGE

CLEAN = 13.3
SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "linear log-snr": lambda: LinearLogSNR(CLEAN, -5.0),
    "linear log-snr 8..-6": lambda: LinearLogSNR(8.0, -6.0),
    "cosine": lambda: schedules.Cosine(clean=CLEAN),
    "cosine 0.008": lambda: schedules.Cosine(offset=0.008, clean=CLEAN),
    "linear beta": schedules.LinearBeta,
    "scaled linear beta": schedules.ScaledLinearBeta,
    "sigmoid beta": schedules.SigmoidBeta,
    "cosine beta": schedules.CosineBeta,
    "zero terminal linear beta": lambda: schedules.ZeroTerminalSNR(schedules.LinearBeta()),
    "sigmoid": lambda: schedules.Sigmoid(clean=CLEAN),
    "laplace": lambda: schedules.Laplace(clean=CLEAN),
    "logistic": lambda: schedules.Logistic(clean=CLEAN),
    "log-normal": lambda: schedules.LogNormal(clean=-2 * math.log(0.002)),
    "polynomial": lambda: schedules.Polynomial(smallest=0.002),
    "rectified flow": lambda: schedules.RectifiedFlow(schedules.Logistic(clean=CLEAN)),
    "exploding": lambda: schedules.VarianceExploding(LinearLogSNR(8.0, -8.0)),
    "shifted cosine": lambda: schedules.Shifted(schedules.Cosine(clean=CLEAN), by=-1.5),
    "monotone": lambda: schedules.MonotoneNetwork(clean=CLEAN, features=8),
}


def built(seed: int, make: Callable[[], nn.Module]) -> Any:
    """A seeded model in float64, with noise on every parameter: in their order, whatever their names."""
    torch.manual_seed(seed)
    model = without_gain(make()).double()
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((0.1 * noise).to(parameter.dtype))
    return model


def without_gain(model: nn.Module) -> nn.Module:
    """The model with the learned scales of f5e1b7b, whose parameter was the log-scale itself."""
    for part in model.modules():
        if isinstance(part, decoders.GlobalScale | decoders.PerDimensionScale):
            given: dict[str, Any] = (arguments(part) or {}) | {"gain": 1.0}
            record_arguments(part, given)
            part.gain = 1.0
            part.log_scale.data.fill_(math.log(given["initial"]))
    return model


# ---------------------------------------------------------------- learned encoders


def autoencoder() -> Any:
    return built(1, lambda: Autoencoder(IMAGE, bins=BINS, latents=4, width=16))


def vae() -> Any:
    return built(2, lambda: VAE(IMAGE, bins=BINS, latents=4, width=16))


def vae_reals() -> Any:
    return built(3, lambda: VAE(3, latents=2, width=16))


def vae_mixture() -> Any:
    """Its prior is a torch mixture of two Gaussians, in float64."""
    centers = torch.linspace(-1.0, 1.0, 4, dtype=torch.float64).reshape(2, 2)
    spread = torch.full((2, 2), 0.7, dtype=torch.float64)
    law = distributions.MixtureSameFamily(
        distributions.Categorical(torch.tensor([0.3, 0.7], dtype=torch.float64)),
        distributions.Independent(distributions.Normal(centers, spread), 1),
    )
    return built(4, lambda: VAE(3, latents=2, width=16, prior=DistributionPrior(law)))


def vae_labeled() -> Any:
    return built(20, lambda: VAE(IMAGE, bins=BINS, latents=4, width=16, condition=Labels(3)))


DECODERS: list[tuple[int | None, int, Callable[[nn.Module], decoders.Decoder]]] = [
    (2, 16, lambda network: decoders.BernoulliDecoder(network, IMAGE)),
    (17, 272, lambda network: decoders.CategoricalDecoder(network, IMAGE, 17)),
    (17, 16, lambda network: decoders.DiscretizedGaussianDecoder(network, IMAGE, 17)),
    (17, 144, lambda network: decoders.DiscretizedMixtureDecoder(network, IMAGE, 17, components=3)),
    (
        None,
        16,
        lambda network: decoders.GaussianDecoder(network, IMAGE, decoders.PerDimensionScale(IMAGE)),
    ),
]
"""The number of values of each decoder, the outputs of its network, and the decoder."""


def vae_deciding(number: int) -> Any:
    """A VAE with the decoder of a number on one linear layer."""
    bins, outputs, decoder = DECODERS[number]

    def make() -> VAE:
        network = nn.Linear(4, outputs)
        return VAE(IMAGE, bins=bins, latents=4, width=16, decoder=decoder(network))

    return built(30 + number, make)


def hvae(top_down: bool) -> Any:
    order = Inference.TOP_DOWN if top_down else Inference.BOTTOM_UP
    settings: dict[str, Any] = {"bins": BINS, "latents": (4, 3, 2), "width": 16}
    return built(6 if top_down else 5, lambda: HVAE(IMAGE, inference=order, **settings))


# ---------------------------------------------------------------- diffusions


def diffusion(
    seed: int,
    shape: int | Shape,
    bins: int | None,
    steps: int | None,
    schedule: str = "linear log-snr",
    **settings: Any,
) -> Any:
    """A diffusion; of integers, with the scale of the last step as at f5e1b7b."""

    def make() -> Diffusion:
        law = SCHEDULES[schedule]()
        if "networks" not in settings:
            settings.update(width=16, depth=2)
        model: Any = Diffusion(shape, bins=bins, steps=steps, schedule=law, **settings)
        if bins is not None:
            noise = math.exp(-0.5 * law.log_snr_range()[0])
            scale = decoders.GlobalScale(max(noise, model.spec.width / 8))
            model.decoder.decoder.scale = scale
        return model

    return built(seed, make)


def steps10() -> Any:
    return diffusion(7, IMAGE, BINS, 10)


def continuous() -> Any:
    return diffusion(8, 3, None, None, "linear log-snr 8..-6")


def large() -> Any:
    return diffusion(9, IMAGE, BINS, 10, variance=FixedLarge())


def learned() -> Any:
    return diffusion(10, 3, None, 10, variance=LearnedInterpolation())


def labeled() -> Any:
    return diffusion(11, IMAGE, BINS, 10, "cosine", condition=Labels(3))


def images10() -> Any:
    """A diffusion of real images, for inverse problems."""
    return diffusion(13, IMAGE, None, 10, "linear log-snr 8..-6")


def predicting(target: Any) -> Any:
    """A diffusion whose network predicts a target."""

    def make() -> Diffusion:
        denoiser = Learned(DenoisingMLP((3,), width=16, depth=2), target=target)
        return Diffusion(3, schedule=SCHEDULES["linear log-snr"](), denoiser=denoiser)

    return built(16, make)


def latent_diffusion(steps: int | None) -> Any:
    def make() -> LatentDiffusion:
        vae = VAE(IMAGE, bins=BINS, latents=3, width=16)
        return LatentDiffusion(vae=vae, diffusion=Diffusion((3,), width=16, depth=2, steps=steps))

    return built(12, make)


def known_gaussian() -> Any:
    """A diffusion whose denoiser is the optimum for a Gaussian; no parameter but the decoder's."""
    covariance = torch.tensor(
        [[1.0, 0.5, 0.0], [0.5, 0.8, 0.1], [0.0, 0.1, 0.4]], dtype=torch.float64
    )
    mean = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64)
    return built(18, lambda: Diffusion(3, denoiser=GaussianDenoiser(mean, covariance), steps=10))


def known_points(seed: int, points: Tensor, std: float, steps: int | None) -> Any:
    """A diffusion whose denoiser is the optimum for a few points."""
    schedule = LinearLogSNR(9.0, -12.0)

    def make() -> Diffusion:
        denoiser = EmpiricalDenoiser(points, std=std)
        return Diffusion(points.shape[1], denoiser=denoiser, schedule=schedule, steps=steps)

    return built(seed, make)
