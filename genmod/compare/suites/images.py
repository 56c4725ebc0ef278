"""The suite for images of 16 pixels a side or more: convolutions next to the pixels.

Gray levels get mixtures of logistics, because one component cannot fit both a background of one level
and the gray of strokes. Bits get Bernoullis.

The settings were ranked on a thousand validation images, seed 0, in runs of a few minutes: those for
texture on Fashion-MNIST, all others on MNIST.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from genmod.compare.candidate import BuildInputs, Candidate
from genmod.compare.plan import Plan
from genmod.data import Dataset
from genmod.decoders import Decoder, DiscretizedMixtureDecoder, likelihood
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference, LatentDiffusion
from genmod.nn import ConvNets, Networks
from genmod.schedules import LinearLogSNR, Schedule
from genmod.shapes import Shape, size

COMPONENTS = 5
"""Logistics in the mixture of each pixel."""

CODING = ConvNets(width=16)
"""The networks of the autoencoder, the VAE and the bottom-up hierarchy."""

LADDER = ConvNets(width=32)
"""The networks of the top-down hierarchy. After five minutes on one thread its bound is -88.5 nats a
binarized image (validation); that of a VAE of this width and length is -93.4. Narrower: not tried."""


@dataclass(frozen=True)
class DiffusionSettings:
    """The settings of a diffusion and of its decoder p(x | z_0).

    Args:
        clean: the log-SNR of z_0.
        denoising: the networks of the denoiser.
        detail: the network of the decoder.
        around: whether the decoder's logistics are centered on z_0.
    """

    clean: float
    denoising: Networks
    detail: Networks
    around: bool


STROKES = DiffusionSettings(
    clean=2.5,
    denoising=ConvNets(width=32),
    detail=ConvNets(width=32, depth=3),
    around=False,
)
"""For strokes on an empty ground, on patches. After two minutes on one thread: MNIST 1.21 bits/dim
(validation); 1.27 with logistics centered on z_0, because most pixels are exactly empty whatever z_0 is;
1.24 to 1.29 at full resolution, which makes half as many steps in the time. One run each, the last ones
at other clean ends and a learning rate of 4e-3 instead of 6e-3."""

TEXTURE = DiffusionSettings(
    clean=6.0,
    denoising=ConvNets(width=16, multipliers=(1, 2, 4), patch=1),
    detail=ConvNets(width=16, depth=3, patch=1),
    around=True,
)
"""For all other images. After two minutes on one thread: Fashion-MNIST 3.08 bits/dim (validation); 3.16
with a denoiser on patches; 3.15 and 3.16 if the decoder is on patches too, at a clean end of 6 and 4.5;
3.21 for the latter without logistics centered on z_0. One run each; the last three at a learning rate of
6e-3 instead of 4e-3, so that only results of one rate can be compared."""

_LATENTS = 40


def pixels(
    networks: Networks, code: Shape, inputs: BuildInputs, around: Schedule | None = None
) -> Decoder:
    """The distribution of pixels given a code, on a network from one to the other."""
    shape, bins = inputs.data.shape, inputs.data.bins

    def network(outputs: int) -> nn.Module:
        return networks.build(code, (outputs // size(shape[1:]), *shape[1:]))

    if bins is None or bins == 2:
        return likelihood(network, shape, bins)
    outputs = 3 * COMPONENTS * size(shape)
    return DiscretizedMixtureDecoder(network(outputs), shape, bins, COMPONENTS, around)


def autoencoder(inputs: BuildInputs) -> Autoencoder:
    """As many numbers a code as the VAE has."""
    return Autoencoder(
        inputs.data,
        latents=_LATENTS,
        networks=CODING,
        decoder=pixels(CODING, (_LATENTS,), inputs),
    )


def vae(inputs: BuildInputs) -> VAE:
    """One layer of latents."""
    return VAE(
        inputs.data,
        latents=_LATENTS,
        networks=CODING,
        decoder=pixels(CODING, (_LATENTS,), inputs),
    )


def bottom_up(inputs: BuildInputs) -> HVAE:
    """Three layers of latents, inferred from the data upward."""
    return HVAE(
        inputs.data,
        latents=(_LATENTS, 20, 10),
        networks=CODING,
        decoder=pixels(CODING, (_LATENTS,), inputs),
    )


def top_down(inputs: BuildInputs) -> HVAE:
    """Three layers, inferred in the order they are generated."""
    return HVAE(
        inputs.data,
        latents=(16, 16, 16),
        inference=Inference.TOP_DOWN,
        networks=LADDER,
        decoder=pixels(LADDER, (LADDER.features,), inputs),
    )


def settings_for(data: Dataset) -> DiffusionSettings:
    """The settings that suit some data: MNIST and bits are strokes."""
    return STROKES if data.name == "mnist" or data.bins == 2 else TEXTURE


def diffusion(inputs: BuildInputs) -> Diffusion:
    """A short diffusion for the shapes; its decoder models the gray of each pixel."""
    data, chosen = inputs.data, settings_for(inputs.data)
    schedule = LinearLogSNR(chosen.clean, -6.0)
    return Diffusion(
        data,
        networks=chosen.denoising,
        schedule=schedule,
        steps=inputs.latents,
        decoder=pixels(chosen.detail, data.shape, inputs, schedule if chosen.around else None),
    )


def latent_diffusion(inputs: BuildInputs) -> LatentDiffusion:
    """The VAE as it was trained, and a diffusion over its latents."""
    vae = inputs.trained["VAE"]
    schedule = LinearLogSNR(5.0, -6.0)
    diffusion = Diffusion(vae.prior.shape, schedule=schedule, steps=inputs.latents)
    return LatentDiffusion(vae=vae, diffusion=diffusion).freeze(inputs.data.train)


def _plan(steps: int, *, warm: int = 0, learning_rate: float = 2e-3) -> Plan:
    return Plan(
        steps,
        learning_rate=learning_rate,
        weight_decay=0.01,
        warm=warm,
        autocast=None,
        validation_rows=1000,
    )


IMAGES = (
    Candidate("autoencoder", autoencoder, _plan(3000), cost=2),
    Candidate("VAE", vae, _plan(16000, warm=1600), importance_samples=32, cost=8),
    Candidate("HVAE, bottom-up", bottom_up, _plan(14000, warm=1400), importance_samples=32, cost=9),
    # At a rate of 4e-3 most of its latents collapse for good: after some three minutes on one
    # thread its bound is -106 nats a binarized image, and -96 at this rate.
    Candidate(
        "HVAE, top-down",
        top_down,
        _plan(10000, warm=2400, learning_rate=1e-3),
        importance_samples=32,
        cost=10,
    ),
    Candidate("diffusion", diffusion, _plan(5000, learning_rate=4e-3), timesteps=8, cost=12),
    Candidate(
        "latent diffusion",
        latent_diffusion,
        _plan(6000),
        after=("VAE",),
        timesteps=8,
        cost=4,
    ),
)
