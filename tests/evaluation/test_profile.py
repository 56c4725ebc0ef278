r"""Profiles: nats of each noise level are the closed form, and their sum is the bound."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod.evaluation import profile
from genmod.evaluation.scoring import score
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion, LatentDiffusion
from genmod.models.replace import find_diffusion, has_diffusion
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR, Schedule
from tests.oracles import (
    MILD,
    GaussianData,
    bent,
    constant_noise,
    correlated,
    exact_diffusion,
    real,
    standard_diffusion,
)
from tests.statistics import MAX_Z, assert_equal_means

pytestmark = pytest.mark.usefixtures("float64")

SCHEDULES: dict[str, Schedule] = {
    "linear log-SNR": LinearLogSNR(4.0, -4.0),
    "cosine": Cosine(0.0, 4.0, -4.0),
    "linear beta": LinearBeta(50),
}


def gaussian_nats(data: GaussianData, log_snr: Tensor) -> Tensor:
    r""":math:`\tfrac12 \sum_i \log\frac{1 + v_a l_i}{1 + v_b l_i}` between each end and the next."""
    whole = torch.log1p(log_snr.exp()[:, None] * data.values).sum(1)
    return 0.5 * (whole[:-1] - whole[1:])


def gaussian_square(data: GaussianData, log_snr: Tensor) -> Tensor:
    r"""The mean of :math:`\sum_i l_i / (1 + e^\lambda l_i)` over each interval of log-SNR.

    Its integral is :math:`l \lambda - l \log(1 + e^\lambda l)`.
    """
    level = log_snr[:, None]
    whole = (data.values * (level - torch.log1p(level.exp() * data.values))).sum(1)
    return (whole[:-1] - whole[1:]) / (log_snr[:-1] - log_snr[1:])


# ---------------------------------------------------------------------- against closed forms


@pytest.mark.parametrize("name", SCHEDULES)
def test_in_continuous_time_an_interval_costs_the_closed_form_whatever_the_schedule(
    name: str,
) -> None:
    """Gaussian data under the optimal denoiser; the standard error is right, too."""
    data = correlated()
    x = data.law.sample((4000,))
    found = profile(exact_diffusion(data, SCHEDULES[name], None), x, timesteps=10, seed=3)
    expected = gaussian_nats(data, found.log_snr)
    z = (found.nats - expected) / found.error
    assert float(z.abs().max()) < MAX_Z
    # The z-scores of ten intervals: not much smaller than one, or the error would be idle talk.
    assert 0.2 < float(z.square().mean().sqrt()) < 2
    density = expected / (found.log_snr[:-1] - found.log_snr[1:])
    assert ((found.density - density).abs() < MAX_Z * found.density_error).all()


def test_the_error_of_a_denoiser_is_its_mean_square_over_the_interval() -> None:
    """Its closed form where log-SNR is linear in time, so that levels are visited evenly in it."""
    data = correlated()
    x = data.law.sample((4000,))
    found = profile(exact_diffusion(data, MILD, None), x, timesteps=8)
    square = gaussian_square(data, found.log_snr) / 3
    torch.testing.assert_close(found.rmse.square(), square, rtol=0.06, atol=0)
    # Between the spread of the data where all is noise, and that of the noise where little is.
    assert (found.rmse.diff() > 0).all()
    assert found.rmse[-1] < math.sqrt(float(data.values.mean()))
    assert found.rmse[0] < float((-0.5 * MILD.log_snr(real(0.125))).exp())


def test_all_nats_are_the_entropy_plus_the_mismatch_at_the_noisy_end() -> None:
    """With the exact decoder, in continuous time, nothing else is lost."""
    data = correlated()
    model = exact_diffusion(data, MILD, None)
    totals = []
    for seed in range(30):
        found = profile(model, data.law.sample((64,)), timesteps=8, seed=seed)
        totals.append(found.rate[0] + found.remaining[0])
    mean, error = torch.stack(totals).mean(), torch.stack(totals).std() / math.sqrt(30)
    expected = float(data.law.entropy()) + data.mismatch(MILD)
    assert abs(float(mean) - expected) < MAX_Z * float(error)


# ---------------------------------------------------------------------- against the bound itself


def latent_model() -> LatentModel:
    """A diffusion of five latents over the code of a VAE, with weights that are not zero."""
    model = LatentDiffusion(3, latents=2, width=8, diffusion=Diffusion(2, width=8, steps=5))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


MODELS: dict[str, tuple[Callable[[], LatentModel], Tensor]] = {
    "any denoiser": (lambda: bent(9), real(0.7, -1.3)),
    "another variance": (lambda: standard_diffusion(2, MILD, 6), real(0.7, -1.3)),
    "two latents": (lambda: bent(2), real(0.7, -1.3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_with_a_level_for_each_step_it_is_the_score_step_by_step(name: str) -> None:
    """On one noise for all: each step once, in the order of time, whole and unweighted."""
    build, noise = MODELS[name]
    model, x = build(), torch.randn(53, 2)
    with constant_noise(noise):
        found, scores = profile(model, x, timesteps=64), score(model, x)
    assert scores.levels is not None
    t, log_snr, nats = scores.levels
    torch.testing.assert_close(found.t[1:], t)
    torch.testing.assert_close(found.log_snr[1:], log_snr)
    torch.testing.assert_close(found.nats, nats, rtol=1e-10, atol=1e-12)
    assert found.prior == pytest.approx(float(scores.rates["prior"].mean()), rel=1e-10)
    assert found.decoder == pytest.approx(-float(scores.reconstruction.mean()), rel=1e-10)
    whole = found.rate + found.remaining
    torch.testing.assert_close(whole, -scores.value.mean().expand_as(whole), rtol=1e-10, atol=0)


def test_cumulated_nats_grow_by_each_steps_nats() -> None:
    """From noise to data; what is left at the clean end is the decoder's."""
    found = profile(bent(7), torch.randn(20, 2))
    assert found.rate[-1] == found.prior
    assert found.remaining[0] == found.decoder
    torch.testing.assert_close(-found.rate.diff(), found.nats)
    torch.testing.assert_close(found.remaining.diff(), found.nats)
    bits = found.bits_per_dim(torch.tensor(2 * math.log(2)))
    assert float(bits) == pytest.approx(1.0)


