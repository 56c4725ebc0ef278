"""The smallest model of each family, with its data, one builder a name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from genmod.diffusion import DiffusionPrior, LearnedInterpolation
from genmod.encoders import FlowEncoder, FullCovarianceEncoder
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion, with_depth
from genmod.nn import MLP, ConvNets, DenoisingMLP, Ignored, Labels, MLPs
from genmod.priors import FlowPrior, MixturePrior, VampPrior
from genmod.spec import Column, DataSpec

ROWS, BINS, CLASSES = 5, 5, 3
INTEGERS, REALS = (1, 2, 2), (3,)
TABLE = DataSpec(
    (5,),
    columns=[
        Column("height", mean=170.0, std=10.0),
        Column("color", "category", ("red", "green", "blue")),
        Column("year", "integer", mean=2000.0, std=5.0),
        Column("visits", "count", mean=2.0),
        Column("grade", "ordinal", (1, 2, 3)),
    ],
    missing=True,
)
TINY: dict[str, Any] = {"width": 8, "depth": 1, "dropout": 0.3}
"""With dropout, so that a model left in training mode gives other numbers."""


def _mixture() -> MixtureSameFamily:
    parts = Independent(Normal(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.ones(2, 2)), 1)
    return MixtureSameFamily(Categorical(torch.ones(2)), parts)


def _latent(condition: Labels | None = None) -> LatentModel:
    """A latent diffusion of four latents."""
    within = None if condition is None else Ignored()
    vae = VAE(INTEGERS, BINS, latents=2, condition=within, **TINY)
    inner = Diffusion(2, steps=4, condition=condition, **TINY)
    return LatentDiffusion(vae=vae, diffusion=inner)


def _label() -> Labels:
    return Labels(CLASSES)


FAMILIES: dict[str, Callable[[], LatentModel]] = {
    "autoencoder": lambda: Autoencoder(INTEGERS, BINS, latents=2, **TINY),
    "vae": lambda: VAE(INTEGERS, BINS, latents=2, **TINY),
    "vae of reals": lambda: VAE(REALS, latents=2, **TINY),
    "vae under a torch law": lambda: VAE(REALS, latents=2, prior=_mixture(), **TINY),
    "vae under a vampprior": lambda: VAE(INTEGERS, BINS, latents=2, prior=VampPrior(3), **TINY),
    "full covariance and mixture": lambda: VAE(
        REALS, latents=2, encoder=FullCovarianceEncoder(), prior=MixturePrior(3), **TINY
    ),
    "flows": lambda: VAE(
        REALS, latents=2, encoder=FlowEncoder(width=8), prior=FlowPrior(width=8), **TINY
    ),
    "conditional vae": lambda: VAE(INTEGERS, BINS, latents=2, condition=_label(), **TINY),
    "bottom-up": lambda: HVAE(INTEGERS, BINS, latents=(3, 2), inference="bottom-up", **TINY),
    "bottom-up, fixed std": lambda: HVAE(INTEGERS, BINS, latents=(3, 2), level_std=0.5, **TINY),
    "top-down": lambda: HVAE(REALS, latents=(3, 2), inference="top-down", **TINY),
    "ladder": lambda: HVAE(REALS, latents=(3, 2), inference="ladder", **TINY),
    "very deep": lambda: HVAE(
        INTEGERS, BINS, levels=3, latents=2, networks=ConvNets(width=4, dropout=0.3)
    ),
    "conditional very deep hierarchy": lambda: HVAE(
        INTEGERS, BINS, levels=2, latents=2, condition=_label(), **TINY
    ),
    "learned encoder": lambda: with_depth(
        Diffusion(REALS, **TINY), 3, learned_encoder=True, networks=MLPs(**TINY)
    ),
    "conditional hierarchy": lambda: HVAE(
        INTEGERS, BINS, latents=(3, 2), inference="top-down", condition=_label(), **TINY
    ),
    "diffusion": lambda: Diffusion(INTEGERS, BINS, steps=4, **TINY),
    "continuous diffusion": lambda: Diffusion(REALS, **TINY),
    "learned variance": lambda: Diffusion(REALS, steps=4, variance=LearnedInterpolation(), **TINY),
    "conditional diffusion": lambda: Diffusion(INTEGERS, BINS, condition=_label(), **TINY),
    "latent diffusion": _latent,
    "conditional latent diffusion": lambda: _latent(_label()),
    "vae of a table": lambda: VAE(TABLE, latents=2, **TINY),
}


@dataclass(frozen=True)
class Case:
    """A model and rows for it, with the id of each row."""

    model: LatentModel
    x: Tensor
    context: Tensor | None
    ids: Tensor
    batch_size: int | None = None
    backend: str | None = None
    """Of the compiler of its networks; ``None``: not compiled."""

    def part(self, rows: Tensor | slice) -> Case:
        """Some of the rows, or all in another order."""
        context = None if self.context is None else self.context[rows]
        return replace(self, x=self.x[rows], context=context, ids=self.ids[rows])

    def copied(self) -> LatentModel:
        """A model of its own, compiled as the case's is: a copy of a compiled module is not."""
        model = copy.deepcopy(self.model)
        if self.backend is not None:
            for part in list(model.modules()):
                if isinstance(part, MLP | DenoisingMLP):
                    part.compile(backend=self.backend)
        return model

    def compiled(self, backend: str) -> Case:
        """The same model with each of its networks compiled."""
        case = replace(self, backend=backend)
        return replace(case, model=case.copied())

    def double(self) -> Case:
        """The same numbers in float64."""
        x = self.x.double() if self.x.is_floating_point() else self.x
        return replace(self, model=copy.deepcopy(self.model).double(), x=x)

    @property
    def diffusion(self) -> DiffusionPrior | None:
        """The diffusion in the model."""
        found = (part for part in self.model.modules() if isinstance(part, DiffusionPrior))
        return next(found, None)


def _table() -> Tensor:
    """Rows of :data:`TABLE`."""
    heights, years = 170 + 10 * torch.randn(ROWS), (2000 + 5 * torch.randn(ROWS)).round()
    codes = torch.randint(3, (2, ROWS)).float()
    counts = torch.randint(5, (ROWS,)).float()
    return torch.stack([heights, codes[0], years, counts, codes[1]], 1)


@cache
def case(name: str) -> Case:
    """The smallest model of a family, with no weight left at zero, and rows with ids."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FAMILIES[name]()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
        if model.spec.columns is not None:
            x = _table()
        elif model.spec.is_integer:
            x = torch.randint(BINS, (ROWS, *model.spec.shape))
        else:
            x = torch.randn(ROWS, *model.spec.shape)
        labels = torch.arange(ROWS) % CLASSES if "conditional" in name else None
    found = Case(model.eval(), x, labels, torch.tensor([7, 3, 300, 12, 5]))
    if found.diffusion is not None:
        found.diffusion.resolution = 3
    return found
