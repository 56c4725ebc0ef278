"""The figures of a comparison: samples, reconstructions, latent spaces, nats per level."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from genmod import plots, random
from genmod.data import Dataset
from genmod.evaluation import Report
from genmod.model import LatentModel
from genmod.models import VAE, Autoencoder

SHOWN = 36
"""Samples in each grid."""


def draw_all(
    models: Mapping[str, LatentModel], reports: Mapping[str, Report], data: Dataset, folder: Path
) -> dict[str, Path]:
    """Draw every figure of a comparison.

    Args:
        models: the trained family, by name.
        reports: their reports, by name.
        data: gray images, with labels.
        folder: where the figures go.

    Returns:
        The files, by title.
    """
    highest = float((data.bins or 2) - 1)
    profiles = {
        name: report.scores.levels
        for name, report in reports.items()
        if report.scores is not None and report.scores.levels is not None
    }
    made = {
        "Samples": ("samples", plots.samples(_samples(models, data), highest)),
        "Reconstructions": (
            "reconstructions",
            plots.reconstructions(
                data.test[:14], _reconstructions(models, data.test[:14]), highest
            ),
        ),
        "Latent spaces": (
            "latent_spaces",
            plots.latent_spaces(_codes(models, data), _labels(data)),
        ),
    }
    rates = _rates(reports)
    if rates:
        made["Nats per level"] = "rates", plots.level_rates(rates)
    if profiles:
        made["Nats per noise level"] = "steps", plots.step_profile(profiles)
    return {
        title: plots.save(figure, folder / f"{name}.png") for title, (name, figure) in made.items()
    }


def _samples(models: Mapping[str, LatentModel], data: Dataset) -> dict[str, Tensor]:
    """The data, then what each model samples: the decoder's mean for latents drawn from the prior."""
    pictures: dict[str, Tensor] = {"data": data.test[:SHOWN]}
    for name, model in models.items():
        with torch.no_grad(), random.keyed(0):
            if model.prior.proper:
                state = model.prior.sample(SHOWN)
                pictures[name] = model.decoder(state).mean
            else:
                noise = random.normal((SHOWN, *model.prior.shape))
                pictures[f"{name}\nfed Gaussian noise"] = model.decode(noise).mean
    return pictures


def _reconstructions(models: Mapping[str, LatentModel], x: Tensor) -> dict[str, Tensor]:
    pictures = {}
    for name, model in models.items():
        with random.keyed(0):
            pictures[name] = model.reconstruct(x)
    return pictures


def _codes(models: Mapping[str, LatentModel], data: Dataset) -> dict[str, Tensor]:
    """Codes of the training images under the two models whose latent spaces the lecture compares."""
    chosen = {n: m for n, m in models.items() if isinstance(m, Autoencoder | VAE)}
    codes = {}
    for name, model in chosen.items():
        z = model.encode(data.train)
        assert isinstance(z, Tensor)
        codes[f"{name}, {z.shape[1]} dimensions"] = z
    return codes


def _labels(data: Dataset) -> Tensor:
    return torch.zeros(len(data.train)) if data.labels is None else data.labels["train"]


def _rates(reports: Mapping[str, Report]) -> dict[str, dict[str, tuple[float, float]]]:
    """The levels of the models that have a few: a diffusion's are drawn against log-SNR."""
    return {
        name: {
            level: (term.mean, term.error)
            for level, term in report.terms.items()
            if level != "reconstruction"
        }
        for name, report in reports.items()
        if len(report.terms) > 1 and "steps" not in report.terms
    }
