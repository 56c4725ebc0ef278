r"""Reverse variances: the nats of each step, and the limits of the learned one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

from genmod.denoisers import Denoised, Denoiser, EmpiricalDenoiser, Learned, calibrate
from genmod.denoisers.base import denoise
from genmod.denoisers.calibrated import Calibrated
from genmod.diffusion import (
    Analytic,
    DiffusionPrior,
    FixedLarge,
    FixedSmall,
    LearnedInterpolation,
    NoisingEncoder,
)
from genmod.diffusion.variances import ReverseVariance
from genmod.elbo import Rate
from genmod.model import LatentModel
from genmod.models import Diffusion
from genmod.nn import ConvNets
from genmod.schedules import Cosine, LinearLogSNR, Schedule
from tests.oracles import (
    F64,
    MILD,
    Bent,
    ExactDecoder,
    GaussianData,
    RectifiedFlow,
    VarianceExploding,
    constant_noise,
    correlated,
    over_signs,
    real,
)
from tests.statistics import assert_equal_means

VARIANCES: list[ReverseVariance] = [
    FixedSmall(),
    FixedLarge(),
    LearnedInterpolation(),
    Analytic(),
]
SCHEDULE = LinearLogSNR(6.0, -6.0)
AXES = GaussianData(real(0.5, -1.0, 0.2), torch.diag(real(0.1, 1.0, 4.0)))
"""Gaussian data without correlation: what a variance for each entry can be exact for."""


class Opinionated(Denoiser):
    """Neither linear nor optimal, and of an opinion on every entry's variance."""

    def __init__(self, place: float | None = None) -> None:
        super().__init__()
        self.inner, self.place = Bent(), place

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """Places beyond 0 and 1 too, unless one is given for all."""
        x_hat = self.inner(z, log_snr).x_hat
        place = 0.5 + torch.sin(3 * z) if self.place is None else torch.full_like(z, self.place)
        return Denoised(x_hat, torch.cos(z).square(), place)


def steps_rate(prior: DiffusionPrior, x: Tensor, draws: int | None = None) -> Rate:
    """The rate of the denoising steps."""
    return prior.rates(NoisingEncoder(prior.schedule)(x), draws)[1]["steps"]


# ---------------------------------------------------------------------- any variance


@settings(max_examples=30)
@given(
    x=st.floats(-5, 5),
    noise=st.floats(-3, 3),
    steps=st.integers(2, 30),
    clean=st.floats(1, 10),
    noisy=st.floats(-8, 0),
    variance=st.sampled_from(VARIANCES),
    kind=st.sampled_from([lambda s: s, VarianceExploding, RectifiedFlow]),
)
def test_every_step_costs_the_gaussian_kl_of_its_law(
    x: float,
    noise: float,
    steps: int,
    clean: float,
    noisy: float,
    variance: ReverseVariance,
    kind: type[VarianceExploding],
) -> None:
    """Entry by entry, against torch's KL of ``q(z_s | z_t, x)`` and the law that samples are drawn from."""
    schedule = kind(LinearLogSNR(clean, noisy))
    prior = DiffusionPrior(Opinionated(), schedule, (2,), steps, variance).double()
    data, eps = real(x, 0.5)[None], real(noise, -0.2)
    with constant_noise(eps):
        rate = steps_rate(prior, data)
    times = prior.times()
    s, t = times[:-1], times[1:]
    each = NoisingEncoder(schedule)(data.expand(steps - 1, 2))
    z_t = each.at(t).mean + each.at(t).stddev * eps
    exact, law = each.given(s, t, z_t), prior.reverse.law(z_t, t, s)
    generic = kl_divergence(
        TorchNormal(exact.mean, exact.stddev), TorchNormal(law.mean, law.stddev)
    ).sum(1)
    torch.testing.assert_close(rate.nats[0], generic, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("place", "fixed"), [(0.0, FixedSmall()), (1.0, FixedLarge())], ids=repr)
