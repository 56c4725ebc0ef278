r"""The I-MMSE integral: N points cost ln N, Gaussians their log-density, and the bound says the same."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from genmod.denoisers import Denoised, Denoiser, EmpiricalDenoiser
from genmod.elbo import Measure, Stamp
from genmod.evaluation import evaluate, immse, paired, score
from genmod.evaluation.information import PILOT, GaussianTail, IntegerTail, NoTail
from genmod.models import VAE, Diffusion, LatentDiffusion, with_steps
from genmod.schedules import Cosine, LinearLogSNR, Schedule
from genmod.spec import Bins
from tests.oracles import MILD, Bent, VarianceExploding, bent, correlated, exact_diffusion, real
from tests.statistics import MAX_Z, assert_mean

pytestmark = pytest.mark.usefixtures("float64")

WIDE = LinearLogSNR(10.0, -12.0)


def test_n_distinct_points_cost_ln_n_each() -> None:
    """Under the entire data set's own denoiser, each point of it, z-tested."""
    points = 2 * torch.randn(200, 4)
    model = Diffusion(4, denoiser=EmpiricalDenoiser(points), schedule=LinearLogSNR(14.0, -12.0))
    report = immse(model.double(), points, timesteps=96, tail=NoTail())
    assert report.scores is not None
    assert_mean(report.scores.value, -math.log(200), name="ln N")
    assert report.measure is Measure.MASS
    assert report.value.error < 0.1
    assert report.terms["reconstruction"].mean == 0


def test_points_of_unequal_weight_cost_their_own_logarithm() -> None:
    """The integral is the point's own, not the mean's."""
    log_p = real(0.5, 0.3, 0.15, 0.05).log()
    points = torch.tensor([[0.0], [1.0], [2.5], [-1.0]])
    denoiser = EmpiricalDenoiser(points, log_p)
    model = Diffusion(1, denoiser=denoiser, schedule=LinearLogSNR(9.0, -12.0)).double()
    x = points.repeat(500, 1)
    report = immse(model, x, timesteps=32, tail=NoTail())
    assert report.scores is not None
    assert_mean(report.scores.value.reshape(500, 4), log_p, name="log P")


@pytest.mark.parametrize(
    "schedule", [WIDE, Cosine(0.0, 10.0, -12.0), VarianceExploding(WIDE)], ids=repr
)
def test_gaussian_data_cost_their_log_density(schedule: Schedule) -> None:
    """Of each row, whatever the schedule: its ends are all that is used.

    The rest beyond the clean end is known to about ``1 / (2 v)`` of the inverse covariance, 1e-4 here.
    """
    data = correlated()
    x = data.law.sample((1000,))
    report = immse(exact_diffusion(data, schedule, None), x, timesteps=32)
    assert report.scores is not None
    assert_mean(report.scores.value - data.law.log_prob(x), 0.0, name="log p")
    assert float((report.scores.value - data.law.log_prob(x)).std()) < 1.0
    assert report.stamp is Stamp.ESTIMATE
    assert report.measure is Measure.DENSITY


def test_it_is_the_continuous_bound_read_without_a_decoder() -> None:
    """For any denoiser: the prior term is the same, the steps have one mean, and the rest is what a
    decoder that takes the noised state for ``x`` costs.
    """
    schedule = LinearLogSNR(4.0, 1.0)  # at its noisy end much of x is left, so that it costs
    model = bent(7, schedule)
    alpha, sigma = schedule.scales(real(0.0))
    x = 0.7 * torch.randn(3000, 2)
    report, bound = (
        immse(model, x, timesteps=16),
        evaluate(with_steps(model, None), x, timesteps=16),
    )
    assert report.scores is not None
    assert bound.scores is not None
    torch.testing.assert_close(report.scores.rates["prior"], bound.scores.rates["prior"])
    steps = paired(report.scores, bound.scores)
    assert_mean(report.scores.rates["steps"] - bound.scores.rates["steps"], 0.0, name="steps")
    assert steps.error < bound.value.error
    # -E log N(x; z_0 / alpha, (sigma / alpha)^2 I), which takes no draw.
    left = 2 * (0.5 * math.log(2 * math.pi) + 0.5 + float((sigma / alpha).log()))
    assert report.terms["reconstruction"].mean == pytest.approx(-left)


def test_rounding_to_a_grid_costs_the_integral_of_its_error() -> None:
    """The closed tail against quadrature of half the mean square rounding error over SNR."""
    width = 2 / 16

    def error(log_snr: torch.Tensor) -> torch.Tensor:
        k = torch.arange(1, 200)[:, None]
        upper = torch.special.ndtr(-(k - 0.5) * width * (log_snr / 2).exp())
        return 2 * width**2 * ((2 * k - 1) * upper).sum(0)

    level = torch.linspace(2.0, 16.0, 4001)
    quadrature = torch.trapezoid(0.5 * level.exp() * error(level), level)
    assert IntegerTail(width).nats(2.0, 3) == pytest.approx(3 * float(quadrature), rel=1e-5)
    assert IntegerTail(width).nats(16.0, 3) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("w", [8.0, 9.5, 12.0])
def test_rounding_counts_the_far_tail(w: float) -> None:
    """The first level alone, against SciPy: ``ndtr`` made it 1.6 times as much at 8, 46 times at 9.5."""
    width = 2 / 16
    stated = 4 * ((1 - w**2) * norm.sf(w) + w * norm.pdf(w))
    found = IntegerTail(width).nats(2 * math.log(2 * w / width), 1)
    assert found == pytest.approx(stated, rel=1e-9)


