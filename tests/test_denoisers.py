r"""Denoisers: posterior means in closed form, and networks read through their target."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from genmod.denoisers import (
    DataTarget,
    EmpiricalDenoiser,
    GaussianDenoiser,
    Learned,
    NoiseTarget,
    ScoreTarget,
    Target,
    VelocityTarget,
)
from genmod.denoisers.base import denoise
from genmod.diffusion import FixedSmall, NoisingEncoder
from genmod.diffusion.reverse import ReverseProcess
from genmod.schedules import LinearLogSNR
from tests.oracles import F64, RectifiedFlow, VarianceExploding, condition, correlated, real
from tests.statistics import assert_mean

TARGETS: list[Target] = [NoiseTarget(), DataTarget(), VelocityTarget(), ScoreTarget()]
POINTS = real(-1.5, -0.2, 0.1, 2.0)[:, None]
SCHEDULE = LinearLogSNR(8.0, -8.0)

log_snrs = st.floats(-10, 14)


def scales(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha and sigma, variance preserving, as columns."""
    return log_snr.sigmoid().sqrt()[:, None], (-log_snr).sigmoid().sqrt()[:, None]


def test_the_gaussian_denoiser_conditions_the_joint_gaussian() -> None:
    """``E[x | z]`` from the joint covariance of ``(x, z)``, solved in NumPy."""
    data, z = correlated(), real(0.7, -1.1, 2.0)
    for log_snr in (-6.0, -1.0, 0.5, 9.0):
        alpha, sigma = (float(v) for v in scales(real(log_snr)))
        mean, covariance = data.mean.numpy(), data.covariance.numpy()
        seen = alpha**2 * covariance + sigma**2 * np.eye(3)
        joint = np.block([[covariance, alpha * covariance], [alpha * covariance, seen]])
        both = np.concatenate([mean, alpha * mean])
        expected, _ = condition(both, joint, z.numpy(), 3)
        found = data.denoiser()(z[None], real(log_snr)).x_hat[0]
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


def test_the_gaussian_denoiser_has_the_closed_error() -> None:
    """``E|x - x_hat|^2 = sum l / (1 + v l)``, over draws."""
    torch.manual_seed(0)
    data = correlated()
    log_snr = torch.full((20_000,), 0.3, dtype=F64)
    x, (alpha, sigma) = data.law.sample((20_000,)), scales(log_snr)
    z = alpha * x + sigma * torch.randn_like(x)
    errors = (x - data.denoiser()(z, log_snr).x_hat).square().sum(1)
    assert_mean(errors, float(data.mmse(log_snr[:1])))


