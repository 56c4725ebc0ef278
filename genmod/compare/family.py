"""The family: each model of the lecture with the settings it is trained with on small images.

The settings were chosen on validation data alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from genmod.data import Dataset
from genmod.decoders import likelihood
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference, LatentDiffusion
from genmod.nn import MLP
from genmod.objectives import Bound, WarmUp
from genmod.schedules import LinearLogSNR
from genmod.shapes import size
from genmod.training import fit, train

LATENTS = 1000
"""Latents of the diffusions: all of them are visited when the bound is reported."""


@dataclass(frozen=True)
class Run:
    """What training a member of the family needs to know.

    Args:
        data: the data set.
        seed: of weights, batches and noise.
        effort: how much of the customary number of steps to make.
        progress: whether to show bars.
        trained: the members trained before.
    """

    data: Dataset
    seed: int
    effort: float
    progress: bool
    trained: dict[str, LatentModel]

    @property
    def latents(self) -> int:
        """How many latents a diffusion has: fewer at a fraction of the effort, so that a look is quick."""
        return max(10, min(LATENTS, round(LATENTS * self.effort)))

    def fit(
        self,
        model: LatentModel,
        steps: int,
        *,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.05,
        warm: int = 0,
    ) -> None:
        """Train a model for its customary number of steps, times the effort.

        Args:
            model: the model.
            steps: how many steps at full effort.
            learning_rate: of the optimizer, at its peak.
            weight_decay: of the optimizer.
            warm: over how many of the steps the rates rise to their full price.
        """
        objective = WarmUp(max(1, round(warm * self.effort))) if warm else Bound()
        train(
            fit(
                model,
                self.data,
                objective,
                steps=max(1, round(steps * self.effort)),
                batch_size=64,
                learning_rate=learning_rate,
                weight_decay=weight_decay,
                seed=self.seed,
                progress=self.progress,
            )
        )


@dataclass(frozen=True)
class Member:
    """A model of the family.

    Args:
        name: what reports call it.
        train: builds and trains it.
        importance: how many importance draws its report gets; 0 for none.
    """

    name: str
    train: Callable[[Run], LatentModel]
    importance: int


def _autoencoder(run: Run) -> LatentModel:
    model = Autoencoder(run.data.shape, run.data.bins, latents=16, dropout=0.1)
    run.fit(model, 800)
    return model


def _vae(run: Run) -> LatentModel:
    model = VAE(run.data.shape, run.data.bins, latents=32, dropout=0.2)
    run.fit(model, 2500, warm=300)
    return model


def _bottom_up(run: Run) -> LatentModel:
    model = HVAE(run.data.shape, run.data.bins, latents=(32, 16, 8), dropout=0.2)
    run.fit(model, 1600, warm=300)
    return model


def _top_down(run: Run) -> LatentModel:
    model = HVAE(
        run.data.shape,
        run.data.bins,
        latents=(16, 16, 16),
        inference=Inference.TOP_DOWN,
        dropout=0.2,
    )
    run.fit(model, 1500, learning_rate=1e-3, warm=500)
    return model


def _diffusion(run: Run) -> LatentModel:
    """A short diffusion: most of the detail is left to a decoder of its own, which says it cheaply."""
    shape, bins = run.data.shape, run.data.bins
    entries = size(shape)
    decoder = likelihood(lambda outputs: MLP(entries, outputs, dropout=0.4), shape, bins)
    model = Diffusion(
        shape, bins, schedule=LinearLogSNR(2.0, -6.0), steps=run.latents, decoder=decoder
    )
    run.fit(model, 4000, learning_rate=3e-3)
    return model


def _latent_diffusion(run: Run) -> LatentModel:
    vae = run.trained["VAE"]
    diffusion = Diffusion(vae.prior.shape, schedule=LinearLogSNR(5.0, -6.0), steps=run.latents)
    model = LatentDiffusion(vae=vae, diffusion=diffusion).freeze(run.data.train)
    run.fit(model, 1200)
    return model


FAMILY = (
    Member("autoencoder", _autoencoder, importance=0),
    Member("VAE", _vae, importance=256),
    Member("HVAE, bottom-up", _bottom_up, importance=256),
    Member("HVAE, top-down", _top_down, importance=256),
    Member("diffusion", _diffusion, importance=0),
    Member("latent diffusion", _latent_diffusion, importance=0),
)


def train_member(member: Member, run: Run) -> LatentModel:
    """Train a member of the family, with weights that depend on the run's seed alone."""
    torch.manual_seed(run.seed)
    return member.train(run)
