r"""The probability flow's density: exact on Gaussians and mixtures, unbiased by probes, a bound on data."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from genmod import random
from genmod.decoders import GaussianDecoder, Identity
from genmod.denoisers import EmpiricalDenoiser
from genmod.diffusion import DiffusionPrior
from genmod.diffusion.probability_flow import ProbabilityFlowPrior
from genmod.elbo import Measure, Stamp
from genmod.evaluation import Report, evaluate, flow_bound, flow_density
from genmod.evaluation.flow import FlowDensity
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion, LatentDiffusion, with_steps
from genmod.models.replace import find_diffusion
from genmod.random import BLOCK
from genmod.schedules import Cosine, LinearLogSNR, Schedule
from tests.oracles import (
    F64,
    GaussianData,
    RectifiedFlow,
    VarianceExploding,
    bent,
    correlated,
    exact_diffusion,
    real,
)
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

WIDE = LinearLogSNR(6.0, -20.0)
"""So noisy an end that what is left of the data there costs less than 1e-4."""
SHORT = LinearLogSNR(6.0, -10.0)


def values(report: Report) -> Tensor:
    """The value of each row."""
    assert report.scores is not None
    return report.scores.value


def inner(model: LatentModel) -> DiffusionPrior:
    """The diffusion in a model."""
    found = find_diffusion(model)
    assert found is not None
    return found


def marginal(data: GaussianData, schedule: Schedule, t: float) -> MultivariateNormal:
    """The law of ``z_t``."""
    alpha, sigma = schedule.scales(real(t))
    spread = alpha.square() * data.covariance + sigma.square() * torch.eye(3, dtype=F64)
    return MultivariateNormal(alpha * data.mean, spread)


def carried(data: GaussianData, schedule: Schedule, z: Tensor) -> Tensor:
    """The log-density of ``z`` when N(0, I) at the noisy end is carried by the exact affine flow."""
    (alpha_0, sigma_0), (alpha_1, sigma_1) = (schedule.scales(real(t)) for t in (0.0, 1.0))
    std_0 = (alpha_0.square() * data.values + sigma_0.square()).sqrt()
    std_1 = (alpha_1.square() * data.values + sigma_1.square()).sqrt()
    scale = torch.hypot(alpha_1, sigma_1)
    along = (z - alpha_0 * data.mean) @ data.vectors
    noise = (alpha_1 * (data.mean @ data.vectors) + along * std_1 / std_0) / scale
    stretch = (std_1 / std_0 / scale).log().sum()
    return -0.5 * (noise.square() + math.log(2 * math.pi)).sum(1) + stretch


def rings(data: GaussianData) -> Tensor:
    """States from the middle of the data to far outside."""
    return data.mean + torch.linspace(-3, 3, 9, dtype=F64)[:, None] * real(1.0, -0.5, 0.7)


@pytest.mark.parametrize(
    "schedule",
    [Cosine(0.008, 6.0, -10.0), VarianceExploding(SHORT), RectifiedFlow(SHORT)],
    ids=repr,
)
def test_gaussian_data_have_the_density_of_the_affine_flow(schedule: Schedule) -> None:
    """The noisy end's own mismatch included, whatever scales the schedule has."""
    data = correlated()
    z = rings(data)
    found = flow_density(exact_diffusion(data, schedule, None), z, steps=64)
    torch.testing.assert_close(found.nats, carried(data, schedule, z), rtol=0, atol=4e-5)
    assert float(found.drift.abs().max()) < 1e-3
    assert torch.equal(found.error, torch.zeros(9, dtype=F64))


def test_with_a_noisy_end_of_pure_noise_it_is_the_density_of_z_0() -> None:
    """Gaussian data against the marginal itself."""
    data = correlated()
    z = rings(data)
    found = flow_density(exact_diffusion(data, WIDE, None), z, steps=64)
    exact = marginal(data, WIDE, 0.0).log_prob(z)
    torch.testing.assert_close(found.nats, exact, rtol=0, atol=4e-4)


def test_the_error_falls_with_the_fourth_power_of_the_step() -> None:
    """Sixteen times as steps double; ``drift`` is the error of half as many steps."""
    data = correlated()
    z = rings(data)
    exact, model = carried(data, SHORT, z), exact_diffusion(data, SHORT, None)
    found = [flow_density(model, z, steps=steps) for steps in (32, 64)]
    errors = [float((each.nats - exact).abs().max()) for each in found]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.4)
    assert float(found[1].drift.abs().max()) == pytest.approx(errors[0], rel=0.1)


