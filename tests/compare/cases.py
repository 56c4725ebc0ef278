"""Small suites on few digits. Builders stand at the top level, where other processes find them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from genmod.compare import Candidate, Plan, figures
from genmod.compare.candidate import BuildInputs
from genmod.compare.job import Job
from genmod.compare.progress import Event, OnEvent
from genmod.data import Dataset
from genmod.data.images import digits
from genmod.evaluation import Report
from genmod.model import LatentModel
from genmod.models import VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.schedules import LinearLogSNR


def few() -> Dataset:
    """The digits, few of them."""
    full = digits()
    assert full.labels is not None
    labels = {"train": full.labels["train"][:96], "validation": full.labels["validation"][:16]}
    return Dataset(
        "few digits",
        full.train[:96],
        full.validation[:16],
        full.test[:24],
        full.bins,
        {**labels, "test": full.labels["test"][:24]},
    )


def autoencoder(inputs: BuildInputs) -> Autoencoder:
    """Nothing random but its weights."""
    return Autoencoder(inputs.data, latents=2, width=16)


def vae(inputs: BuildInputs) -> VAE:
    """With dropout, whose noise has to be resumed as well."""
    return VAE(inputs.data, latents=2, width=16, dropout=0.2)


def latent_diffusion(inputs: BuildInputs) -> LatentDiffusion:
    """Comes after the VAE."""
    diffusion = Diffusion((2,), schedule=LinearLogSNR(5.0, -6.0), steps=10, width=16)
    trained = LatentDiffusion(vae=inputs.trained["VAE"], diffusion=diffusion)
    return trained.freeze(inputs.data.train)


def impossible(inputs: BuildInputs) -> VAE:
    """A mistake in a suite."""
    return VAE(inputs.data, latents=0)


def deadly(inputs: BuildInputs) -> VAE:
    """Takes its process with it, as the system does when memory ends."""
    os._exit(3)


PLAN = Plan(40, batch_size=16, warm=10, validations=4)
TINY = (
    Candidate("autoencoder", autoencoder, PLAN),
    Candidate("VAE", vae, PLAN, importance_samples=4, cost=2),
    Candidate("latent diffusion", latent_diffusion, PLAN, after=("VAE",), timesteps=4),
)
IMPOSSIBLE = Candidate("impossible", impossible, PLAN, cost=0.2)
DEADLY = Candidate("deadly", deadly, PLAN, cost=0.1)


def job(folder: Path, candidates: Sequence[Candidate] = TINY, minutes: float | None = None) -> Job:
    """A small job."""
    return Job(folder, candidates, seed=0, effort=1.0, minutes=minutes)


def numbers(report: Report) -> dict[str, object]:
    """All numbers of a report, except the seconds of training."""
    return replace(report, seconds=None).to_dict()


def ignore(event: Event) -> None:
    """No display."""


def _no_figures(
    models: Mapping[str, LatentModel],
    reports: Mapping[str, Report],
    data: Dataset,
    folder: Path,
    wanted: Sequence[str],
    on_event: OnEvent,
) -> tuple[dict[str, Path], list[str]]:
    return {}, []


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, which have tests of their own."""
    monkeypatch.setattr(figures, "draw_all", _no_figures)