def test_integers_cost_no_less_than_their_entropy_and_little_more() -> None:
    """A fair die of five faces, twice, under its own denoiser: rounding takes over at a clean end
    where it errs seldom.
    """
    faces = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    denoiser = EmpiricalDenoiser(Bins(5).center(faces.double()))
    model = Diffusion(2, bins=5, denoiser=denoiser, schedule=LinearLogSNR(4.2, -12.0)).double()
    report = immse(model, faces.repeat(60, 1), timesteps=32)
    excess = -report.value.mean - math.log(25)
    rest = -report.terms["reconstruction"].mean
    assert 0.02 < rest < 0.5
    assert -MAX_Z * report.value.error < excess < rest + MAX_Z * report.value.error
    assert report.bits_per_dim is not None


class Informed(Denoiser):
    """Knows ``x``: the context is ``x`` itself."""

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """The context."""
        assert context is not None
        return Denoised(context)


def test_rows_keep_their_context_in_chunks() -> None:
    """More rows than a chunk or a pilot: the row itself for a context costs nothing, another a lot."""
    model, x = Diffusion(2, denoiser=Informed(), schedule=MILD).double(), torch.randn(3 * PILOT, 2)
    right = immse(model, x, x, timesteps=64, tail=NoTail())
    assert right.terms["steps"].mean == 0
    assert immse(model, x, x.flip(0), timesteps=64, tail=NoTail()).terms["steps"].mean > 10


def test_the_noise_is_keyed_and_the_best_denoiser_of_pure_noise_needs_none() -> None:
    """Equal seeds, equal numbers; and the bound of N(0, I) has no variance."""
    x = torch.randn(20, 2)
    values = [immse(bent(None), x, timesteps=4, seed=seed).value for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    # A new network says velocity 0, which is the best denoiser of N(0, I).
    fresh = Diffusion(2, width=8, schedule=WIDE).double()
    report = immse(fresh, x, timesteps=2)
    assert report.scores is not None
    exact = -0.5 * (x.square() + math.log(2 * math.pi)).sum(1)
    torch.testing.assert_close(report.scores.value, exact, rtol=0, atol=2e-4)
    assert GaussianTail().nats(0.0, 2) == pytest.approx(math.log(2 * math.pi * math.e))


@pytest.mark.usefixtures("as_users_run")
def test_what_it_cannot_integrate_is_refused() -> None:
    model, x = Diffusion(2, width=8), torch.randn(4, 2)
    for other in (VAE(2, latents=1, width=8), LatentDiffusion(2, latents=2, width=8)):
        with pytest.raises(ValueError, match="a diffusion of the data"):
            immse(other, x)
    with pytest.raises(ValueError, match="timesteps=0"):
        immse(model, x, timesteps=0)
    with pytest.raises(ValueError, match="without a row"):
        immse(model, x[:0])
    with pytest.raises(ValueError, match="width=0"):
        IntegerTail(0.0)


# ---------------------------------------------------------------------- which of two is better


def test_common_noise_lowers_the_error_of_a_paired_difference() -> None:
    """The difference under one seed is surer than under two, and both are right in the mean."""
    x = torch.randn(400, 2)
    better, worse = bent(None), bent(None)
    changed = worse.prior.denoiser
    assert isinstance(changed, Bent)
    with torch.no_grad():
        changed.scale.add_(0.02)
    common = paired(score(better, x, timesteps=2, seed=5), score(worse, x, timesteps=2, seed=5))
    apart = paired(score(better, x, timesteps=2, seed=5), score(worse, x, timesteps=2, seed=6))
    means = [float(score(each, x, timesteps=2, seed=5).value.mean()) for each in (better, worse)]
    assert common.mean == pytest.approx(means[0] - means[1])
    assert common.error < apart.error / 10
    assert abs(common.mean) > 10 * common.error
    assert abs(common.mean) < MAX_Z * apart.error
    assert abs(common.mean - apart.mean) < MAX_Z * math.hypot(common.error, apart.error)
    precise = paired(score(better, x, timesteps=64), score(worse, x, timesteps=64))
    assert abs(common.mean - precise.mean) < MAX_Z * math.hypot(common.error, precise.error)


@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_paired_is_refused() -> None:
    model, x = Diffusion(2, width=8, steps=3), torch.randn(4, 2)
    a = score(model, x)
    with pytest.raises(ValueError, match="4 rows and 3 rows"):
        paired(a, score(model, x[:3]))
    mass = score(VAE(2, 4, latents=1, width=8), torch.zeros(4, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="a density and a mass"):
        paired(a, mass)


def test_the_pilot_does_not_depend_on_the_order_of_the_rows() -> None:
    """Rows that lie sorted in their file are integrated as well as shuffled ones, row by row the same.

    The first 64 rows are two likely points, told apart at a high log-SNR only. The others are unlikely,
    and costly at a low one. Made to fail by a pilot of the first rows: a spread 4 times as large.
    """
    points, weights = real(-1.01, -0.99, 0.6, 1.4)[:, None], real(0.4999, 0.4999, 1e-4, 1e-4)
    denoiser = EmpiricalDenoiser(points, weights.log())
    model = Diffusion(1, denoiser=denoiser, schedule=LinearLogSNR(clean=14.0)).double()
    x = points.repeat_interleave(100, 0)
    order = torch.randperm(len(x))

    def run(rows: Tensor, seed: int, ids: Tensor | None = None) -> Tensor:
        found = immse(model, rows, timesteps=2, seed=seed, tail=NoTail(), ids=ids).scores
        assert found is not None
        return found.value

    torch.testing.assert_close(run(x[order], 3, order), run(x, 3)[order])
    in_order, shuffled = (
        torch.stack([run(rows, seed).mean() for seed in range(12)]).std() for rows in (x, x[order])
    )
    assert float(in_order) < 2 * float(shuffled)