@pytest.mark.parametrize("dims", [1, 2])
def test_a_mixture_has_its_density(dims: int) -> None:
    """Modes that the denoiser must choose between, in one dimension and in two."""
    points = torch.stack([real(-1.0, 1.0), real(1.5, 0.2), real(0.0, -1.2)])[:, :dims]
    points, std = points - points.mean(0), 0.3
    model = Diffusion(dims, denoiser=EmpiricalDenoiser(points, std=std), schedule=WIDE).double()
    alpha, sigma = WIDE.scales(real(0.0))
    spread = alpha.square() * std**2 + sigma.square()
    z = torch.linspace(-2, 2, 11, dtype=F64)[:, None] * torch.ones(dims) + 0.1
    square = (z[:, None] - alpha * points).square().sum(-1) / spread
    exact = (-0.5 * square).logsumexp(1) - 0.5 * dims * (2 * math.pi * spread).log() - math.log(3)
    found = flow_density(model, z, steps=96)
    torch.testing.assert_close(found.nats, exact, rtol=0, atol=4e-4)


def test_the_density_of_any_denoiser_integrates_to_one() -> None:
    """One that is neither linear nor optimal, on a grid."""
    side = torch.linspace(-6, 6, 41)
    z = torch.cartesian_prod(side, side)
    nats = flow_density(bent(None), z, steps=16).nats
    mass = nats.exp().sum() * (side[1] - side[0]).square()
    assert float(mass) == pytest.approx(1.0, abs=2e-3)


def test_probes_are_unbiased_and_their_standard_error_is_right() -> None:
    """Against the exact trace of a denoiser with a full Jacobian; z-scores of a unit's size."""
    data = correlated()
    model = exact_diffusion(data, SHORT, None)
    z = data.law.sample((300,))
    exact = flow_density(model, z, steps=8).nats
    found = flow_density(model, z, steps=8, probes=12, seed=3)
    assert_mean(found.nats - exact, 0.0)
    scores = (found.nats - exact) / found.error
    assert 0.8 < float(scores.square().mean().sqrt()) < 1.4
    assert float(found.error.min()) > 0


def test_a_density_does_not_depend_on_how_rows_are_cut_and_repeats_itself() -> None:
    """Probes are keyed by row; a seed of its own draws others."""
    model, z = bent(None), torch.randn(BLOCK + 5, 2)

    def found(rows: Tensor, seed: int) -> FlowDensity:
        return flow_density(model, rows, steps=2, probes=2, seed=seed)

    whole = found(z, 1)
    torch.testing.assert_close(found(z[:7], 1).nats, whole.nats[:7])
    assert not torch.equal(found(z, 2).nats, whole.nats)
    assert whole.evaluations == 4 * (2 + 1)
    assert "2 probes" in str(whole)


def test_samples_of_the_flow_follow_its_own_density() -> None:
    """A draw is the noise carried forward, so that its density is the noise's times the stretch.

    The way back finds the noise again.
    """
    flow = ProbabilityFlowPrior(inner(exact_diffusion(correlated(), SHORT, None)), steps=96)
    with random.keyed(4):
        noise = random.normal((50, 3), F64)
    found = flow.log_density(flow.push(noise))
    torch.testing.assert_close(found.noise, noise, rtol=0, atol=1e-5)
    with random.keyed(4):
        torch.testing.assert_close(flow.sample(50), flow.push(noise))


# ---------------------------------------------------------------------- what it says of data


def test_the_bound_of_gaussian_data_is_tight_draw_by_draw() -> None:
    """With the true ``p(x | z_0)`` the log-ratio at every draw of ``z_0`` is ``log p(x)`` itself."""
    data = correlated()
    model, x = exact_diffusion(data, WIDE, None), data.law.sample((40,))
    found = flow_bound(model, x, steps=48, importance_samples=2, seed=2)
    report = found.report
    torch.testing.assert_close(values(report), data.law.log_prob(x), rtol=0, atol=4e-4)
    assert report.importance is not None
    assert report.importance.mean == pytest.approx(report.value.mean, abs=1e-4)
    assert abs(found.drift.mean) < 1e-4
    assert list(report.terms) == ["reconstruction", "z0"]
    assert report.stamp is Stamp.ESTIMATE
    assert report.measure is Measure.DENSITY


