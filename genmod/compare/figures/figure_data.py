"""The data of the figures: samples, reconstructions and profiles of the models, each computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genmod import plots, random
from genmod.data import Dataset
from genmod.diffusion import DiffusionPrior
from genmod.evaluation import Report, profile, refinement
from genmod.evaluation.profile import Profile, Refinement
from genmod.model import LatentModel
from genmod.models import with_steps
from genmod.models.replace import find_diffusion, has_diffusion

SHOWN, RESTORED = 36, 14
"""Samples drawn from each model (and images reconstructed), and reconstructions shown."""
ROWS = 96
"""Test samples that a profile averages over."""


@dataclass(frozen=True, eq=False)
class FigureData:
    """The models of a comparison, and what the figures show of them, on the CPU.

    Images are floats from 0 (white) to 1 (black).

    Args:
        models: the trained models, by name.
        reports: their reports, by name.
        data: integers; figures of images need gray ones, ``(1, H, W)``.
        steps: the largest number of latents of a diffusion that is sampled for a figure.
        levels: the largest number of intervals of a profile.
    """

    models: Mapping[str, LatentModel]
    reports: Mapping[str, Report]
    data: Dataset
    steps: int = 100
    levels: int = 40

    @cached_property
    def colors(self) -> dict[str, str]:
        """A color for each model, the same in every figure."""
        return plots.palette(self.models)

    @property
    def gray(self) -> bool:
        """Whether the data are gray images."""
        return len(self.data.shape) == 3 and self.data.shape[0] == 1

    def as_images(self, x: Tensor) -> Tensor:
        """Integer images as floats from 0 (white) to 1 (black)."""
        return x.detach().cpu().float() / ((self.data.bins or 2) - 1)

    def shortened(self, name: str) -> LatentModel:
        """The model with at most :attr:`steps` latents in its diffusion."""
        return shortened(self.models[name], self.steps)

    @cached_property
    def samples(self) -> dict[str, Tensor]:
        """The decoder's mean for latents drawn from the prior, for each model that has a prior."""
        found = {}
        for name, model in self.models.items():
            if model.prior.proper:
                short = self.shortened(name)
                with torch.no_grad(), random.keyed(0):
                    found[name] = self.as_images(short.decoder(short.prior.sample(SHOWN)).mean)
        return found

    @cached_property
    def restored(self) -> dict[str, Tensor]:
        """Reconstructions of the first test images."""
        found = {}
        for name, model in self.models.items():
            with random.keyed(0):
                found[name] = self.as_images(
                    self.shortened(name).reconstruct(on(model, self.data.test[:SHOWN]))
                )
        return found

    @cached_property
    def diffusions(self) -> dict[str, LatentModel]:
        """The models with a diffusion, of the data or of a latent."""
        return {name: model for name, model in self.models.items() if _has_steps(model)}

    @cached_property
    def pixel_diffusions(self) -> dict[str, DiffusionPrior]:
        """The priors of the diffusions of images (not of latents)."""
        priors = {name: model.prior for name, model in self.diffusions.items()}
        return {
            name: prior
            for name, prior in priors.items()
            if isinstance(prior, DiffusionPrior) and prior.shape == self.data.shape
        }

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """The bound of each diffusion by noise level."""
        return {
            name: profile(model, self.data.test[:ROWS], timesteps=self.levels)
            for name, model in self.diffusions.items()
        }

    @cached_property
    def refinements(self) -> dict[str, Refinement]:
        """The refinement of the decoder of each diffusion of images."""
        return {
            name: refinement(self.models[name], self.data.test[:ROWS])
            for name in self.pixel_diffusions
        }


def on(model: LatentModel, x: Tensor) -> Tensor:
    """Move a batch to the model's device."""
    return x.to(model.device)


def _has_steps(model: LatentModel) -> bool:
    return has_diffusion(model) and find_diffusion(model).steps != 1


def shortened(model: LatentModel, steps: int) -> LatentModel:
    """The model with at most ``steps`` latents in its diffusion, if it has one."""
    if not has_diffusion(model) or len(find_diffusion(model).times()) <= steps:
        return model
    return with_steps(model, steps)
