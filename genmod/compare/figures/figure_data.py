"""A look at a trained family: what several figures need, computed once, in few network calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genmod import plots, random
from genmod.data import Dataset
from genmod.diffusion import DiffusionPrior
from genmod.evaluation import Profile, Refinement, Report, find_diffusion, profile, refinement
from genmod.model import LatentModel
from genmod.prior import Prior
from genmod.priors import NestedPrior

SHOWN, RESTORED = 36, 14
"""Samples drawn of each model (and images reconstructed), and reconstructions shown."""
ROWS = 96
"""Test samples that a profile averages over."""


@dataclass(frozen=True, eq=False)
class FigureData:
    """The family, its reports and its data; everything on the CPU, images as ink from 0 to 1.

    Args:
        models: trained models, by name.
        reports: their reports, by name.
        data: integers; what shows images needs gray ones, ``(1, H, W)``.
        steps: the latents of a chain that is only looked at, at most.
        levels: the noise levels of a profile, at most.
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

    def ink(self, x: Tensor) -> Tensor:
        """Integer images from 0 (white) to 1 (black)."""
        return x.detach().cpu().float() / ((self.data.bins or 2) - 1)

    def shortened(self, name: str) -> LatentModel:
        """A model, its diffusion run in few steps."""
        return shortened(self.models[name], self.steps)

    @cached_property
    def samples(self) -> dict[str, Tensor]:
        """What each model that is a distribution samples: the decoder's mean, latents from the prior."""
        found = {}
        for name, model in self.models.items():
            if model.prior.proper:
                short = self.shortened(name)
                with torch.no_grad(), random.keyed(0):
                    found[name] = self.ink(short.decoder(short.prior.sample(SHOWN)).mean)
        return found

    @cached_property
    def restored(self) -> dict[str, Tensor]:
        """Reconstructions of the first test images."""
        found = {}
        for name, model in self.models.items():
            with random.keyed(0):
                found[name] = self.ink(
                    self.shortened(name).reconstruct(on(model, self.data.test[:SHOWN]))
                )
        return found

    @cached_property
    def diffusions(self) -> dict[str, LatentModel]:
        """The models with denoising steps, of the data or of a latent."""
        return {name: model for name, model in self.models.items() if _has_steps(model)}

    @cached_property
    def pixel_diffusions(self) -> dict[str, DiffusionPrior]:
        """The priors that noise the images themselves."""
        priors = {name: model.prior for name, model in self.diffusions.items()}
        return {
            name: prior
            for name, prior in priors.items()
            if isinstance(prior, DiffusionPrior) and prior.shape == self.data.shape
        }

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """The bound of each diffusion, noise level by noise level."""
        return {
            name: profile(model, self.data.test[:ROWS], self.levels)
            for name, model in self.diffusions.items()
        }

    @cached_property
    def refinements(self) -> dict[str, Refinement]:
        """The last step of each diffusion of images, from coarse to fine."""
        return {
            name: refinement(self.models[name], self.data.test[:ROWS])
            for name in self.pixel_diffusions
        }


def on(model: LatentModel, x: Tensor) -> Tensor:
    """A batch on the model's device."""
    return x.to(model.prior.anchor.device)


def _has_steps(model: LatentModel) -> bool:
    prior = find_diffusion(model)
    return prior is not None and prior.steps != 1


def shortened(model: LatentModel, steps: int) -> LatentModel:
    """The same model, its diffusion (if it has one) run with at most so many latents."""
    if find_diffusion(model) is None:
        return model
    return LatentModel(model.encoder, model.decoder, _shorter(model.prior, steps))


def _shorter(prior: Prior, steps: int) -> Prior:
    if isinstance(prior, NestedPrior):
        inner = shortened(prior.model, steps)
        return NestedPrior(inner, prior.name, prior.shift, prior.log_scale.exp())
    if isinstance(prior, DiffusionPrior) and len(prior.times()) > steps:
        variance = prior.chain.variance
        short = DiffusionPrior(prior.denoiser, prior.schedule, prior.shape, steps, variance)
        return short.to(prior.anchor)
    return prior
