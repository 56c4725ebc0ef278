"""The suite for small images and vectors: multilayer perceptrons, with settings for 8 by 8 pixels.

The settings were ranked on the validation part of the digits' split with seed 0; the bound of that
split's test part was printed beside it while they were, so these test numbers are slightly optimistic.
Those of other seeds are not.
"""

from __future__ import annotations

from genmod.compare.candidate import BuildInputs, Candidate
from genmod.compare.plan import Plan
from genmod.decoders import likelihood
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference, LatentDiffusion
from genmod.nn import MLP, MLPs
from genmod.schedules import LinearLogSNR
from genmod.shapes import size


def autoencoder(inputs: BuildInputs) -> Autoencoder:
    """A narrow code, because nothing else keeps it from copying."""
    return Autoencoder(inputs.data, latents=16, dropout=0.1)


def vae(inputs: BuildInputs) -> VAE:
    """One layer of latents."""
    return VAE(inputs.data, latents=32, dropout=0.2)


def bottom_up(inputs: BuildInputs) -> HVAE:
    """Three layers of latents, inferred from the data upward."""
    return HVAE(inputs.data, latents=(32, 16, 8), dropout=0.2)


def top_down(inputs: BuildInputs) -> HVAE:
    """Three layers, inferred in the order they are generated."""
    return HVAE(
        inputs.data,
        latents=(16, 16, 16),
        inference=Inference.TOP_DOWN,
        dropout=0.2,
    )


def diffusion(inputs: BuildInputs) -> Diffusion:
    """A diffusion with a noisy clean end: its decoder models the finest detail, at a lower cost in nats."""
    shape, bins = inputs.data.shape, inputs.data.bins
    entries = size(shape)
    decoder = likelihood(lambda outputs: MLP(entries, outputs, dropout=0.4), shape, bins)
    schedule = LinearLogSNR(2.0, -6.0)
    return Diffusion(inputs.data, schedule=schedule, steps=inputs.latents, decoder=decoder)


def latent_diffusion(inputs: BuildInputs) -> LatentDiffusion:
    """The VAE as it was trained, and a diffusion over its latents."""
    vae = inputs.trained["VAE"]
    schedule = LinearLogSNR(5.0, -6.0)
    diffusion = Diffusion(vae.prior.shape, schedule=schedule, steps=inputs.latents)
    return LatentDiffusion(vae=vae, diffusion=diffusion).freeze(inputs.data.train)


DIGITS = (
    Candidate("autoencoder", autoencoder, Plan(800), cost=1),
    Candidate("VAE", vae, Plan(2500, warm=300), importance_samples=256, cost=5),
    Candidate("HVAE, bottom-up", bottom_up, Plan(1600, warm=300), importance_samples=256, cost=9),
    Candidate(
        "HVAE, top-down",
        top_down,
        Plan(1500, learning_rate=1e-3, warm=500),
        importance_samples=256,
        cost=12,
    ),
    Candidate("diffusion", diffusion, Plan(4000, learning_rate=3e-3), cost=12),
    Candidate("latent diffusion", latent_diffusion, Plan(1200), after=("VAE",), cost=5),
)


def quick_vae(inputs: BuildInputs) -> VAE:
    """The VAE with narrow networks."""
    return VAE(inputs.data, latents=16, networks=MLPs(width=128))


def quick_top_down(inputs: BuildInputs) -> HVAE:
    """Two layers, with narrow networks."""
    return HVAE(
        inputs.data,
        latents=(16, 16),
        inference=Inference.TOP_DOWN,
        networks=MLPs(width=96),
    )


def quick_diffusion(inputs: BuildInputs) -> Diffusion:
    """The diffusion with narrow networks and 100 latents."""
    shape, bins = inputs.data.shape, inputs.data.bins
    decoder = likelihood(lambda outputs: MLP(size(shape), outputs, width=128), shape, bins)
    schedule = LinearLogSNR(2.0, -6.0)
    steps = min(100, inputs.latents)
    return Diffusion(
        inputs.data, schedule=schedule, steps=steps, decoder=decoder, networks=MLPs(width=128)
    )


QUICK = (
    Candidate("VAE", quick_vae, Plan(600, warm=100, validations=4), cost=2),
    Candidate("HVAE, top-down", quick_top_down, Plan(600, warm=200, validations=4), cost=4),
    Candidate("diffusion", quick_diffusion, Plan(800, learning_rate=3e-3, validations=4), cost=4),
)
"""A first look in half a minute."""