def test_a_decoder_that_is_not_the_posterior_leaves_a_gap_that_draws_close() -> None:
    """The bound lies below the likelihood by KL(q || posterior), and importance weights above it."""
    data = correlated()
    schedule = LinearLogSNR(1.0, -20.0)
    exact = exact_diffusion(data, schedule, None)
    law = marginal(data, schedule, 0.0)
    std = 0.9
    model = LatentModel(exact.encoder, GaussianDecoder(Identity(), (3,), std), exact.prior).double()
    eye = torch.eye(3, dtype=F64)
    evidence = MultivariateNormal(law.mean, law.covariance_matrix + std**2 * eye)
    x = data.law.sample((150,))
    found = flow_bound(model, x, steps=16, importance_samples=4)
    report, truth = found.report, evidence.log_prob(x)
    assert report.importance is not None
    assert report.value.mean < report.importance.mean < float(truth.mean())
    # KL(q(z_0 | x) || p(z_0 | x)), all of it in closed form.
    alpha, sigma = schedule.scales(real(0.0))
    precision = torch.linalg.inv(law.covariance_matrix) + eye / std**2
    solved = (
        torch.linalg.solve(law.covariance_matrix, law.mean) + x / std**2
    ) @ precision.inverse()
    off = alpha * x - solved
    gap = 0.5 * (
        sigma.square() * precision.trace() - 3 - 6 * sigma.log() - torch.logdet(precision)
    ) + 0.5 * (off @ precision * off).sum(1)
    assert_mean(truth - values(report) - gap, 0.0, name="gap")


def test_integers_have_masses_that_sum_to_one() -> None:
    """Over all nine data of two entries, at draws of ``z_0``; no dequantization is left to state."""
    points = torch.stack([real(-1.0, 0.0), real(1.0, 1.0), real(0.0, -1.0)])
    denoiser = EmpiricalDenoiser(points, std=0.3)
    model = Diffusion(2, bins=3, denoiser=denoiser, schedule=LinearLogSNR(3.0, -6.0)).double()
    x, draws = torch.cartesian_prod(torch.arange(3), torch.arange(3)), 150
    report = flow_bound(model, x.repeat_interleave(draws, 0), steps=16).report
    assert report.measure is Measure.MASS
    assert report.bits_per_dim is not None
    mass = values(report).reshape(9, draws).exp().sum(0)
    assert_mean(mass, 1.0, name="mass")
    assert float(mass.std()) / math.sqrt(draws) < 0.2


def test_the_flow_replaces_the_chain_in_a_latent_diffusion() -> None:
    """The flow stands where the chain stood, and nothing else has moved."""
    model = LatentDiffusion(3, latents=2, width=8, diffusion=Diffusion(2, width=8, steps=3))
    x = torch.randn(20, 3)
    report = flow_bound(model, x, steps=8, probes=2).report
    assert set(report.terms) == {"reconstruction", "latent", "z0"}
    assert report.terms["reconstruction"] == evaluate(model, x).terms["reconstruction"]


@pytest.mark.usefixtures("as_users_run")
def test_flow_density_refuses_models_without_diffusion_and_bad_settings() -> None:
    model, x = Diffusion(2, width=8), torch.randn(4, 2)
    with pytest.raises(ValueError, match="without a diffusion"):
        flow_density(VAE(2, latents=1, width=8), x)
    with pytest.raises(ValueError, match="without a diffusion"):
        with_steps(VAE(2, latents=1, width=8), 3)
    with pytest.raises(ValueError, match="steps=7; expected an even"):
        flow_density(model, x, steps=7)
    with pytest.raises(ValueError, match="one probe has no standard error"):
        flow_density(model, x, probes=1)
    with pytest.raises(ValueError, match="too large in the mean"):
        flow_bound(model, x, probes=4, importance_samples=8)
    with pytest.raises(ValueError, match="NaN"):
        flow_density(model, x.where(x != x[0, 0], torch.nan))
    with pytest.raises(ValueError, match="z of shape"):
        flow_density(model, torch.randn(4, 3))
    with pytest.raises(ValueError, match="steps=0"):
        ProbabilityFlowPrior(inner(model), steps=0)
    with pytest.raises(ValueError, match="probes=0"):
        ProbabilityFlowPrior(inner(model), probes=0)
    with pytest.raises(ValueError, match="sample_shape"):
        next(ProbabilityFlowPrior(inner(model)).generate(3))[1].sample((2,))