def test_the_ends_of_the_interpolation_are_the_fixed_variances(
    place: float, fixed: ReverseVariance
) -> None:
    """In the nats of a step and in its law (Improved DDPM, eq. 15)."""
    x, eps = real(0.3, -1.0)[None], real(0.4, -0.7)
    priors = [
        DiffusionPrior(Opinionated(place), MILD, (2,), 6, variance).double()
        for variance in (LearnedInterpolation(), fixed)
    ]
    with constant_noise(eps):
        learned, other = (steps_rate(prior, x).nats for prior in priors)
    torch.testing.assert_close(learned, other, rtol=1e-12, atol=1e-14)
    laws = [prior.reverse.law(x, real(0.6), real(0.4)) for prior in priors]
    torch.testing.assert_close(laws[0].mean, laws[1].mean, rtol=0, atol=0)
    torch.testing.assert_close(laws[0].stddev, laws[1].stddev, rtol=1e-14, atol=0)


@pytest.mark.parametrize("variance", VARIANCES[2:], ids=repr)
def test_the_closed_bound_has_the_mean_of_the_sampled_one(variance: ReverseVariance) -> None:
    """Both routes to the bound know the variance."""
    torch.manual_seed(0)
    prior = DiffusionPrior(Opinionated(), MILD, (2,), 4, variance)
    model = LatentModel(
        NoisingEncoder(MILD), ExactDecoder(correlated(dims=2), MILD), prior
    ).double()
    x = real(0.4, -0.6).expand(4000, 2)
    with torch.no_grad():
        assert_equal_means(model.elbo(x).value, model.log_weight(x))


@pytest.mark.parametrize("schedule", [LinearLogSNR(), LinearLogSNR(30.0, -30.0), Cosine()])
@pytest.mark.parametrize("variance", VARIANCES, ids=repr)
@pytest.mark.parametrize("steps", [2, 1000, 1_000_001])
def test_nothing_is_nan_in_float32(
    schedule: Schedule, variance: ReverseVariance, steps: int
) -> None:
    """First and last steps, one step for all noise and a millionth of it: finite, as are gradients."""
    prior = DiffusionPrior(Opinionated(), schedule, (2,), steps, variance).float()
    x = torch.tensor([[0.3, -1.0], [0.0, 0.0]])
    for row, place in ((x, 0), (x, steps - 2)):
        s, t = (torch.full((2,), (place + i) / (steps - 1), dtype=F64) for i in (0, 1))
        law = prior.reverse.law(row.clone().requires_grad_(), t, s)
        law.log_prob(row).sum().backward()
        assert bool(law.mean.isfinite().all())
        assert bool((law.stddev > 0).all())
        assert bool(law.stddev.isfinite().all())
    rate = steps_rate(prior, x, draws=4)
    rate.total.sum().backward()
    assert bool(rate.nats.isfinite().all())
    assert bool((rate.nats >= 0).all())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in prior.parameters())


