"""The family: each model of the lecture with the settings it is trained with on small images.

The settings were chosen on validation data alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from genmod.data import Dataset
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference, LatentDiffusion
from genmod.schedules import LinearLogSNR
from genmod.training import fit, train

STEPS = 1000
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

    def fit(self, model: LatentModel, steps: int, learning_rate: float, decay: float) -> None:
        """Train a model for its customary number of steps, times the effort."""
        train(
            fit(
                model,
                self.data,
                steps=max(1, round(steps * self.effort)),
                learning_rate=learning_rate,
                weight_decay=decay,
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
    run.fit(model, 1500, 1e-3, 0.01)
    return model


def _vae(run: Run) -> LatentModel:
    model = VAE(run.data.shape, run.data.bins, latents=32, dropout=0.2)
    run.fit(model, 3000, 1e-3, 0.05)
    return model


def _bottom_up(run: Run) -> LatentModel:
    model = HVAE(run.data.shape, run.data.bins, latents=(32, 16, 8), dropout=0.2)
    run.fit(model, 2500, 1e-3, 0.05)
    return model


def _top_down(run: Run) -> LatentModel:
    model = HVAE(
        run.data.shape,
        run.data.bins,
        latents=(16, 16, 16),
        inference=Inference.TOP_DOWN,
        dropout=0.2,
    )
    run.fit(model, 2000, 1e-3, 0.05)
    return model


def _diffusion(run: Run) -> LatentModel:
    model = Diffusion(
        run.data.shape, run.data.bins, schedule=LinearLogSNR(4.0, -6.0), steps=STEPS, dropout=0.1
    )
    run.fit(model, 4000, 2e-3, 0.01)
    return model


def _latent_diffusion(run: Run) -> LatentModel:
    vae = run.trained["VAE"]
    diffusion = Diffusion(
        vae.prior.shape, schedule=LinearLogSNR(5.0, -6.0), steps=STEPS, dropout=0.1
    )
    model = LatentDiffusion(vae=vae, diffusion=diffusion).freeze(run.data.train)
    run.fit(model, 2000, 1e-3, 0.01)
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
