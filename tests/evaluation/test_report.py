"""Reports: totals are sums of terms, stamps say what a number is, errors are honest."""

from __future__ import annotations

import math

import pytest
import torch

from genmod import random
from genmod.data import binarized, digits
from genmod.elbo import Measure, Stamp
from genmod.evaluation import Estimate, Report, evaluate, pixel_histogram, score
from genmod.models import VAE, Autoencoder, Diffusion
from genmod.models.latent_diffusion import LatentDiffusion

X = digits().test[:96]
SHAPE, BINS = (1, 8, 8), 17


def small_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(SHAPE, BINS, latents=3, width=16)


@pytest.mark.parametrize(("draws", "replicates"), [(None, 1), (None, 3), (2, 3)])
def test_the_value_is_the_sum_of_its_terms(draws: int | None, replicates: int) -> None:
    """Flipped: the sign of the rates in ``Scores.value``; terms of the first replicate alone."""
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


def test_stamps_say_what_was_visited() -> None:
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
    assert str(estimate.times(-2)) == "-5.00 ± 1.29"


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
