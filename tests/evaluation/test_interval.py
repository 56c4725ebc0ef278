"""The evidence interval: both ends around the truth, its errors, its tails, and its blind spot."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from genmod.data.images import digits
from genmod.elbo import Measure
from genmod.evaluation import Estimate, Report, evaluate
from genmod.evaluation import evidence as module
from genmod.evaluation.baselines import pixel_histogram
from genmod.evaluation.evidence import Evidence, pareto_shape
from genmod.models import VAE, Autoencoder
from genmod.runs.reports import report_from
from tests.oracles_vae import ppca
from tests.statistics import MAX_Z
from tests.test_evidence import log_evidence, tiny

X = digits().test[:96]
SHAPE, BINS = (1, 8, 8), 17


def of(weights: Tensor) -> Evidence:
    """The evidence of some weights, all at once."""
    found = Evidence(*weights.shape)
    found.add(weights)
    return found


def gaussian(rows: int, samples: int, broad: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-weights ``(rows, samples)`` and ``log p`` of p(z) = N(0, 1), p(x | z) = N(z, 1).

    The posterior N(x / 2, 1 / 2) is ``broad`` times too broad.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, std = 2**0.5 * normal(rows, 1), broad * 0.5**0.5
    z = x / 2 + std * normal(rows, samples)
    standard = Normal(0.0, 1.0)
    weights = standard.log_prob(z) + standard.log_prob(x - z) - Normal(x / 2, std).log_prob(z)
    return weights, Normal(0.0, 2**0.5).log_prob(x[:, 0])


# ---------------------------------------------------------------------- both ends


@pytest.mark.parametrize("samples", [4, 16, 128])
def test_the_interval_holds_the_evidence(samples: int) -> None:
    """A posterior 1.5 times too broad: floor <= log p <= ceiling in the mean.

    ``k`` times each gap tends to chi-squared / 2, ``k`` the draws of one half.
    """
    weights, truth = gaussian(4000, samples, 1.5)
    found = of(weights)
    gaps = truth - found.floors, found.ceilings - truth
    for gap in gaps:
        assert float(gap.mean()) / (float(gap.std()) / math.sqrt(len(gap))) > -MAX_Z
    if samples == 128:
        k, chi = samples // 2, 1.5**2 / math.sqrt(2 * 1.5**2 - 1) - 1
        for gap in gaps:
            error = k * float(gap.std()) / math.sqrt(len(gap))
            assert abs(k * float(gap.mean()) - chi / 2) < MAX_Z * error


def by_the_formula(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Floor and ceiling of each row: the tangent bound with the halves in both roles."""
    halves = weights.chunk(2, 1)
    low = [half.exp().mean(1).log() for half in halves]
    high = [
        c + half.exp().mean(1) / c.exp() - 1 for c, half in zip(low, reversed(halves), strict=True)
    ]
    return (low[0] + low[1]) / 2, (high[0] + high[1]) / 2