def test_fewer_levels_than_steps_add_up_to_the_same_mean() -> None:
    """Forty-one latents in seven intervals that cut steps in two."""
    model, x = bent(41), torch.randn(24, 2)
    few = [profile(model, x, timesteps=7, seed=seed) for seed in range(24)]
    totals = torch.stack([found.nats.sum() for found in few])
    full = torch.stack([score(model, x, seed=s).rates["steps"].mean() for s in range(24)])
    assert_equal_means(totals, full, name="steps")
    every = profile(model, x, timesteps=40)
    ends = every.log_snr[0], every.log_snr[-1]
    assert (few[0].log_snr[0], few[0].log_snr[-1]) == ends
    assert (few[0].log_snr.diff() < 0).all()


def test_a_nested_diffusion_is_profiled_inside_its_model() -> None:
    """Its latents are noised; ``left`` also holds the rate of the latent itself."""
    model, x = latent_model(), torch.randn(20, 3)
    with constant_noise(real(0.4)):
        found, scores = profile(model, x), score(model, x)
    assert len(found.nats) == 4
    assert found.dims == 3
    left = scores.rates["latent"] - scores.reconstruction
    assert found.decoder == pytest.approx(float(left.mean()), rel=1e-10)
    torch.testing.assert_close(found.nats.sum(), scores.rates["steps"].mean(), rtol=1e-10, atol=0)
    prior = find_diffusion(model)
    assert prior is not None
    assert prior.shape == (2,)


# ---------------------------------------------------------------------- noise, errors, refusals


def test_noise_is_keyed_by_the_seed_and_differs_from_row_to_row() -> None:
    """Equal rows cost differently, in one block and in the next; one sample has no standard error."""
    model, rows = bent(None), 256
    x = torch.ones(2 * rows, 2)

    def nats(seed: int, x: Tensor) -> Tensor:
        return profile(model, x, timesteps=4, seed=seed).nats

    assert torch.equal(nats(1, x), nats(1, x))
    assert not torch.equal(nats(1, x), nats(2, x))
    assert not torch.equal(nats(1, x), nats(1, x[:rows]))
    assert (profile(model, x[:rows], timesteps=4).error > 0).all()
    assert profile(model, x[:1], timesteps=4).error.isnan().all()


@pytest.mark.usefixtures("as_users_run")
def test_models_without_steps_are_refused() -> None:
    """A VAE, a hierarchy, a diffusion of one latent; no levels; no data."""
    x = torch.randn(4, 3)
    for model in (VAE(3, width=8), HVAE(3, latents=(2, 1), width=8), Diffusion(3, steps=1)):
        with pytest.raises(ValueError, match="without denoising steps"):
            profile(model, x)
    assert not has_diffusion(VAE(3, width=8))
    with pytest.raises(ValueError, match="timesteps=0"):
        profile(Diffusion(3, width=8), x, timesteps=0)
    with pytest.raises(ValueError, match="without a row"):
        profile(Diffusion(3, width=8), x[:0])
