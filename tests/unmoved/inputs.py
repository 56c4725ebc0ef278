"""The models and the data that values are computed from. No name of the package from here on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tests.unmoved.calls import bound_of, bound_terms
from tests.unmoved.models import (
    build_autoencoder,
    build_diffusion,
    build_hvae,
    build_latent_diffusion,
    build_schedule,
    build_vae,
    build_vae_under,
    keyed,
)

Model: TypeAlias = Any
SPREAD = 0.1
NOISE_SEED = 1000
VALUES: dict[str, Callable[[], object]] = {}


def value(name: str) -> Any:
    """Register a function that computes a value: numbers, tensors, lists of these."""

    def register(compute: Callable[[], object]) -> Callable[[], object]:
        assert name not in VALUES, name
        VALUES[name] = compute
        return compute

    return register


def flat(found: object) -> list[float]:
    if isinstance(found, Tensor):
        return [float(each) for each in found.detach().double().flatten()]
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [number for each in found for number in flat(each)]
    assert isinstance(found, int | float)
    return [float(found)]


def means(terms: list[Tensor]) -> list[float]:
    return [float(term.detach().mean()) for term in terms]


def built(make: Callable[[], nn.Module], seed: int) -> Any:
    """A seeded model in float64, with noise on every parameter: in their order, whatever their names."""
    torch.manual_seed(seed)
    model = make().double()
    generator = torch.Generator().manual_seed(NOISE_SEED + seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((SPREAD * noise).to(parameter.dtype))
    return model


IMAGE, BINS = (1, 4, 4), 17
_generator = torch.Generator().manual_seed(2024)
INTS = torch.randint(0, BINS, (6, *IMAGE), generator=_generator)
REALS = torch.randn(6, 3, generator=_generator, dtype=torch.float64)
LABELS = torch.randint(0, 3, (6,), generator=_generator)
SEEN = torch.rand(6, *IMAGE, generator=_generator) < 0.6
MANY = torch.randint(0, BINS, (32, *IMAGE), generator=_generator)
POINTS = torch.randn(8, 3, generator=_generator, dtype=torch.float64)
IMAGES = 0.5 * torch.randn(6, *IMAGE, generator=_generator, dtype=torch.float64)
SEEDS = [3, 11]


def mixture(size: int) -> torch.distributions.Distribution:
    """A torch mixture of two Gaussians over `size` dimensions, in float64."""
    centers = torch.linspace(-1.0, 1.0, 2 * size, dtype=torch.float64).reshape(2, size)
    spread = torch.full((2, size), 0.7, dtype=torch.float64)
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([0.3, 0.7], dtype=torch.float64)),
        torch.distributions.Independent(torch.distributions.Normal(centers, spread), 1),
    )


def autoencoder() -> Any:
    return built(lambda: build_autoencoder(IMAGE, BINS), 1)


def vae() -> Any:
    return built(lambda: build_vae(IMAGE, BINS), 2)


def vae_reals() -> Any:
    return built(lambda: build_vae(3, None, latents=2), 3)


def vae_mixture() -> Any:
    return built(lambda: build_vae_under(mixture(2), 3, None, latents=2), 4)


def hvae(top_down: bool) -> Any:
    return built(lambda: build_hvae(IMAGE, BINS, top_down), 6 if top_down else 5)


def steps10() -> Any:
    return built(lambda: build_diffusion(IMAGE, BINS, 10), 7)


def continuous() -> Any:
    schedule = build_schedule("linear log-snr 8..-6")
    return built(lambda: build_diffusion(3, None, None, schedule=schedule), 8)


def large() -> Any:
    return built(lambda: build_diffusion(IMAGE, BINS, 10, variance="large"), 9)


def learned() -> Any:
    return built(lambda: build_diffusion(3, None, 10, variance="learned"), 10)


def labeled() -> Any:
    schedule = build_schedule("cosine")
    return built(lambda: build_diffusion(IMAGE, BINS, 10, schedule=schedule, classes=3), 11)


def latent_diffusion(chain: int | None) -> Any:
    return built(lambda: build_latent_diffusion(IMAGE, BINS, chain), 12)


def images10() -> Any:
    """A diffusion of real images, for inverse problems."""
    schedule = build_schedule("linear log-snr 8..-6")
    return built(lambda: build_diffusion(IMAGE, None, 10, schedule=schedule), 13)


def bound(family: str, model: Model, x: Tensor, seed: int, **settings: Any) -> list[float]:
    with keyed(seed):
        return means(bound_terms(family, bound_of(model, x, **settings)))
