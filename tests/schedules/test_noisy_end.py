"""A schedule that ends in noise alone: finite everywhere, and refused where data cannot be read."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genmod.denoisers import (
    DataTarget,
    GaussianDenoiser,
    Learned,
    NoiseTarget,
    ScoreTarget,
    Target,
    VelocityTarget,
)
from genmod.denoisers.targets import scales_of
from genmod.diffusion import DiffusionPrior, FixedLarge, FixedSmall
from genmod.diffusion.variances import ReverseVariance
from genmod.models import Diffusion
from genmod.nn import DenoisingMLP
from genmod.samplers import Ancestral, Heun
from genmod.schedules import (
    CosineBeta,
    LinearBeta,
    LinearLogSNR,
    RectifiedFlow,
    ScaledLinearBeta,
    Schedule,
    VarianceExploding,
    ZeroTerminalSNR,
)
from tests.oracles import F64, over_signs, real, standard, standard_diffusion

ENDS: list[Schedule] = [
    ZeroTerminalSNR(LinearBeta(40, 1e-3, 0.2)),
    ZeroTerminalSNR(ScaledLinearBeta(1000)),
    ZeroTerminalSNR(CosineBeta(1000)),
    VarianceExploding(ZeroTerminalSNR(LinearBeta(1000))),
    RectifiedFlow(LinearLogSNR(13.3, -40.0)),
]
every_end = pytest.mark.parametrize("schedule", ENDS, ids=lambda s: type(s).__name__)
safe = pytest.mark.parametrize("target", [VelocityTarget(), DataTarget()], ids=repr)


def model(target: Target, schedule: Schedule, variance: ReverseVariance | None = None) -> Diffusion:
    """A network of two dimensions without zero weights."""
    torch.manual_seed(3)
    network = DenoisingMLP((2,), width=16)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    denoiser = Learned(network, target)
    return Diffusion(2, denoiser=denoiser, schedule=schedule, steps=12, variance=variance)


def finite(*tensors: Tensor) -> bool:
    """Whether every number is."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@every_end
@safe
@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()], ids=repr)
def test_the_bound_and_its_gradient_are_finite(
    schedule: Schedule, target: Target, variance: ReverseVariance
) -> None:
    """In float32, every level visited, and in the sampled form as well."""
    diffusion = model(target, schedule, variance)
    x = torch.randn(8, 2)
    elbo = diffusion.elbo(x)
    assert finite(elbo.value, *(rate.nats for rate in elbo.rates.values()))
    assert finite(diffusion.log_weight(x))
    elbo.value.mean().backward()
    gradients = [p.grad for p in diffusion.parameters() if p.grad is not None]
    assert len(gradients) > 2
    assert finite(*gradients)


@every_end
@safe
def test_every_reverse_step_is_finite(schedule: Schedule, target: Target) -> None:
    """From the noisiest latent to the cleanest, by the chain and by the probability flow, and back."""
    diffusion = model(target, schedule)
    prior = diffusion.prior
    assert isinstance(prior, DiffusionPrior)
    times = prior.times().flip(0)
    with torch.no_grad():
        q = diffusion.encoder(torch.randn(8, 2))
        z = q.at(times[:1].expand(8)).sample()
        chain = Ancestral(prior.denoiser, schedule, prior.variance)
        states = [*chain.path(z, times)]
        flow = Heun(prior.denoiser, schedule)
        there = [*flow.path(z, times)]
        back = [*flow.path(there[-1], times.flip(0))]
    assert finite(*states, *there, *back)
    assert finite(diffusion.sample(8))


def test_float64_bounds_meet_their_closed_form_down_to_the_floor() -> None:
    """For the optimal denoiser of N(0, I) with the forward variance, the bound is ``log p`` exactly.

    The steps into and out of the floor have the closed form, too.
    """
    x = torch.linspace(-3, 3, 7, dtype=F64)[:, None] + real(0.0, 0.3)
    diffusion = standard_diffusion(2, ZeroTerminalSNR(LinearBeta(1000)), 1000)
    value = over_signs(torch.ones(2, dtype=F64), lambda: diffusion.elbo(x).value)
    torch.testing.assert_close(value, standard(2).law.log_prob(x), rtol=0, atol=1e-8)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("target", [NoiseTarget(), ScoreTarget()], ids=repr)
@every_end
def test_targets_that_divide_by_alpha_are_refused(schedule: Schedule, target: Target) -> None:
    with pytest.raises(
        ValueError, match=r"ends at log-SNR -40; .* predict VelocityTarget\(\) or Data"
    ):
        model(target, schedule)


def test_the_limit_is_refused_below_and_accepted_at_minus_twenty() -> None:
    """An end of -20 is read, one below is not; a denoiser that is no network reads any."""
    assert model(NoiseTarget(), LinearLogSNR(9.0, -20.0)).prior.steps == 12
    with pytest.raises(ValueError, match="an end of -20 or above"):
        model(NoiseTarget(), LinearLogSNR(9.0, -20.1))
    GaussianDenoiser(torch.zeros(2), torch.eye(2)).check(ZeroTerminalSNR(LinearBeta(10)))


@pytest.mark.parametrize(
    "target", [NoiseTarget(), ScoreTarget(), VelocityTarget(), DataTarget()], ids=repr
)
def test_the_limit_is_where_float32_cannot_recover_the_data(target: Target) -> None:
    """Data written as a float32 output and read back: to a hundredth at the limit; at -40 all wrong

    for what divides by alpha, and still right for what does not.
    """
    torch.manual_seed(0)
    x, eps = torch.randn(2, 1000, 1, dtype=F64)

    def miss(level: float) -> float:
        alpha, sigma = scales_of(torch.full((1000,), level, dtype=F64), x)
        z = alpha * x + sigma * eps
        said = target.output(x, z, alpha, sigma).float()
        read = target.x_hat(said, z.float(), alpha.float(), sigma.float())
        return float((read.double() - x).abs().max())

    assert miss(max(target.noisiest, -20.0)) < 1e-2
    assert (miss(-40.0) > 1) == math.isfinite(target.noisiest)
