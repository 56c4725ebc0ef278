r"""Reverse variances: each step's price, the optimum on Gaussian data, the limits of the learned one.

Each docstring names the sign that was flipped in the code to see the test fail.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

from genmod.denoisers import (
    Calibrated,
    Denoised,
    Denoiser,
    EmpiricalDenoiser,
    Learned,
    calibrate,
    denoise,
)
from genmod.elbo import Rate
from genmod.encoders import Noising
from genmod.model import LatentModel
from genmod.models import Diffusion
from genmod.nn import Convolutions
from genmod.priors import Denoising
from genmod.samplers import (
    Analytic,
    Ancestral,
    FixedLarge,
    FixedSmall,
    LearnedInterpolation,
    ReverseVariance,
)
from genmod.schedules import Bridge, Cosine, LinearBeta, LinearLogSNR, Schedule
from tests.oracles import (
    F64,
    MILD,
    Bent,
    ExactDecoder,
    GaussianData,
    RectifiedFlow,
    VarianceExploding,
    ancestral_law,
    constant_noise,
    correlated,
    over_signs,
    real,
)
from tests.statistics import assert_equal_means, assert_mean

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


def steps_rate(prior: Denoising, x: Tensor, draws: int | None = None) -> Rate:
    """The rate of the denoising steps."""
    return prior.rates(Noising(prior.schedule)(x), draws)[1]["steps"]


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
    """Entry by entry, against torch's KL of ``q(z_s | z_t, x)`` and the law that samples are drawn from.

    Flipped: the sign of ``excess`` in ``spread``; in ``apart``.
    """
    schedule = kind(LinearLogSNR(clean, noisy))
    prior = Denoising(Opinionated(), schedule, (2,), steps, variance).double()
    data, eps = real(x, 0.5)[None], real(noise, -0.2)
    with constant_noise(eps):
        rate = steps_rate(prior, data)
    times = prior.times()
    s, t = times[:-1], times[1:]
    each = Noising(schedule)(data.expand(steps - 1, 2))
    z_t = each.at(t).mean + each.at(t).stddev * eps
    exact, law = each.given(s, t, z_t), prior.chain.law(z_t, t, s)
    generic = kl_divergence(
        TorchNormal(exact.mean, exact.stddev), TorchNormal(law.mean, law.stddev)
    ).sum(1)
    torch.testing.assert_close(rate.nats[0], generic, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("place", "fixed"), [(0.0, FixedSmall()), (1.0, FixedLarge())], ids=repr)
def test_the_ends_of_the_interpolation_are_the_fixed_variances(
    place: float, fixed: ReverseVariance
) -> None:
    """In price and in law (Improved DDPM, eq. 15). Flipped: the sign of ``place * ratio``."""
    x, eps = real(0.3, -1.0)[None], real(0.4, -0.7)
    priors = [
        Denoising(Opinionated(place), MILD, (2,), 6, variance).double()
        for variance in (LearnedInterpolation(), fixed)
    ]
    with constant_noise(eps):
        learned, other = (steps_rate(prior, x).nats for prior in priors)
    torch.testing.assert_close(learned, other, rtol=1e-12, atol=1e-14)
    laws = [prior.chain.law(x, real(0.6), real(0.4)) for prior in priors]
    torch.testing.assert_close(laws[0].mean, laws[1].mean, rtol=0, atol=0)
    torch.testing.assert_close(laws[0].stddev, laws[1].stddev, rtol=1e-14, atol=0)


@pytest.mark.parametrize("variance", VARIANCES[2:], ids=repr)
def test_the_closed_bound_has_the_mean_of_the_sampled_one(variance: ReverseVariance) -> None:
    """Both routes to the bound know the variance. Flipped: the sign of ``excess`` in ``law``."""
    torch.manual_seed(0)
    prior = Denoising(Opinionated(), MILD, (2,), 4, variance)
    model = LatentModel(Noising(MILD), ExactDecoder(correlated(dims=2), MILD), prior).double()
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
    prior = Denoising(Opinionated(), schedule, (2,), steps, variance).float()
    x = torch.tensor([[0.3, -1.0], [0.0, 0.0]])
    for row, place in ((x, 0), (x, steps - 2)):
        s, t = (torch.full((2,), (place + i) / (steps - 1), dtype=F64) for i in (0, 1))
        law = prior.chain.law(row.clone().requires_grad_(), t, s)
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
        prior = Denoising(known, MILD, (2,), 4, Analytic()).double()
        rate = steps_rate(prior, x)
        torch.testing.assert_close(rate.nats, torch.zeros(5, 3, dtype=F64), rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- the analytic optimum


def analytic_model(
    data: GaussianData, denoiser: Denoiser, steps: int, variance: ReverseVariance
) -> LatentModel:
    """The exact last step, so that only the steps' own law can be wrong."""
    prior = Denoising(denoiser, SCHEDULE, tuple(data.mean.shape), steps, variance)
    return LatentModel(Noising(SCHEDULE), ExactDecoder(data, SCHEDULE), prior).double()


