"""A model computes in the type of its parameters; a schedule, which is never cast, does not set it."""

from __future__ import annotations

import pytest
import torch

from genmod.denoisers import EmpiricalDenoiser
from genmod.diffusion import DiffusionPrior
from genmod.evaluation import immse
from genmod.models import VAE, Diffusion, LatentDiffusion
from genmod.schedules import LinearBeta, LinearLogSNR, MonotoneNetwork, Schedule, Table

SCHEDULES = [LinearLogSNR, LinearBeta, MonotoneNetwork]


def diffusion(schedule: type[Schedule], bins: int | None) -> Diffusion:
    made = schedule()
    # A table of betas has a clean end for 8-bit images.
    cut = made.cut(clean=1.0) if bins and isinstance(made, Table) else made
    return Diffusion((3,), bins, schedule=cut, width=8, depth=1)


@pytest.mark.parametrize("bins", [None, 5])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_samples_and_reports_have_the_models_type(
    schedule: type[Schedule], bins: int | None, dtype: torch.dtype
) -> None:
    model = diffusion(schedule, bins).to(dtype)
    x = torch.randint(0, 5, (4, 3)) if bins else torch.randn(4, 3)
    assert model.dtype is dtype
    assert model.elbo(x, timesteps=2).value.dtype is dtype
    *_, last = model.states(2, steps=2)
    assert last.z.dtype is dtype
    assert immse(model, x, timesteps=2).value.error > 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_nested_diffusion_has_the_models_type(schedule: type[Schedule]) -> None:
    vae = VAE((3,), latents=2, width=8)
    nested = Diffusion((2,), schedule=schedule(), width=8, depth=1)
    model = LatentDiffusion(vae=vae, diffusion=nested).double()
    assert model.elbo(torch.randn(4, 3), timesteps=2).value.dtype is torch.float64
    assert model.sample(2, steps=2).dtype is torch.float64


def test_states_have_the_type_of_a_denoiser_without_parameters() -> None:
    points = torch.randn(5, 2, dtype=torch.float64)
    prior = DiffusionPrior(EmpiricalDenoiser(points), MonotoneNetwork(), (2,), steps=3)
    assert prior.sample(2).dtype is torch.float64