def test_the_ends_are_the_means_of_their_rows() -> None:
    """Also from groups of rows, one after another."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(50, 6, dtype=torch.float64, generator=generator) / 2
    low, high = of(weights).interval(Measure.DENSITY)
    expected = by_the_formula(weights)
    assert low.mean == pytest.approx(float(expected[0].mean()))
    assert high.mean == pytest.approx(float(expected[1].mean()))
    assert high.error == pytest.approx(float(expected[1].std()) / math.sqrt(50))
    groups = Evidence(50, 6)
    for part in weights.split(7):
        groups.add(part)
    assert groups.interval(Measure.DENSITY) == (low, high)
    assert groups.pareto_k == of(weights).pareto_k
    assert groups.importance == of(weights).importance


def test_a_constant_of_each_row_moves_both_ends_and_no_tail() -> None:
    """The scale of ``p(x)`` differs from row to row by hundreds of nats."""
    weights = gaussian(50, 32, 1.5)[0]
    constant = 100 * torch.arange(50, dtype=torch.float64)
    plain, moved = of(weights), of(weights + constant[:, None])
    torch.testing.assert_close(moved.floors, plain.floors + constant)
    torch.testing.assert_close(moved.ceilings, plain.ceilings + constant)
    assert moved.pareto_k == pytest.approx(plain.pareto_k, rel=1e-6)
    assert moved.heavy == plain.heavy


def test_the_errors_count_rows_and_draws() -> None:
    """Over fresh rows and draws the ends vary as their errors say."""
    found = [of(gaussian(30, 16, 1.5, seed)[0]).interval(Measure.DENSITY) for seed in range(300)]
    for ends in zip(*found, strict=True):
        spread = float(torch.tensor([end.mean for end in ends]).std())
        stated = sum(end.error for end in ends) / len(ends)
        assert 0.85 < stated / spread < 1.15


def errors_of_draws(weights: Tensor) -> tuple[float, float]:
    """The standard errors of both ends if the rows are fixed, and only the draws vary.

    The variance of the log of a mean is that of the weights over their number and squared mean.
    """
    split = torch.stack(weights.chunk(2, 1), 1)
    logs = split.exp().mean(2, keepdim=True).log()
    variances = (split - logs).exp().var(2) / split.shape[2]
    slope = (logs[:, 0] - logs[:, 1]).sinh()
    low = 0.25 * variances.sum(1)
    high = ((0.5 + torch.tensor([1.0, -1.0]) * slope).square() * variances).sum(1)
    return float(low.sum().sqrt()) / len(low), float(high.sum().sqrt()) / len(high)


@pytest.mark.parametrize("samples", [16, 128])
@pytest.mark.parametrize("oracle", ["linear", "bits"])
@pytest.mark.usefixtures("float64")
def test_the_interval_of_fixed_rows_covers_their_evidence(oracle: str, samples: int) -> None:
    """Floor and ceiling, 1.96 errors of the draws wider, in 200 replicates: at least 92 % cover.

    Intervals that cover 85 % of the time would do so in one run of 300.
    """
    rows, replicates = 12, 200
    if oracle == "linear":
        x = 2**0.5 * torch.randn(rows, 1, generator=torch.Generator().manual_seed(0))
        truth, std = Normal(0.0, 2**0.5).log_prob(x[:, 0]), 1.5 * 0.5**0.5
        z = x / 2 + std * torch.randn(replicates, rows, samples)
        standard = Normal(0.0, 1.0)
        weights = standard.log_prob(z) + standard.log_prob(x - z) - Normal(x / 2, std).log_prob(z)
    else:
        # As wide as the prior, beyond which the likelihood has a floor: chi-squared is finite.
        model, states = tiny("bits")
        with torch.no_grad():
            for parameter in list(model.encoder.parameters())[-2:]:
                parameter[1] = 0.0  # the log of the std
        x = states[:: len(states) // rows][:rows]
        truth = log_evidence(model, x)
        many = x.repeat_interleave(samples, 0).repeat(replicates, 1)
        weights = model.log_weight(many).reshape(replicates, rows, samples)
    covered, vacuous = 0, 0
    for each in weights:
        found = of(each)
        low, high = found.interval(Measure.DENSITY)
        errors = errors_of_draws(each)
        vacuous += found.heavy
        below = low.mean - 1.96 * errors[0] <= float(truth.mean())
        covered += below and float(truth.mean()) <= high.mean + 1.96 * errors[1]
    assert covered / replicates >= 0.92
    assert vacuous / replicates < 0.2


# ---------------------------------------------------------------------- tails


@pytest.mark.parametrize("k", [0.1, 0.5, 0.9, 1.5])
def test_the_shape_of_a_pareto_tail_is_found(k: float) -> None:
    u = torch.rand(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = pareto_shape((u**-k - 1) / k)
    assert found == pytest.approx(k, abs=0.08)
    assert pareto_shape(3 * (u**-k - 1) / k) == pytest.approx(found, abs=1e-6)
    assert pareto_shape(u[:4]) is None
    assert pareto_shape(torch.zeros(50)) is None


@pytest.mark.parametrize("broad", [0.3, 1.0, 1.5])
def test_heavy_weights_leave_a_vacuous_ceiling_and_the_report_says_so(broad: float) -> None:
    """A posterior far too narrow has a Pareto k of 1 - broad^2; a broad one has none above 0.7."""
    weights = gaussian(500, 64, broad)[0]
    found = of(weights)
    low, high = found.interval(Measure.DENSITY)
    if broad == 0.3:
        assert found.pareto_k == pytest.approx(1 - broad**2, abs=0.15)
        assert high == Estimate(math.inf, math.inf)
        assert found.interval(Measure.MASS) == (low, high)
    else:
        assert found.pareto_k is None or found.pareto_k < 0.6
        assert high.mean >= low.mean
        assert math.isfinite(high.error)


@pytest.mark.usefixtures("float64")
def test_a_report_names_the_tail_of_its_weights() -> None:
    """Printed, and in its plain data; back from JSON with infinite ends."""
    oracle = ppca()
    x = oracle.law.sample((200,))
    for broad in (0.3, 1.3):
        model = oracle.model(oracle.diagonal(broad * oracle.posterior.std))
        report = evaluate(model, x, importance_samples=32)
        assert report.interval is not None
        assert report.pareto_k is not None
        heavy = broad < 1
        assert (report.pareto_k > 0.7) is heavy
        assert math.isinf(report.interval[1].mean) is heavy
        assert ("vacuous" in str(report)) is heavy
        assert f"{report.pareto_k:.2f}" in str(report)
        again = report_from(json.loads(json.dumps(report.to_dict())))
        assert again.interval == report.interval
        assert again.pareto_k == report.pareto_k


def test_one_draw_that_outweighs_all_others_is_heavy() -> None:
    weights = torch.zeros(5, 4, dtype=torch.float64)
    weights[2, 1] = 60.0
    assert of(weights).heavy
    assert not of(torch.zeros(5, 4, dtype=torch.float64)).heavy
    gone = torch.full((5, 4), -math.inf, dtype=torch.float64)
    assert of(gone).heavy
    for broken in (math.nan, math.inf):
        weights[2, 1] = broken
        with pytest.raises(ValueError, match="NaN or infinite in 1 of 5 rows"):
            of(weights)


def test_only_the_mean_of_a_mass_is_cut_at_zero() -> None:
    """Rows above 0 stay; the error stays."""
    generator = torch.Generator().manual_seed(0)
    weights = 0.3 * torch.randn(200, 4, dtype=torch.float64, generator=generator) + 0.1
    plain, cut = (of(weights).interval(measure)[1] for measure in (Measure.DENSITY, Measure.MASS))
    assert plain.mean > 0
    assert cut == Estimate(0.0, plain.error)
    below = of(weights - 0.3)
    assert below.interval(Measure.MASS) == below.interval(Measure.DENSITY)
    assert bool((below.ceilings > 0).any())


def test_a_mode_that_q_misses_is_a_blind_spot() -> None:
    """Half of the posterior is far from q: the interval is tight, not heavy, and too low by ln 2."""
    z = -9 + torch.randn(300, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    both = torch.stack([Normal(mean, 1.0).log_prob(z) for mean in (-9.0, 9.0)]).logsumexp(0)
    found = of(both - math.log(2) - Normal(-9.0, 1.0).log_prob(z))
    low, high = found.interval(Measure.DENSITY)
    assert not found.heavy
    assert low.mean == pytest.approx(-math.log(2), abs=1e-6)
    assert high.mean == pytest.approx(-math.log(2), abs=1e-6)


# ---------------------------------------------------------------------- in a report


def small_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(SHAPE, BINS, latents=3, width=16)


def test_weights_are_computed_in_groups_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers from groups of four rows: memory grows with neither rows nor draws."""
    whole = evaluate(small_vae(), X, importance_samples=8)
    monkeypatch.setattr(module, "_GROUP", 32)
    assert Evidence.rows_at_a_time(8) == 4
    assert Evidence.rows_at_a_time(1000) == 1
    grouped = evaluate(small_vae(), X, importance_samples=8)
    assert grouped.importance is not None
    assert whole.importance is not None
    assert grouped.importance.mean == pytest.approx(whole.importance.mean, rel=1e-6)
    assert grouped.pareto_k == pytest.approx(whole.pareto_k, rel=1e-3)
    assert grouped.interval is not None
    assert whole.interval is not None
    for few, all_at_once in zip(grouped.interval, whole.interval, strict=True):
        assert few.mean == pytest.approx(all_at_once.mean, rel=1e-6)


def test_without_importance_samples_the_ends_are_what_is_known() -> None:
    report = evaluate(small_vae(), X)
    assert report.interval == (report.value, Estimate(0.0, 0.0))
    real = evaluate(VAE(2, latents=1, width=8), torch.randn(9, 2))
    assert real.interval == (real.value, Estimate(math.inf, math.inf))
    exact = Report.of_baseline(pixel_histogram(X, X, BINS), 64, Measure.MASS)
    assert exact.interval == (exact.value, exact.value)
    nothing = evaluate(Autoencoder(SHAPE, BINS, latents=3, width=16), X)
    assert nothing.interval is None
    assert nothing.to_dict()["interval"] is None