@pytest.mark.parametrize("steps", [2, 3, 10, 100])
def test_the_exact_variance_makes_the_chain_exact_at_every_number_of_steps(steps: int) -> None:
    """Uncorrelated Gaussian data under the optimal denoiser: ``p(z_s | z_t)`` is the true reverse step,

    so in the mean over data and noise (exact) only ``KL(q(z_1) || N(0, I))`` is lost, and from the true
    ``q(z_1)`` the last state has the true law.
    Flipped: the sign in ``Analytic``; ``sigma.square() * share`` in ``GaussianDenoiser``.
    """
    model = analytic_model(AXES, AXES.denoiser(), steps, Analytic())
    lost = -float(AXES.law.entropy()) - AXES.mean_over_all(lambda x: model.elbo(x).value)
    assert lost == pytest.approx(AXES.mismatch(SCHEDULE), rel=1e-9)
    wide = LinearLogSNR(6.0, -40.0)
    mean, covariance = ancestral_law(AXES, wide, steps, Analytic())
    alpha, sigma = wide.scales(real(0.0))
    torch.testing.assert_close(mean, alpha * AXES.mean, rtol=0, atol=1e-7)
    exact = alpha.square() * AXES.covariance + sigma.square() * torch.eye(3, dtype=F64)
    torch.testing.assert_close(covariance, exact, rtol=1e-9, atol=1e-9)


def measured(data: GaussianData, levels: int) -> Calibrated:
    """A calibration without chance: two points of the data, two signs of the noise."""
    points, denoiser = data.axis_points(), data.denoiser()
    table = calibrate(denoiser, SCHEDULE, points, levels)
    error = over_signs(
        data.vectors.sum(1),
        lambda: calibrate(denoiser, SCHEDULE, points, levels).log_error.exp(),
    )
    return Calibrated(denoiser, table.log_snr, error)


def test_calibration_measures_the_closed_error() -> None:
    r""":math:`u = e^\lambda\,\mathrm{mmse}(\lambda) / D`, at its nodes exactly and between them closely;

    and for the optimal denoiser it is the paper's :math:`1 - E\|\hat\varepsilon\|^2 / D`.
    Flipped: the sign of ``level`` in ``calibrate``'s scales.
    """
    data = correlated()
    table = measured(data, 33)
    nodes = table.log_snr
    u = nodes.exp() * data.mmse(nodes) / 3
    torch.testing.assert_close(table.error(nodes), u, rtol=1e-10, atol=0)
    between = (nodes[1:] + nodes[:-1]) / 2
    exact = between.exp() * data.mmse(between) / 3
    # Half-way on a chord of length h, log u (curved as a log-sigmoid, at most 1/4) is off by h^2 / 32.
    chord = float(nodes[1] - nodes[0])
    torch.testing.assert_close(table.error(between), exact, rtol=chord**2 / 32, atol=0)
    alpha2, sigma2 = nodes.sigmoid(), (-nodes).sigmoid()
    score = (sigma2[:, None] / (alpha2[:, None] * data.values + sigma2[:, None])).mean(-1)
    torch.testing.assert_close(table.error(nodes), 1 - score, rtol=1e-9, atol=0)
    assert torch.equal(table.error(real(-99.0, 99.0)), table.error(nodes[[0, -1]]))


