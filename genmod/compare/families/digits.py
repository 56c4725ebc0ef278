"""The family for small images: perceptrons, each with the settings that suit 8 by 8 pixels.

The settings were ranked on the validation part of the digits' split with seed 0; the bound of that
split's test part was printed beside it while they were, so its numbers are not quite blind to them.
Those of other seeds are.
"""

from __future__ import annotations

from genmod.compare.member import Member, Setting
from genmod.compare.plan import Plan
from genmod.decoders import likelihood
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference, LatentDiffusion
from genmod.nn import MLP
from genmod.schedules import LinearLogSNR
from genmod.shapes import size


def autoencoder(setting: Setting) -> Autoencoder:
    """A narrow code, because nothing else keeps it from copying."""
    return Autoencoder(setting.data.shape, setting.data.bins, latents=16, dropout=0.1)


def vae(setting: Setting) -> VAE:
    """One layer of latents."""
    return VAE(setting.data.shape, setting.data.bins, latents=32, dropout=0.2)


def bottom_up(setting: Setting) -> HVAE:
    """Three layers, inferred as the lecture draws them."""
    return HVAE(setting.data.shape, setting.data.bins, latents=(32, 16, 8), dropout=0.2)


def top_down(setting: Setting) -> HVAE:
    """Three layers, inferred in the order they are generated."""
    return HVAE(
        setting.data.shape,
        setting.data.bins,
        latents=(16, 16, 16),
        inference=Inference.TOP_DOWN,
        dropout=0.2,
    )


def diffusion(setting: Setting) -> Diffusion:
    """A short diffusion: most of the detail is left to a decoder of its own, which says it cheaply."""
    shape, bins = setting.data.shape, setting.data.bins
    entries = size(shape)
    decoder = likelihood(lambda outputs: MLP(entries, outputs, dropout=0.4), shape, bins)
    schedule = LinearLogSNR(2.0, -6.0)
    return Diffusion(shape, bins, schedule=schedule, steps=setting.latents, decoder=decoder)


def latent_diffusion(setting: Setting) -> LatentDiffusion:
    """The VAE as it was trained, and a diffusion over its latents."""
    vae = setting.trained["VAE"]
    schedule = LinearLogSNR(5.0, -6.0)
    diffusion = Diffusion(vae.prior.shape, schedule=schedule, steps=setting.latents)
    return LatentDiffusion(vae=vae, diffusion=diffusion).freeze(setting.data.train)


DIGITS = (
    Member("autoencoder", autoencoder, Plan(800), cost=1),
    Member("VAE", vae, Plan(2500, warm=300), importance_samples=256, cost=5),
    Member("HVAE, bottom-up", bottom_up, Plan(1600, warm=300), importance_samples=256, cost=9),
    Member(
        "HVAE, top-down",
        top_down,
        Plan(1500, learning_rate=1e-3, warm=500),
        importance_samples=256,
        cost=12,
    ),
    Member("diffusion", diffusion, Plan(4000, learning_rate=3e-3), cost=12),
    Member("latent diffusion", latent_diffusion, Plan(1200), after=("VAE",), cost=5),
)
