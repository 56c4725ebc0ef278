"""Suites: which models are compared on which data, with the settings they are trained with.

``DIGITS`` is for small images and vectors: multilayer perceptrons, with settings for 8 by 8 pixels. They
were ranked on the validation part of the digits' split with seed 0. The bound of that split's test part
was printed beside it meanwhile, so these test numbers are slightly optimistic; those of other seeds are
not. ``QUICK`` holds smaller versions of three of its models.

``IMAGES`` is for images of 16 pixels a side or more: convolutional networks. Gray values get mixtures of
logistics, because one component cannot fit both a background of one value and the gray of strokes. Bits
get Bernoullis. The settings were ranked on a thousand validation images, seed 0, in runs of a few
minutes on MNIST and Fashion-MNIST.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from genmod.checks import invalid
from genmod.compare.candidate import BuildInputs, Candidate, Plan
from genmod.data import Dataset
from genmod.decoders import Decoder, DiscretizedMixtureDecoder, likelihood
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference, LatentDiffusion
from genmod.nn import MLP, ConvNets, MLPs, Networks
from genmod.nn.cells import level_shapes
from genmod.schedules import LinearLogSNR, Schedule
from genmod.tensors import Shape, size


def small_autoencoder(inputs: BuildInputs) -> Autoencoder:
    """An autoencoder; the small number of latents is all that keeps it from copying its input."""
    return Autoencoder(inputs.data, latents=16, dropout=0.1)


def small_vae(inputs: BuildInputs) -> VAE:
    """One layer of latents."""
    return VAE(inputs.data, latents=32, dropout=0.2)


def small_bottom_up(inputs: BuildInputs) -> HVAE:
    """Three layers of latents, with bottom-up inference; with a predicted std of z1, z2 collapses."""
    return HVAE(inputs.data, latents=(32, 16, 8), level_std=0.3, dropout=0.2)


def small_top_down(inputs: BuildInputs) -> HVAE:
    """Three layers of latents, with top-down inference."""
    return HVAE(inputs.data, latents=(16, 16, 16), inference=Inference.TOP_DOWN, dropout=0.2)


def small_diffusion(inputs: BuildInputs) -> Diffusion:
    """A diffusion whose clean end is noisy: the decoder models the finest detail in fewer nats."""
    shape, bins = inputs.data.shape, inputs.data.bins
    entries = size(shape)
    decoder = likelihood(lambda outputs: MLP(entries, outputs, dropout=0.4), shape, bins)
    schedule = LinearLogSNR(2.0, -6.0)
    return Diffusion(inputs.data, schedule=schedule, steps=inputs.latents, decoder=decoder)


def latent_diffusion(inputs: BuildInputs) -> LatentDiffusion:
    """The trained VAE, and a diffusion of its latents."""
    vae = inputs.trained["VAE"]
    schedule = LinearLogSNR(5.0, -6.0)
    diffusion = Diffusion(vae.prior.shape, schedule=schedule, steps=inputs.latents)
    return LatentDiffusion(vae=vae, diffusion=diffusion).freeze(inputs.data.train)


_tight = partial(Candidate, importance_samples=256, refine_steps=60)
"""A candidate with two tighter bounds beside its own."""

DIGITS = (
    Candidate("autoencoder", small_autoencoder, Plan(800), cost=1),
    _tight("VAE", small_vae, Plan(2500, warm=300), cost=6),
    _tight("HVAE, bottom-up", small_bottom_up, Plan(2400, warm=1000), cost=15),
    _tight("HVAE, top-down", small_top_down, Plan(2000, learning_rate=1e-3, warm=1000), cost=18),
    Candidate("diffusion", small_diffusion, Plan(4000, learning_rate=3e-3), cost=12),
    Candidate("latent diffusion", latent_diffusion, Plan(1200), after=("VAE",), cost=5),
)


def quick_vae(inputs: BuildInputs) -> VAE:
    """The VAE with narrow networks."""
    return VAE(inputs.data, latents=16, networks=MLPs(width=128))


def quick_top_down(inputs: BuildInputs) -> HVAE:
    """Two layers, with narrow networks."""
    networks = MLPs(width=96)
    return HVAE(inputs.data, latents=(16, 16), inference=Inference.TOP_DOWN, networks=networks)


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
"""Three small models, for half a minute."""

# ---------------------------------------------------------------------- images

COMPONENTS = 5
"""Logistics in the mixture of each pixel."""

CODING = ConvNets(width=16)
"""The networks of the autoencoder, the VAE and the bottom-up hierarchy, whose latents are vectors."""

_LEVELS, _PATCH = 4, 2
MAPS = ConvNets(width=32, patch=_PATCH)
"""The networks of the top-down hierarchy, whose latents are maps of 16 channels. After 80 seconds on one
thread Fashion-MNIST has 3.20 bits/dim (validation), 3.23 with three levels, 3.28 with latents of half the
resolution, and 3.48 with three vectors of 16 numbers. One run each."""


@dataclass(frozen=True)
class DiffusionSettings:
    """The settings of a diffusion and of its decoder p(x | z_0).

    Args:
        clean: the log-SNR of z_0, the clean end.
        denoising: the networks of the denoiser.
        detail: the networks of the decoder.
        around: whether the decoder's logistics are centered on z_0.
    """

    clean: float
    denoising: Networks
    detail: Networks
    around: bool


BITS = DiffusionSettings(2.5, ConvNets(width=32), ConvNets(width=32, depth=3), around=False)
"""For bits, with networks on patches: none of their detail is finer than a pixel."""

GRAY = DiffusionSettings(
    7.0,
    ConvNets(width=16, multipliers=(1, 2, 4), patch=1),
    ConvNets(width=16, depth=3, patch=1),
    around=True,
)
"""For gray values and colors, at full resolution. After 105 seconds on one thread MNIST has 1.137 bits/dim
(validation), 1.142 with a clean end of 6, and 1.148 with one of 5. With an end of 4 and logistics that are
not centered on z_0 it has 1.154, and with the settings for bits 1.151 after 204. One run each."""

_LATENTS = 40


def pixels(
    networks: Networks, code: Shape, inputs: BuildInputs, around: Schedule | None = None
) -> Decoder:
    """The decoder: the distribution of pixels given a code."""
    shape, bins = inputs.data.shape, inputs.data.bins

    def network(outputs: int) -> nn.Module:
        return networks.build(code, (outputs // size(shape[1:]), *shape[1:]))

    if bins is None or bins == 2:
        return likelihood(network, shape, bins)
    outputs = 3 * COMPONENTS * size(shape)
    return DiscretizedMixtureDecoder(network(outputs), shape, bins, COMPONENTS, around)


def image_autoencoder(inputs: BuildInputs) -> Autoencoder:
    """An autoencoder with as many latents as the VAE."""
    decoder = pixels(CODING, (_LATENTS,), inputs)
    return Autoencoder(inputs.data, latents=_LATENTS, networks=CODING, decoder=decoder)


def image_vae(inputs: BuildInputs) -> VAE:
    """One layer of latents."""
    decoder = pixels(CODING, (_LATENTS,), inputs)
    return VAE(inputs.data, latents=_LATENTS, networks=CODING, decoder=decoder)


def image_bottom_up(inputs: BuildInputs) -> HVAE:
    """Three layers of latents, inferred from the data upward."""
    decoder = pixels(CODING, (_LATENTS,), inputs)
    return HVAE(inputs.data, latents=(_LATENTS, 20, 10), networks=CODING, decoder=decoder)


def image_top_down(inputs: BuildInputs) -> HVAE:
    """Four layers of falling resolution, inferred in the order they are generated."""
    data = inputs.data
    below, *_ = level_shapes(_LEVELS, 2 * MAPS.width, data.shape[1:], _PATCH)
    decoder = pixels(MAPS, below, inputs)
    return HVAE(data, levels=_LEVELS, latents=16, networks=MAPS, decoder=decoder)


def image_diffusion(inputs: BuildInputs) -> Diffusion:
    """A diffusion for the shapes, with a decoder that models the gray value of each pixel."""
    data, chosen = inputs.data, BITS if inputs.data.bins == 2 else GRAY
    schedule = LinearLogSNR(chosen.clean, -6.0)
    return Diffusion(
        data,
        networks=chosen.denoising,
        schedule=schedule,
        # With 1,000 levels the bound of a trained model of MNIST is 1.2 nats an image looser.
        steps=10 * inputs.latents,
        decoder=pixels(chosen.detail, data.shape, inputs, schedule if chosen.around else None),
    )


def _plan(steps: int, *, warm: int = 0) -> Plan:
    return Plan(
        steps,
        learning_rate=2e-3,
        weight_decay=0.01,
        warm=warm,
        autocast=None,
        validation_rows=1000,
    )


def _orthogonal(steps: int, learning_rate: float, warm: int = 0) -> Plan:
    return replace(_plan(steps, warm=warm), learning_rate=learning_rate, muon=True)


_noisy = replace(_orthogonal(5000, 1e-2), loss_aware=True)

IMAGES = (
    Candidate("autoencoder", image_autoencoder, _plan(3000), cost=2),
    Candidate("VAE", image_vae, _plan(16000, warm=1600), importance_samples=32, cost=8),
    Candidate(
        "HVAE, bottom-up", image_bottom_up, _plan(14000, warm=1400), importance_samples=32, cost=9
    ),
    Candidate(
        "HVAE, top-down",
        image_top_down,
        _orthogonal(10000, 1.6e-2, warm=1000),
        importance_samples=32,
        cost=10,
    ),
    # After 90 seconds on one thread MNIST has 1.17 bits/dim (validation), 1.18 with stratified levels, and
    # 1.22 with AdamW. One run each.
    Candidate("diffusion", image_diffusion, _noisy, timesteps=8, cost=12),
    Candidate(
        "latent diffusion", latent_diffusion, _plan(6000), after=("VAE",), timesteps=8, cost=4
    ),
)


# ---------------------------------------------------------------------- the suite for some data

SIDE = 16
"""Images with at least so many pixels a side get convolutional networks."""
MINUTES = 7.0
"""The default time budget of a convolutional model in minutes: its steps take hours on a slow machine."""


def suite_for(data: Dataset, quick: bool = False) -> Sequence[Candidate]:
    """The default suite for a data set: convolutional for images of 16 pixels a side, else MLPs.

    Args:
        data: any data set; images have their channels first, ``(C, H, W)``.
        quick: whether to return the suite that trains in half a minute; there is none for large images.

    Raises:
        ValueError: ``quick`` for images of 16 pixels a side or more.
    """
    shape = data.shape
    large = len(shape) == 3 and min(shape[1:]) >= SIDE
    if quick:
        # In half a minute no model of larger images beats the per-pixel histogram.
        if large:
            raise invalid(
                f"quick=True for images of shape {shape}",
                f"images of fewer than {SIDE} pixels a side, such as the digits",
                "leave --quick out, and limit the time with --minutes",
            )
        return QUICK
    return IMAGES if large else DIGITS


def default_minutes(suite: Sequence[Candidate]) -> float | None:
    """The default time budget of each model of a suite; ``None``: unlimited."""
    return MINUTES if suite is IMAGES else None
