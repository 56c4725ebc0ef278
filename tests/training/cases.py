"""Small models and data that the tests of training share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genmod.data import Dataset
from genmod.decoders import GaussianDecoder
from genmod.distributions import Normal
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion
from genmod.objectives import Bound, Objective
from genmod.training.devices import Devices
from genmod.training.parallel import Whole


def data(rows: int = 48) -> Tensor:
    """Correlated real rows of three numbers, always the same."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(rows, 3, generator=generator)
    return noise + 0.8 * noise.roll(1, 1)


def split() -> Dataset:
    """The shared rows, some of them held out."""
    x = data()
    return Dataset("rows", x[:32], x[32:40], x[40:])


def vae(dropout: float = 0.0, width: int = 8) -> VAE:
    """A small VAE on rows of three numbers, always with the same weights."""
    torch.manual_seed(7)
    return VAE(3, latents=2, width=width, depth=1, dropout=dropout)


def diffusion() -> Diffusion:
    """A small diffusion in continuous time on rows of three numbers, always with the same weights."""
    torch.manual_seed(7)
    return Diffusion(3, width=16, depth=1)


def whole(model: LatentModel, objective: Objective | None = None) -> Whole:
    """A model to be trained in this process alone, on the bound by default."""
    return Whole(model, objective or Bound(), Devices(torch.device("cpu")))


def flat(module: nn.Module) -> Tensor:
    """All parameters as one vector, copied."""
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


class BreaksAt(GaussianDecoder):
    """A decoder whose mean becomes a given number in its ``at``-th call in training.

    Args:
        at: which call, counted from 1.
        value: the number.
    """

    def __init__(self, at: int, value: float) -> None:
        super().__init__(nn.Linear(2, 3), (3,))
        self.at, self.value, self.calls = at, value, 0

    def forward(self, state: Tensor, context: Tensor | None = None) -> Normal:
        """The distribution of each row."""
        self.calls += self.training
        law = super().forward(state, context)
        if self.training and self.calls == self.at:
            return Normal(law.loc * self.value, law.log_std)
        return law


def breaking(at: int, value: float) -> LatentModel:
    """The small VAE with such a decoder."""
    torch.manual_seed(7)
    return VAE(3, latents=2, width=8, depth=1, decoder=BreaksAt(at, value))
