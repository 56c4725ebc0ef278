"""The family for images of 16 pixels a side or more: convolutions next to the pixels.

Gray levels get mixtures of logistics, because a background of one level and the gray of strokes are
more than one bump can say; bits get Bernoullis.

The settings were ranked on a thousand validation images, seed 0, in runs of a few minutes: those for
texture on Fashion-MNIST, all others on MNIST.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from genmod.compare.member import Member, Setting
from genmod.compare.plan import Plan
from genmod.data import Dataset
from genmod.decoders import Decoder, DiscretizedMixtureDecoder, likelihood
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference, LatentDiffusion
from genmod.nn import ConvNets, Networks
from genmod.schedules import LinearLogSNR, Schedule
from genmod.shapes import size
from genmod.types import Shape

COMPONENTS = 5
"""Logistics in the mixture of each pixel."""

CODING = ConvNets(width=16)
"""Networks of the models with codes."""

LADDER = ConvNets(width=32)
"""Those of the top-down hierarchy: after five minutes on one thread it says -88.5 nats a binarized image
(validation). Narrower ones were not tried at this length. A VAE says -93.4 at this width and length."""


@dataclass(frozen=True)
class Chain:
    """The settings of a diffusion, and of the decoder that says what it leaves unsaid.

    Args:
        clean: the log-SNR where the diffusion ends and its decoder begins.
        denoising: its U-Net.
        detail: the network of its decoder.
        around: whether the decoder places its logistics around what it is given.
    """

    clean: float
    denoising: Networks
    detail: Networks
    around: bool


STROKES = Chain(
    clean=2.5,
    denoising=ConvNets(width=32),
    detail=ConvNets(width=32, depth=3),
    around=False,
)
"""For strokes on an empty ground, on patches. After two minutes on one thread MNIST takes 1.21 bits/dim
(validation); 1.27 with logistics around z_0, since most pixels are exactly empty whatever z_0 is; and
1.24 to 1.29 at full resolution, which makes half as many steps in the time. One run each, the latter at
other clean ends and a rate of 4e-3 instead of 6e-3."""

TEXTURE = Chain(
    clean=6.0,
    denoising=ConvNets(width=16, multipliers=(1, 2, 4), patch=1),
    detail=ConvNets(width=16, depth=3, patch=1),
    around=True,
)
"""For all other images. After two minutes on one thread Fashion-MNIST takes 3.08 bits/dim (validation);
3.16 with a denoiser on patches; 3.15 and 3.16 if the decoder is on patches too, at a clean end of 6 and
4.5; and 3.21 from the latter without logistics around z_0. One run each; the last three at a rate of
6e-3 instead of 4e-3, so only what stands side by side at one rate differs by one thing."""

_LATENTS = 40


def pixels(
    networks: Networks, code: Shape, setting: Setting, around: Schedule | None = None
) -> Decoder:
    """The distribution of pixels given a code, on a network from one to the other."""
    shape, bins = setting.data.shape, setting.data.bins

    def network(outputs: int) -> nn.Module:
        return networks.build(code, (outputs // size(shape[1:]), *shape[1:]))

    if bins is None or bins == 2:
        return likelihood(network, shape, bins)
    outputs = 3 * COMPONENTS * size(shape)
    return DiscretizedMixtureDecoder(network(outputs), shape, bins, COMPONENTS, around)


def autoencoder(setting: Setting) -> Autoencoder:
    """As many numbers a code as the VAE has."""
    return Autoencoder(
        setting.data.shape,
        setting.data.bins,
        latents=_LATENTS,
        networks=CODING,
        decoder=pixels(CODING, (_LATENTS,), setting),
    )


def vae(setting: Setting) -> VAE:
    """One layer of latents."""
    return VAE(
        setting.data.shape,
        setting.data.bins,
        latents=_LATENTS,
        networks=CODING,
        decoder=pixels(CODING, (_LATENTS,), setting),
    )


def bottom_up(setting: Setting) -> HVAE:
    """Three layers, inferred as the lecture draws them."""
    return HVAE(
        setting.data.shape,
        setting.data.bins,
        latents=(_LATENTS, 20, 10),
        networks=CODING,
        decoder=pixels(CODING, (_LATENTS,), setting),
    )


def top_down(setting: Setting) -> HVAE:
    """Three layers, inferred in the order they are generated."""
    return HVAE(
        setting.data.shape,
        setting.data.bins,
        latents=(16, 16, 16),
        inference=Inference.TOP_DOWN,
        networks=LADDER,
        decoder=pixels(LADDER, (LADDER.features,), setting),
    )


def chain_for(data: Dataset) -> Chain:
    """The settings that suit some data: MNIST and bits are strokes."""
    return STROKES if data.name == "mnist" or data.bins == 2 else TEXTURE


def diffusion(setting: Setting) -> Diffusion:
    """A short diffusion: the shapes are its own, and the gray of each pixel its decoder's."""
    data, chain = setting.data, chain_for(setting.data)
    schedule = LinearLogSNR(chain.clean, -6.0)
    return Diffusion(
        data.shape,
        data.bins,
        networks=chain.denoising,
        schedule=schedule,
        steps=setting.latents,
        decoder=pixels(chain.detail, data.shape, setting, schedule if chain.around else None),
    )


def latent_diffusion(setting: Setting) -> LatentDiffusion:
    """The VAE as it was trained, and a diffusion over its latents."""
    vae = setting.trained["VAE"]
    schedule = LinearLogSNR(5.0, -6.0)
    diffusion = Diffusion(vae.prior.shape, schedule=schedule, steps=setting.latents)
    return LatentDiffusion(vae=vae, diffusion=diffusion).freeze(setting.data.train)


def _plan(steps: int, *, warm: int = 0, learning_rate: float = 2e-3) -> Plan:
    return Plan(
        steps,
        learning_rate=learning_rate,
        weight_decay=0.01,
        warm=warm,
        autocast=None,
        validated=1000,
    )


IMAGES = (
    Member("autoencoder", autoencoder, _plan(3000), cost=2),
    Member("VAE", vae, _plan(16000, warm=1600), importance_samples=32, cost=8),
    Member("HVAE, bottom-up", bottom_up, _plan(14000, warm=1400), importance_samples=32, cost=9),
    # At a rate of 4e-3 most of its latents are given up for good: after some three minutes on one
    # thread it says -106 nats a binarized image, and -96 at this one.
    Member(
        "HVAE, top-down",
        top_down,
        _plan(10000, warm=2400, learning_rate=1e-3),
        importance_samples=32,
        cost=10,
    ),
    Member("diffusion", diffusion, _plan(5000, learning_rate=4e-3), timesteps=8, cost=12),
    Member(
        "latent diffusion",
        latent_diffusion,
        _plan(6000),
        after=("VAE",),
        timesteps=8,
        cost=4,
    ),
)