def test_calibration_has_the_mean_error_of_draws() -> None:
    """Real data and noise, z-tested through independent replicates. Flipped: ``off`` with a plus."""
    torch.manual_seed(1)
    data = correlated()
    found = [
        calibrate(data.denoiser(), SCHEDULE, data.law.sample((200,)), 2).error(real(-6.0, 6.0))
        for _ in range(30)
    ]
    ends = real(-6.0, 6.0)
    assert_mean(torch.stack(found), ends.exp() * data.mmse(ends) / 3)


@pytest.mark.parametrize("steps", [2, 4, 16, 64])
def test_the_measured_variance_is_the_best_shared_one(steps: int) -> None:
    r"""Each step costs :math:`\tfrac D2 \log(1 + \text{gap}\,u)`, less than under either fixed variance

    and less than under a variance a little larger or smaller (correlated data; exact means).
    Flipped: ``gap * u`` with a minus in ``Analytic``.
    """
    data = correlated()
    table = measured(data, steps)

    class Off(Analytic):
        """The optimum, times a factor."""

        def __init__(self, by: float) -> None:
            self.by = by

        def excess(self, bridge: Bridge, denoised: Denoised) -> Tensor:
            """A constant more."""
            return super().excess(bridge, denoised) + self.by

    def cost(variance: ReverseVariance) -> float:
        prior = Denoising(table, SCHEDULE, (3,), steps, variance).double()
        return data.mean_over_all(lambda x: steps_rate(prior, x).total)

    best = cost(Analytic())
    log_snr = SCHEDULE.log_snr(torch.linspace(0, 1, steps, dtype=F64))
    gap = torch.expm1(log_snr[:-1] - log_snr[1:])
    closed = 1.5 * float(torch.log1p(gap * table.error(log_snr[1:])).sum())
    assert best == pytest.approx(closed, rel=1e-9)
    assert best < min(cost(FixedSmall()), cost(FixedLarge()))
    assert best < min(cost(Off(0.01)), cost(Off(-0.01)))


