"""Reports: totals are sums of terms, stamps are right, errors cover the truth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from genmod import random
from genmod.data import Dataset, binarized
from genmod.data.images import digits
from genmod.data.rows import dataset
from genmod.decoders import BernoulliDecoder
from genmod.denoisers import EmpiricalDenoiser
from genmod.elbo import Measure, Stamp
from genmod.encoders import GaussianEncoder
from genmod.evaluation import (
    Estimate,
    Report,
    evaluate,
    flow_bound,
    log_weights,
    score,
)
from genmod.evaluation.baselines import pixel_histogram
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, with_probability_flow
from genmod.models.latent_diffusion import LatentDiffusion
from genmod.schedules import LinearLogSNR
from genmod.spec import DataSpec

X = digits().test[:96]
SHAPE, BINS = (1, 8, 8), 17


def small_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(SHAPE, BINS, latents=3, width=16)


@pytest.mark.parametrize(("draws", "replicates"), [(None, 1), (None, 3), (2, 3)])
def test_the_value_is_the_sum_of_its_terms(draws: int | None, replicates: int) -> None:
    torch.manual_seed(0)
    for model in (
        *([small_vae()] if draws is None else []),
        Diffusion(SHAPE, BINS, steps=5, width=16, depth=1),
        LatentDiffusion(vae=small_vae(), diffusion=Diffusion((3,), steps=4, width=16, depth=1)),
    ):
        report = evaluate(model, X, timesteps=draws, replicates=replicates)
        reconstruction, *costs = report.terms.values()
        assert costs
        assert report.value.mean == pytest.approx(
            reconstruction.mean - sum(cost.mean for cost in costs), rel=1e-9
        )


def test_bits_per_dim_are_nats_in_other_units() -> None:
    report = evaluate(small_vae(), X)
    bits = report.bits_per_dim
    assert bits is not None
    assert bits.mean == pytest.approx(-report.value.mean / (64 * math.log(2)))
    assert bits.error == pytest.approx(report.value.error / (64 * math.log(2)))


def test_stamps_follow_from_the_visited_levels() -> None:
    """All levels make a bound, a few an estimate, no prior nothing; counts, none is exact."""
    diffusion = Diffusion(SHAPE, BINS, steps=5, width=16, depth=1)
    stamps = [
        evaluate(small_vae(), X).stamp,
        evaluate(diffusion, X).stamp,
        evaluate(diffusion, X, timesteps=2).stamp,
        evaluate(Autoencoder(SHAPE, BINS, latents=3, width=16), X).stamp,
        Report.of_baseline(pixel_histogram(X, X, BINS), 64, Measure.MASS).stamp,
    ]
    assert stamps == [Stamp.BOUND, Stamp.BOUND, Stamp.ESTIMATE, Stamp.NONE, Stamp.EXACT]


def test_an_autoencoder_has_no_bits() -> None:
    report = evaluate(Autoencoder(SHAPE, BINS, latents=3, width=16), X)
    assert report.bits_per_dim is None
    assert list(report.terms) == ["reconstruction"]


def test_the_importance_weighted_estimate_lies_above_the_bound() -> None:
    report = evaluate(small_vae(), X, importance_samples=32)
    assert report.importance is not None
    assert report.importance.mean > report.value.mean
    assert report.importance_bits_per_dim is not None
    assert report.to_dict()["importance_weighted"]


def test_replicates_tell_how_noisy_the_mean_is() -> None:
    """The noise of the mean over 16 fresh scores, against the spread of 16 single ones."""
    model = Diffusion(SHAPE, BINS, width=16, depth=1)
    report = evaluate(model, X, timesteps=1, replicates=16)
    singles = torch.tensor(
        [float(score(model, X, timesteps=1, seed=100 + r).value.mean()) for r in range(16)]
    )
    assert report.noise is not None
    ratio = report.noise / (float(singles.std()) / 4)
    # The ratio of two standard deviations of 16 draws: F(15, 15) is inside (0.17, 5.9)^... at 1e-3.
    assert 0.35 < ratio < 2.9


def test_equal_seeds_score_alike_and_leave_the_generator_alone() -> None:
    model = small_vae()
    before = torch.get_rng_state()
    first, second = evaluate(model, X, seed=3), evaluate(model, X, seed=3)
    assert first.value == second.value
    assert torch.equal(before, torch.get_rng_state())
    with random.keyed(1):
        assert evaluate(model, X, seed=3).value == first.value


def test_an_estimate_is_a_mean_and_its_error() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    estimate = Estimate.of(values)
    assert estimate.mean == 2.5
    assert estimate.error == pytest.approx(float(values.std()) / 2)
    assert str(estimate.scaled(-2)) == "-5.00 ± 1.29"


def test_a_data_set_is_scored_on_its_test_part() -> None:
    data = digits()
    whole, rows = evaluate(small_vae(), data), evaluate(small_vae(), data.test)
    assert whole.value == rows.value
    assert whole.samples == 359
    assert whole.entropy_floor is None
    assert whole.structural is None
    assert {**whole.to_dict(), "remarks": []} == rows.to_dict()
    assert whole.to_dict()["structural"] is None


def test_a_report_on_binarized_data_splits_its_cost_into_coins_and_structure() -> None:
    """For models and baselines alike, they add up to the value; what bounds nothing has no structure."""
    bits = binarized(digits())
    torch.manual_seed(0)
    baseline = pixel_histogram(bits.train, bits.test, 2)
    reports = [
        evaluate(VAE(SHAPE, 2, latents=3, width=16), bits),
        Report.of_baseline(baseline, 64, Measure.MASS, bits),
    ]
    for report in reports:
        assert report.entropy_floor == bits.entropy_floor
        assert report.entropy_floor is not None
        assert report.structural is not None
        assert report.structural.mean > 0
        assert report.entropy_floor + report.structural.mean == pytest.approx(-report.value.mean)
        written = report.to_dict()
        assert written["entropy_floor"] == bits.entropy_floor
        assert written["structural"] == {
            "mean": report.structural.mean,
            "standard_error": report.structural.error,
        }
    nothing = evaluate(Autoencoder(SHAPE, 2, latents=3, width=16), bits)
    assert nothing.entropy_floor == bits.entropy_floor
    assert nothing.structural is None


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="replicates"):
        evaluate(small_vae(), X, replicates=0)
    with pytest.raises(ValueError, match="without a row"):
        evaluate(small_vae(), X[:0])
    with pytest.raises(ValueError, match="continuous time"):
        evaluate(Diffusion(SHAPE, BINS, width=16, depth=1), X, timesteps=None)
    with pytest.raises(ValueError, match="timesteps=2 for a VAE without noise levels"):
        evaluate(small_vae(), X, timesteps=2)
    for count in (1, 7, -2):
        with pytest.raises(ValueError, match="expected an even number"):
            evaluate(small_vae(), X, importance_samples=count)


# ---------------------------------------------------------------------- stamps


def mixture(steps: int = 200) -> tuple[Diffusion, Tensor, Tensor]:
    """A mixture of two Gaussians under its own optimal denoiser: the model, rows, their log-density."""
    torch.manual_seed(0)
    points, std = torch.tensor([[-0.9, 0.3], [0.9, -0.3]]).double(), 0.3
    x = points[torch.randint(2, (300,))] + std * torch.randn(300, 2).double()
    square = (x[:, None] - points).square().sum(-1)
    truth = (-0.5 * square / std**2).logsumexp(1) - math.log(2) - math.log(2 * math.pi * std**2)
    denoiser = EmpiricalDenoiser(points, std=std)
    model = Diffusion(2, denoiser=denoiser, schedule=LinearLogSNR(9.0, -12.0), steps=steps)
    return model.double(), x, truth


@pytest.mark.parametrize("probes", [None, 2])
def test_a_solver_makes_an_estimate_whoever_calls(probes: int | None) -> None:
    """Few steps of the probability flow lie above the exact likelihood: no bound."""
    model, x, truth = mixture()
    flow = with_probability_flow(model, 4, probes)
    report = evaluate(flow, x)
    assert report.stamp is Stamp.ESTIMATE
    assert score(flow, x).stamp is Stamp.ESTIMATE
    assert flow_bound(model, x, steps=4, probes=probes).report.stamp is Stamp.ESTIMATE
    assert report.scores is not None
    above = report.scores.value - truth
    if probes is None:
        assert float(above.mean()) > 4 * float(above.std()) / math.sqrt(len(x))


def test_importance_weights_of_a_random_density_are_refused() -> None:
    """``exp`` of an unbiased log-density is too large in the mean: at the top, and nested."""
    model, x, _ = mixture()
    nested = LatentDiffusion(2, latents=2, width=8, diffusion=Diffusion(2, width=8))
    for flow in (
        with_probability_flow(model, 8, probes=1),
        with_probability_flow(nested, 8, probes=2).double(),
    ):
        with pytest.raises(ValueError, match="too large in the mean"):
            evaluate(flow, x, importance_samples=8)
        with pytest.raises(ValueError, match="too large in the mean"):
            log_weights(flow, x, importance_samples=1)
    assert evaluate(with_probability_flow(model, 8), x[:9], importance_samples=2).importance
    with pytest.raises(ValueError, match="continuous time"):
        evaluate(Diffusion(2, width=8), x.float(), importance_samples=2)


def test_left_alone_all_levels_are_visited_or_sixteen() -> None:
    """Up to T = 1000 a bound; beyond, and in continuous time, an estimate with replicates."""
    x = torch.randn(20, 2)
    for steps, stamp in (
        (5, Stamp.BOUND),
        (1000, Stamp.BOUND),
        (1001, Stamp.ESTIMATE),
        (None, Stamp.ESTIMATE),
    ):
        report = evaluate(Diffusion(2, width=8, steps=steps), x)
        assert report.stamp is stamp
        assert (report.noise is None) is (stamp is Stamp.BOUND)


class Broken(nn.Module):
    """A network that gives NaN for some rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers a row."""
        return torch.where(x[:, :1] > 0, x[:, :2], torch.nan)


def test_what_is_not_finite_has_no_stamp() -> None:
    """The message names the term, and how many rows."""
    x = torch.randn(50, 2)
    model = VAE(2, encoder=GaussianEncoder(Broken(), (1,), spec=2), latents=1, width=8)
    broken = int((x[:, 0] <= 0).sum())
    with pytest.raises(ValueError, match=f"reconstruction term .* in {broken} of 50 rows"):
        evaluate(model, x)
    good = x[x[:, 0] > 0]
    assert evaluate(model, good).stamp is Stamp.BOUND


# ---------------------------------------------------------------------- the table


@pytest.mark.parametrize("importance_samples", [0, 4])
def test_a_report_prints_as_a_table_of_80_columns(importance_samples: int) -> None:
    """Also of a deep model with a long name; its repr is one line, its HTML has every cell."""
    deep = HVAE(SHAPE, BINS, latents=tuple(range(20, 2, -1)), width=8)
    for model in (small_vae(), deep, Diffusion(SHAPE, BINS, width=16, depth=1)):
        finite = model.prior.has_timesteps
        report = evaluate(
            model, X, importance_samples=0 if finite else importance_samples, name="m" * 90
        )
        lines = str(report).split("\n")
        assert max(map(len, lines)) <= 80
        assert len(lines) < 25
        assert report.stamp.value in str(report)
        assert "\n" not in repr(report)
        assert len(repr(report)) < 200
        assert f"{report.value}" in report._repr_html_()


def test_a_report_remarks_when_the_histogram_is_better() -> None:
    """Beside a data set with a training part; not where there is none, nor for real numbers."""
    data = digits()
    report = evaluate(small_vae(), data)
    counted = pixel_histogram(data.train, data.test, BINS)
    assert report.scores is not None
    behind = Estimate.of(counted.log_prob - report.scores.value)
    assert f"Worse than the per-pixel histogram by {behind} nats" in " ".join(str(report).split())
    assert report.to_dict()["remarks"] == list(report.remarks)
    assert evaluate(small_vae(), data.test).remarks == ()
    assert evaluate(VAE(2, latents=1, width=8), dataset(torch.randn(40, 2))).remarks == ()


class Constant(nn.Module):
    """The same numbers for every row."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        """A copy for each row."""
        return torch.tensor(self.values).expand(len(x), -1)


@pytest.mark.parametrize("logit", [0.0, 1.0])
def test_the_error_of_the_structural_part_is_that_of_its_rows(logit: float) -> None:
    """Each row has a probability of its own: cost minus entropy varies from row to row, also where the cost
    does not. 95 % intervals cover the truth: 0.00 of them did, and 0.89.
    """
    cost = 8 * (math.log1p(math.exp(logit)) - 0.5 * logit)
    truth, hit, rounds = cost - 4.0, 0, 30
    model = VAE(
        8,
        2,
        encoder=GaussianEncoder(Constant(0.0, 0.0), (1,), spec=DataSpec((8,), 2)),
        decoder=BernoulliDecoder(Constant(*8 * [logit]), (8,)),
        latents=1,
    )
    for r in range(rounds):
        g = torch.Generator().manual_seed(r)
        p = torch.rand(200, 1, generator=g).double().expand(-1, 8)
        bits = (torch.rand(200, 8, generator=g).double() < p).long()
        entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum(1)
        found = evaluate(model, Dataset("coins", bits[:1], bits[:0], bits, bins=2, entropy=entropy))
        assert found.structural is not None
        hit += abs(found.structural.mean - truth) < 1.96 * found.structural.error
    assert 0.85 <= hit / rounds <= 1.0
    assert found.structural is not None
    assert found.structural.error > 0.05


def test_progress_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(small_vae(), X)
    assert capsys.readouterr().out == ""
    evaluate(small_vae(), X, progress=True)
    assert "bound" in capsys.readouterr().out
