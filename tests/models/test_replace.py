"""One network at other numbers of steps: the closed forms of each, and nothing else moved."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from genmod.diffusion import DiffusionPrior, FixedLarge
from genmod.evaluation import score
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion, LatentDiffusion, with_steps
from genmod.models.replace import find_diffusion
from genmod.priors import NestedPrior
from genmod.schedules import LinearLogSNR
from tests.oracles import correlated, exact_diffusion
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


def inner(model: LatentModel) -> DiffusionPrior:
    """The diffusion in a model."""
    found = find_diffusion(model)
    assert found is not None
    return found


def steps_nats(model: LatentModel, x: Tensor) -> Tensor:
    """What all denoising steps cost each row."""
    return model.elbo(x).rates["steps"].total


def test_a_chain_of_other_steps_is_the_same_network_at_other_levels() -> None:
    """Its full sum is the closed form at that T; in continuous time, the limit."""
    data, schedule = correlated(), LinearLogSNR(4.0, -4.0)
    model = exact_diffusion(data, schedule, 6)
    for steps in (2, 17):
        other = with_steps(model, steps)
        assert inner(other).steps == steps
        found = data.mean_over_all(partial(steps_nats, other))
        assert found == pytest.approx(data.steps(schedule, steps))
    endless = with_steps(model, None)
    assert inner(endless).denoiser is inner(model).denoiser
    x = data.law.sample((1000,))
    assert_mean(
        score(endless, x, timesteps=16).rates["steps"],
        data.steps_limit(4.0, -4.0),
        name="continuous time",
    )
    torch.testing.assert_close(
        score(with_steps(endless, 6), x[:9]).value, score(model, x[:9]).value
    )


def test_the_inner_chain_of_a_latent_diffusion_is_rechained() -> None:
    """Shift and scale of the latents stay, as does every module."""
    model = LatentDiffusion(3, latents=2, width=8, diffusion=Diffusion(2, width=8, steps=3))
    model.freeze(torch.randn(50, 3))
    other = with_steps(model, 9)
    assert inner(other).steps == 9
    assert isinstance(other.prior, NestedPrior)
    assert torch.equal(other.prior.log_scale, model.nested.log_scale)
    assert torch.equal(other.prior.shift, model.nested.shift)
    same = with_steps(other, 3)
    x = torch.randn(6, 3)
    torch.testing.assert_close(score(same, x).value, score(model, x).value)


@pytest.mark.usefixtures("as_users_run")
def test_what_has_no_such_chain_is_refused() -> None:
    with pytest.raises(ValueError, match="without a diffusion"):
        with_steps(VAE(2, latents=1, width=8), 3)
    with pytest.raises(ValueError, match="FixedLarge"):
        with_steps(Diffusion(2, width=8, steps=3, variance=FixedLarge()), None)