def test_data_known_in_advance_leave_the_posteriors_variance() -> None:
    """One point: nothing is unknown, nothing is added, and a table of no error has no NaN."""
    denoiser = EmpiricalDenoiser(real(0.7, -0.2)[None])
    x = real(0.7, -0.2).expand(5, 2)
    for known in (denoiser, calibrate(denoiser, MILD, x, levels=4)):
        prior = DiffusionPrior(known, MILD, (2,), 4, Analytic()).double()
        rate = steps_rate(prior, x)
        torch.testing.assert_close(rate.nats, torch.zeros(5, 3, dtype=F64), rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- the learned one


class Constant(Denoiser):
    """The optimal mean of :data:`AXES`, and one learned place for each entry."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.place = AXES.denoiser(), nn.Parameter(torch.zeros(3, dtype=F64))

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """The mean and the places."""
        return self.inner(z, log_snr)._replace(interpolation=self.place.expand_as(z))


def test_the_bound_teaches_the_variance_the_optimum() -> None:
    """One step: the gradient of the (exact) mean bound vanishes at the analytic place, and only there."""
    denoiser = Constant()
    prior = DiffusionPrior(denoiser, SCHEDULE, (3,), 2, LearnedInterpolation())
    bridge = SCHEDULE.bridge(real(0.0), real(1.0))
    said = denoise(denoiser, AXES.mean[None], SCHEDULE.at(real(1.0)))
    optimum = Analytic().log_std_ratio(bridge, said)[0] / bridge.log_sigma_ratio

    def gradient(place: Tensor) -> Tensor:
        denoiser.place.data = place.clone()
        points = AXES.axis_points()
        mean = over_signs(AXES.vectors.sum(1), lambda: steps_rate(prior, points).total).mean()
        return torch.autograd.grad(mean, denoiser.place)[0]

    torch.testing.assert_close(gradient(optimum), torch.zeros(3, dtype=F64), rtol=0, atol=1e-9)
    assert bool((gradient(optimum + 0.01) > 1e-3).all())
    assert bool((gradient(optimum - 0.01) < -1e-3).all())


@pytest.mark.parametrize(
    ("shape", "networks"),
    [((3,), None), ((1, 8, 8), None), ((2, 8, 8), ConvNets(width=16))],
)
def test_one_line_builds_a_network_of_twice_the_outputs(
    shape: tuple[int, ...], networks: ConvNets | None
) -> None:
    """A new one starts half-way between the fixed variances; it trains, reports and samples."""
    model = Diffusion(shape, bins=17, steps=6, variance=LearnedInterpolation(), networks=networks)
    assert isinstance(model.prior, DiffusionPrior)
    x = torch.randint(0, 17, (3, *shape))
    said = model.prior.denoiser(torch.randn(3, *shape), torch.zeros(3))
    assert said.interpolation is not None
    assert said.x_hat.shape == said.interpolation.shape == (3, *shape)
    assert bool((said.interpolation == 0.5).all())
    (-model.elbo(x, timesteps=2).value.mean()).backward()
    grads = [p.grad for p in model.prior.denoiser.parameters()]
    assert all(g is None or bool(g.isfinite().all()) for g in grads)
    assert model.sample(2).shape == (2, *shape)
    assert model.elbo(x).value.shape == model.log_weight(x).shape == (3,)
    assert "variance LearnedInterpolation(), T = 6" in model.prior.formula()


class Same(nn.Module):
    """A network that gives as many numbers as it takes."""

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """The state."""
        return z


def test_what_cannot_be_is_refused() -> None:
    """A variance that no network predicts, a network of the wrong size, continuous time, a broken table."""
    x = real(0.3, -1.0)[None]
    for variance, way_out in (
        (LearnedInterpolation(), "interpolation=True"),
        (Analytic(), "denoisers.calibrate"),
    ):
        with pytest.raises(ValueError, match=way_out):
            steps_rate(DiffusionPrior(Bent(), MILD, (2,), 3, variance).double(), x)
        with pytest.raises(ValueError, match="in continuous time"):
            DiffusionPrior(Bent(), MILD, (2,), None, variance)
    narrow = Diffusion(2, denoiser=Learned(Same(), interpolation=True), steps=3)
    narrow_net = Diffusion(2, denoiser=Same(), steps=3, variance=LearnedInterpolation())
    for model in (narrow, narrow_net):
        with pytest.raises(ValueError, match=r"got 2 outputs a row .* expected 4"):
            model.elbo(x.float())
    with pytest.raises(ValueError, match="that do not rise"):
        Calibrated(Bent(), real(1.0, 0.0), real(0.5, 0.5))
    with pytest.raises(ValueError, match="below 0 or broken"):
        Calibrated(Bent(), real(0.0, 1.0), real(0.5, float("nan")))
    with pytest.raises(ValueError, match="levels=1"):
        calibrate(Bent(), MILD, x, levels=1)
