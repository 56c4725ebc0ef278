"""The data that values are computed from, and the bounds that most of them are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genmod.random import keyed

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


def flat(found: object) -> list[float]:
    """The numbers of tensors, lists and dictionaries, in order."""
    if isinstance(found, Tensor):
        return [float(each) for each in found.detach().double().flatten()]
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [number for each in found for number in flat(each)]
    assert isinstance(found, int | float)
    return [float(found)]


def rows(model: Any, x: Tensor, seed: int, **settings: Any) -> list[Tensor]:
    """The reconstruction, each rate in the order of names, and the bound: one number a row each."""
    with keyed(seed):
        found = model.elbo(x, **settings)
    levels = sorted(found.levels(), key=lambda level: level.name)
    return [found.reconstruction, *(level.nats for level in levels), found.value]


def bound(model: Any, x: Tensor, seed: int, **settings: Any) -> list[float]:
    """The means of :func:`rows`."""
    return [float(term.detach().mean()) for term in rows(model, x, seed, **settings)]


def noised(model: Any, x: Tensor, t: float, seed: int) -> Tensor:
    """A draw of q(z_t | x)."""
    with keyed(seed):
        return model.posterior(x).at(torch.full((len(x),), t, dtype=torch.float64)).sample()


def x_hat(model: Any, z: Tensor, log_snr: float) -> Tensor:
    """The estimate of the data from a state at a level."""
    return model.prior.denoiser(z, torch.full((len(z),), log_snr, dtype=torch.float64)).x_hat
