"""Small families on few digits. Builders stand at the top level, where other processes find them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from genmod.compare import Member, Plan, Setting, figures
from genmod.compare.events import Event
from genmod.compare.work import Work
from genmod.data import Dataset, digits
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


def autoencoder(setting: Setting) -> Autoencoder:
    """Nothing random but its weights."""
    return Autoencoder(setting.data.shape, setting.data.bins, latents=2, width=16)


def vae(setting: Setting) -> VAE:
    """With dropout, whose noise has to be resumed as well."""
    return VAE(setting.data.shape, setting.data.bins, latents=2, width=16, dropout=0.2)


def latent_diffusion(setting: Setting) -> LatentDiffusion:
    """Comes after the VAE."""
    diffusion = Diffusion((2,), schedule=LinearLogSNR(5.0, -6.0), steps=10, width=16)
    trained = LatentDiffusion(vae=setting.trained["VAE"], diffusion=diffusion)
    return trained.freeze(setting.data.train)


def impossible(setting: Setting) -> VAE:
    """A mistake of whoever wrote the family."""
    return VAE(setting.data.shape, setting.data.bins, latents=0)


def deadly(setting: Setting) -> VAE:
    """Takes its process with it, as the system does when memory ends."""
    os._exit(3)


PLAN = Plan(40, batch_size=16, warm=10, looks=4)
TINY = (
    Member("autoencoder", autoencoder, PLAN),
    Member("VAE", vae, PLAN, importance_samples=4, cost=2),
    Member("latent diffusion", latent_diffusion, PLAN, after=("VAE",), timesteps=4),
)
IMPOSSIBLE = Member("impossible", impossible, PLAN, cost=0.2)
DEADLY = Member("deadly", deadly, PLAN, cost=0.1)


def work(folder: Path, members: Sequence[Member] = TINY, minutes: float | None = None) -> Work:
    """The work of a small family."""
    return Work(folder, members, seed=0, effort=1.0, minutes=minutes)


def numbers(report: Report) -> dict[str, object]:
    """All that a report says, but for how long training took."""
    return replace(report, seconds=None).to_dict()


def ignore(event: Event) -> None:
    """What nobody wants to hear."""


def _no_figures(
    models: Mapping[str, LatentModel], reports: Mapping[str, Report], data: Dataset, folder: Path
) -> dict[str, Path]:
    return {}


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, which have tests of their own."""
    monkeypatch.setattr(figures, "draw_all", _no_figures)