@settings(max_examples=60, deadline=None)
@given(log_snr=log_snrs, z=st.floats(-4, 4), std=st.sampled_from([0.0, 0.3, 2.0]))
def test_the_empirical_denoiser_is_the_brute_force_mean(
    log_snr: float, z: float, std: float
) -> None:
    """The mean and variance of ``x`` given ``z``: component by component, one point after another."""
    log_weights = real(0.0, -1.0, 0.4, -0.3)
    alpha, sigma = (float(v) for v in scales(real(log_snr)))
    spread = alpha**2 * std**2 + sigma**2
    logits = [
        float(w) - 0.5 * (z - alpha * float(x)) ** 2 / spread
        for w, x in zip(log_weights, POINTS, strict=True)
    ]
    weights = np.exp(np.array(logits) - max(logits))
    weights /= weights.sum()
    means = np.array([float(x) + alpha * std**2 / spread * (z - alpha * float(x)) for x in POINTS])
    mean = weights @ means
    variance = weights @ (means - mean) ** 2 + std**2 * sigma**2 / spread
    found = EmpiricalDenoiser(POINTS, log_weights, std)(real(z)[None], real(log_snr))
    assert found.variance is not None
    assert found.x_hat.item() == pytest.approx(mean, rel=1e-9, abs=1e-12)
    assert found.variance.item() == pytest.approx(variance, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("std", [0.0, 0.5])
@pytest.mark.parametrize("far", [0.0, 3e3])
def test_points_in_clusters_far_apart_keep_their_distances_in_float32(
    far: float, std: float
) -> None:
    """Against differences in float64: squares of numbers around 3000 have no digits for ones around 1.

    Made to fail by computing in the type of the points: an error of about 1 in ``x_hat``.
    """
    near = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    points = torch.cat([near + far, near.flip(0) - far])
    log_snr = torch.tensor([-1.0, 0.0, 2.0, 5.0]).repeat_interleave(10)
    alpha, sigma = scales(log_snr.double())
    z = (alpha * points.double() + sigma * torch.randn(40, 5, dtype=F64)).float()
    x = points.double()
    spread = (alpha * std) ** 2 + sigma**2
    square = (z.double()[:, None] - alpha[:, :, None] * x).square().sum(-1)
    weights = (-0.5 * square / spread).softmax(1)
    shrink = alpha * std**2 / spread
    means = x + shrink[..., None] * (z.double()[:, None] - alpha[..., None] * x)
    mean = (weights[..., None] * means).sum(1)
    variance = (weights[..., None] * (means - mean[:, None]).square()).sum(1)
    variance = variance + std**2 * sigma**2 / spread
    found = EmpiricalDenoiser(points, std=std)(z, log_snr)
    assert found.variance is not None
    assert found.x_hat.dtype == found.variance.dtype == torch.float32
    torch.testing.assert_close(found.x_hat.double(), mean, rtol=3e-7, atol=3e-6)
    torch.testing.assert_close(found.variance.double(), variance, rtol=1e-4, atol=1e-5)


def test_one_point_and_a_spread_is_a_gaussian() -> None:
    """``N(mean, s^2 I)`` two ways."""
    mean, z, log_snr = real(0.5, -2.0), real(1.0, 1.0, 0.3, -2.0).reshape(2, 2), real(-1.0, 3.0)
    one = EmpiricalDenoiser(mean[None], std=0.7)(z, log_snr)
    other = GaussianDenoiser(mean, 0.49 * torch.eye(2, dtype=F64))(z, log_snr)
    torch.testing.assert_close(one.x_hat, other.x_hat)


def test_the_true_reverse_step_is_a_mixture_over_the_data_set() -> None:
    r"""``q(z_s | z_t)`` from ``q(z_t | z_s)`` and ``q(z_s)`` by Bayes, a sum over all data, is

    :math:`\sum_n q(x_n | z_t)\, q(z_s | z_t, x_n)`: the lecture's ``q(x_{t-1} | x_t)``, for which
    "you need to use the entire dataset". Its mean is the step towards the empirical ``x_hat``, and
    its variance is the posterior's plus what the data leave open.
    """
    s, t, z_t = real(0.4), real(0.6), real(0.35)
    near, far = SCHEDULE.at(s), SCHEDULE.at(t)
    normal = torch.distributions.Normal
    grid = torch.linspace(-6, 6, 4001, dtype=F64)[:, None]
    log_n = math.log(len(POINTS))

    def marginal(z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return normal(alpha * POINTS.T, sigma).log_prob(z).logsumexp(1) - log_n

    step = far.alpha / near.alpha
    noise = (far.sigma.square() - (step * near.sigma).square()).sqrt()
    bayes = normal(step * grid[:, 0], noise).log_prob(z_t) + marginal(grid, near.alpha, near.sigma)
    bayes = bayes - marginal(z_t[:, None], far.alpha, far.sigma)

    given_each = NoisingEncoder(SCHEDULE)(POINTS).given(s.expand(4), t.expand(4), z_t.expand(4, 1))
    weights = normal(far.alpha * POINTS[:, 0], far.sigma).log_prob(z_t).log_softmax(0)
    each = normal(given_each.mean.T, given_each.stddev.T).log_prob(grid)
    mixture = (each + weights).logsumexp(1)
    torch.testing.assert_close(mixture.exp(), bayes.exp(), rtol=1e-9, atol=1e-12)

    denoiser = EmpiricalDenoiser(POINTS)
    law = ReverseProcess(denoiser, SCHEDULE, FixedSmall()).law(z_t[None], t, s)
    density, width = bayes.exp(), float(grid[1, 0] - grid[0, 0])
    mean = float((density * grid[:, 0]).sum()) * width
    variance = float((density * (grid[:, 0] - mean).square()).sum()) * width
    assert law.mean.item() == pytest.approx(mean, rel=1e-9)
    known = denoise(denoiser, z_t[None], far).variance
    assert known is not None
    left_open = SCHEDULE.bridge(s, t).coef_x.square() * known[0]
    assert (law.variance[0] + left_open).item() == pytest.approx(variance, rel=1e-8)


@pytest.mark.parametrize("points", [POINTS[:2], POINTS])
def test_the_error_of_the_empirical_denoiser_integrates_to_the_entropy(points: Tensor) -> None:
    r""":math:`\tfrac12 \int_0^\infty \mathrm{mmse}(v)\, dv = \ln N` for ``N`` points (I-MMSE).

    The error is averaged over noise by Gauss-Hermite quadrature, the integral taken over log v.
    Reference: Guo, Shamai, Verdu (2005).
    """
    nodes, masses = np.polynomial.hermite_e.hermegauss(101)
    eps, mass = torch.from_numpy(nodes), torch.from_numpy(masses / masses.sum())
    log_snr = torch.linspace(-16, 9, 1501, dtype=F64)
    denoiser = EmpiricalDenoiser(points)
    errors = []
    for x in points:
        alpha, sigma = scales(log_snr)
        z = (alpha * x + sigma * eps).reshape(-1, 1)
        x_hat = denoiser(z, log_snr.repeat_interleave(len(eps))).x_hat
        errors.append((x - x_hat).square().reshape(len(log_snr), -1) @ mass)
    integrand = log_snr.exp() * torch.stack(errors).mean(0)
    nats = 0.5 * float(torch.trapezoid(integrand, log_snr))
    assert nats == pytest.approx(math.log(len(points)), abs=1e-5)


def test_the_score_target_is_the_gradient_of_the_log_density() -> None:
    """``grad log q(z)`` of a noised mixture, by automatic differentiation."""
    level = real(0.4).expand(7)
    alpha, sigma = scales(level)
    z = torch.linspace(-2, 2, 7, dtype=F64)[:, None].requires_grad_()
    law = torch.distributions.Normal(alpha * POINTS.T, (0.09 * alpha**2 + sigma**2).sqrt())
    (score,) = torch.autograd.grad(law.log_prob(z).logsumexp(1).sum(), z)
    x_hat = EmpiricalDenoiser(POINTS, std=0.3)(z.detach(), level).x_hat
    torch.testing.assert_close(ScoreTarget().output(x_hat, z.detach(), alpha, sigma), score)


def test_denoisers_see_states_of_variance_one() -> None:
    """A state of any scale is denoised as its variance-preserving image."""
    inner, t = LinearLogSNR(), real(0.3)
    z, denoiser = real(0.4, -1.0, 0.2)[None], correlated().denoiser()
    alpha, _ = inner.scales(t)
    expected = denoise(denoiser, z * alpha, inner.at(t)).x_hat
    for schedule in (VarianceExploding(inner), RectifiedFlow(inner)):
        there = schedule.at(t)
        found = denoise(denoiser, z * there.alpha, there).x_hat
        torch.testing.assert_close(found, expected)


class Told(nn.Module):
    """A network with a context."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor) -> Tensor:
        """The context."""
        return context.expand_as(z)


def test_the_context_reaches_the_network() -> None:
    """With the data as target, the context is what comes back."""
    told = real(3.0)[None]
    found = denoise(Learned(Told(), DataTarget()), real(1.0)[None], SCHEDULE.at(real(0.5)), told)
    assert torch.equal(found.x_hat, told)
    assert found.variance is None


def test_covariances_of_less_than_full_rank_are_covariances() -> None:
    """Their zero eigenvalues round to small negative numbers."""
    z, log_snr = torch.randn(2, 20), torch.zeros(2)
    root = torch.randn(20, 3)
    assert GaussianDenoiser(torch.zeros(20), root @ root.T)(z, log_snr).x_hat.isfinite().all()
    nothing = GaussianDenoiser(torch.ones(20), torch.zeros(20, 20))(z, log_snr)
    torch.testing.assert_close(nothing.x_hat, torch.ones(2, 20))


def test_denoisers_refuse_what_they_cannot_be() -> None:
    """Got, expected, what to do."""
    with pytest.raises(ValueError, match="positive semi-definite"):
        GaussianDenoiser(real(0.0, 0.0), torch.diag(real(1.0, -0.5)))
    with pytest.raises(ValueError, match=r"std=.*at least 0"):
        EmpiricalDenoiser(POINTS, std=-1.0)

    class Wide(nn.Module):
        def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
            return torch.cat([z, z], -1)

    with pytest.raises(ValueError, match=r"2 outputs a row from Wide; expected 1"):
        Learned(Wide())(real(1.0)[None], real(0.0))


def test_points_and_moments_are_real_numbers_of_one_shape() -> None:
    """Bytes have no mean, an empty set has none, and NaN would come back as an estimate."""
    points = torch.zeros(3, 2)
    for bad, message in (
        (points.to(torch.uint8), "points of type torch.uint8"),
        (points[:0], "at least one point"),
        (points * torch.nan, "6 values of points that are NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            EmpiricalDenoiser(bad)
    for mean, covariance, message in (
        (torch.zeros(3), torch.eye(2), r"shapes \(d,\) and \(d, d\)"),
        (torch.zeros(2), torch.eye(2) * torch.nan, "the covariance that are NaN"),
        (torch.zeros(2).long(), torch.eye(2), "a mean of type torch.int64"),
    ):
        with pytest.raises(ValueError, match=message):
            GaussianDenoiser(mean, covariance)


def test_a_denoiser_made_in_inference_mode_has_gradients_outside() -> None:
    with torch.inference_mode():
        made = [GaussianDenoiser(real(0.0, 1.0), torch.eye(2).double()), EmpiricalDenoiser(POINTS)]
    for denoiser, dims in zip(made, (2, 1), strict=True):
        z = torch.zeros(3, dims, dtype=F64, requires_grad=True)
        denoiser(z, real(0.0, 1.0, 2.0)).x_hat.sum().backward()
        assert z.grad is not None
        assert bool(z.grad.isfinite().all())
