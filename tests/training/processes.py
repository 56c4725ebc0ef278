"""Small runs that are trained in one process or in several: ``python -m tests.training.processes FOLDER``.

Each process writes its weights and its history, so that a test can compare them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genmod.data.rows import dataset
from genmod.diffusion import LossAwareTimesteps
from genmod.files import save_tensors
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion, LatentDiffusion
from genmod.nn.modules import weights
from genmod.objectives import GECO, Bound, LearnedSchedule, Simple, WarmUp
from genmod.schedules import MonotoneNetwork
from genmod.training import fit, training_loop
from genmod.training.state import NonFiniteLoss

STEPS = 20
TINY: dict[str, Any] = {"width": 16, "depth": 1}

RUNS: dict[str, tuple[Callable[[], LatentModel], Callable[[LatentModel], dict[str, Any]]]] = {
    "vae": (lambda: VAE(4, latents=2, **TINY), lambda _: {"validate_every": 5}),
    "vae resumed": (lambda: VAE(4, latents=2, **TINY), lambda _: {"validate_every": 5}),
    "vae in parts": (
        lambda: VAE(4, latents=2, **TINY),
        lambda _: {"objective": WarmUp(10), "accumulate": 2, "batch_size": 15},
    ),
    "vae with a constraint": (
        lambda: VAE(4, latents=2, **TINY),
        lambda _: {"objective": GECO(-4.0, step_size=0.1)},
    ),
    "diffusion": (lambda: Diffusion(4, **TINY), lambda _: {"validate_every": 10}),
    "diffusion with learned timesteps": (
        lambda: Diffusion(4, steps=50, **TINY),
        lambda _: {"objective": Simple(timesteps=LossAwareTimesteps(bins=5))},
    ),
    "learned schedule": (
        lambda: Diffusion(4, schedule=MonotoneNetwork(), **TINY),
        lambda _: {"objective": LearnedSchedule()},
    ),
    "latent diffusion": (lambda: LatentDiffusion(4, latents=2, **TINY), lambda _: {}),
    "sharded vae": (
        lambda: VAE(4, latents=2, **TINY),
        lambda _: {"validate_every": 5, "shard": True},
    ),
    "sharded vae resumed": (
        lambda: VAE(4, latents=2, **TINY),
        lambda _: {"validate_every": 5, "shard": True},
    ),
    "sharded diffusion in parts": (
        lambda: Diffusion(4, **TINY),
        lambda _: {"accumulate": 2, "batch_size": 15, "clip": 10.0, "shard": True},
    ),
    "sharded learned schedule": (
        lambda: Diffusion(4, schedule=MonotoneNetwork(), **TINY),
        lambda _: {"objective": LearnedSchedule(), "shard": True},
    ),
    "sharded latent diffusion": (
        lambda: LatentDiffusion(4, latents=2, **TINY),
        lambda _: {"shard": True},
    ),
    "sharded hierarchy": (lambda: HVAE(4, levels=2, **TINY), lambda _: {"shard": True}),
    "pairs": (
        lambda: VAE(4, latents=2, **TINY),
        lambda m: {"objective": [(Bound(), m.encoder), (Bound(), m.decoder)]},
    ),
}
"""A model, and the arguments of ``fit`` beside the data."""


def rows() -> torch.Tensor:
    """The data of all runs."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(200, 4, generator=generator) @ torch.randn(4, 4, generator=generator) / 2


def train(name: str, folder: Path) -> None:
    """Train one of the runs, and write what this process has at the end."""
    rank = int(os.environ.get("RANK", "0"))
    build, given = RUNS[name]
    # Other initial weights in every process: the main one's count.
    torch.manual_seed(rank)
    model = build()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    place = folder / name.replace(" ", "-")
    settings: dict[str, Any] = {
        "batch_size": 32,
        "steps": STEPS,
        "warmup": 5,
        "checkpoint": place / "run.safetensors",
        "checkpoint_every": 5,
        "metrics": place,
        "progress": False,
        **given(model),
    }
    data = dataset(rows(), validation=0.2)
    if name.endswith("resumed"):
        for step in training_loop(model, data, **settings):
            if step.number == 12:
                break
        model = build()
    history = fit(model, data, **settings)
    save_tensors(place / f"weights-{rank}.safetensors", weights(model))
    validations = [validation.nats for validation in history.validations]
    found = {"losses": list(history.losses), "validations": validations}
    (place / f"history-{rank}.json").write_text(json.dumps(found), encoding="utf-8")


def diverge(folder: Path) -> None:
    """A batch with a loss that is not finite in the rows of one process alone."""
    x = torch.cat([torch.zeros(31, 4), torch.full((1, 4), 1e30)])
    model = VAE(4, latents=2, **TINY)
    try:
        fit(model, x, steps=3, batch_size=32, progress=False)
    except NonFiniteLoss as error:
        path = folder / f"diverged-{os.environ.get('RANK', '0')}.txt"
        path.write_text(str(error), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in sys.argv[2:] or RUNS:
        train(each, Path(sys.argv[1]))
    diverge(Path(sys.argv[1]))