def test_the_optimum_is_the_papers_formula() -> None:
    r"""Bao et al. (2022), theorem 1, in their symbols, with the moment of the score that they use:

    :math:`\sigma_n^{*2} = \lambda_n^2 + \Big(\sqrt{\bar\beta_n / \alpha_n} -
    \sqrt{\bar\beta_{n-1} - \lambda_n^2}\Big)^2 (1 - \bar\beta_n E\|\nabla\log q_n\|^2 / D)`.
    Flipped: the sign in ``Analytic``.
    """
    data, schedule = GaussianData(real(0.0, 0.0), 0.3 * torch.eye(2, dtype=F64)), LinearBeta(1000)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    alpha_bar = (1 - betas).cumprod(0)
    n = torch.tensor([1, 10, 500, 999])
    bar, before, beta = alpha_bar[n], alpha_bar[n - 1], betas[n]
    lambda2 = (1 - before) / (1 - bar) * beta
    score = (1 - bar) / (bar * 0.3 + 1 - bar)  # bar beta E|score|^2 / D
    inner = ((1 - bar) / (1 - beta)).sqrt() - (1 - before - lambda2).sqrt()
    paper = lambda2 + inner.square() * (1 - score)
    t = n.double() / 999
    s = (n.double() - 1) / 999
    law = Ancestral(data.denoiser(), schedule, Analytic()).law(torch.randn(4, 2, dtype=F64), t, s)
    torch.testing.assert_close(law.variance, paper[:, None].expand(4, 2), rtol=1e-8, atol=0)


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
    """One step: the gradient of the (exact) mean bound vanishes at the analytic place, and only there.

    Flipped: the sign of ``place * ratio``.
    """
    denoiser = Constant()
    prior = Denoising(denoiser, SCHEDULE, (3,), 2, LearnedInterpolation())
    bridge = SCHEDULE.bridge(real(0.0), real(1.0))
    said = denoise(denoiser, AXES.mean[None], SCHEDULE.at(real(1.0)))
    optimum = Analytic().excess(bridge, said)[0] / bridge.ratio

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
    [((3,), None), ((1, 8, 8), None), ((2, 8, 8), Convolutions(width=16))],
)
def test_one_line_builds_a_network_of_twice_the_outputs(
    shape: tuple[int, ...], networks: Convolutions | None
) -> None:
    """A new one starts half-way between the fixed variances; it trains, reports and samples."""
    model = Diffusion(shape, bins=17, steps=6, variance=LearnedInterpolation(), networks=networks)
    assert isinstance(model.prior, Denoising)
    x = torch.randint(0, 17, (3, *shape))
    said = model.prior.denoiser(torch.randn(3, *shape), torch.zeros(3))
    assert said.interpolation is not None
    assert said.x_hat.shape == said.interpolation.shape == (3, *shape)
    assert bool((said.interpolation == 0.5).all())
    (-model.elbo(x, draws=2).value.mean()).backward()
    grads = [p.grad for p in model.prior.denoiser.parameters()]
    assert all(g is None or bool(g.isfinite().all()) for g in grads)
    assert model.sample(2).shape == (2, *shape)
    assert model.elbo(x).value.shape == model.log_weight(x).shape == (3,)
    assert "variance LearnedInterpolation(), T = 6" in model.prior.formula()


def test_what_cannot_be_is_refused() -> None:
    """A variance nobody says, a network of the wrong size, continuous time, a broken table."""
    x = real(0.3, -1.0)[None]
    for variance, way_out in (
        (LearnedInterpolation(), "interpolation=True"),
        (Analytic(), "denoisers.calibrate"),
    ):
        with pytest.raises(ValueError, match=way_out):
            steps_rate(Denoising(Bent(), MILD, (2,), 3, variance).double(), x)
        with pytest.raises(ValueError, match="in continuous time"):
            Denoising(Bent(), MILD, (2,), None, variance)
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


class Same(nn.Module):
    """A network that gives as many numbers as it takes."""

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """The state."""
        return z


def test_calibration_leaves_the_denoiser_as_it_was() -> None:
    """Evaluation mode inside (dropout off: two runs agree), its own mode after; no gradients kept."""
    model = Diffusion(2, steps=4, width=8, dropout=0.5)
    assert isinstance(model.prior, Denoising)
    denoiser, x = model.prior.denoiser.train(), torch.randn(6, 2)
    for parameter in denoiser.parameters():
        nn.init.normal_(parameter)
    with constant_noise(torch.tensor([0.3, -0.2])):
        tables = [calibrate(denoiser, model.prior.schedule, x, 3) for _ in range(2)]
    assert torch.equal(tables[0].log_error, tables[1].log_error)
    assert all(module.training for module in denoiser.modules())
    assert not tables[0].log_error.requires_grad


@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_measured_is_refused() -> None:
    denoiser = EmpiricalDenoiser(real(0.7, -0.2)[None])
    with pytest.raises(ValueError, match=r"type torch.int64; .* model.encoder.real"):
        calibrate(denoiser, MILD, torch.zeros(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="2 rows of context for 3"):
        calibrate(denoiser, MILD, torch.zeros(3, 2), context=torch.zeros(2))
