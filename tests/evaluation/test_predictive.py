"""Predictive checks: uniform where the data are the model's own, small where they are not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genmod import data, fit
from genmod.decoders import (
    GaussianDecoder,
    NegativeBinomialDecoder,
    PoissonDecoder,
    StudentTDecoder,
)
from genmod.encoders import GaussianEncoder
from genmod.evaluation import PredictiveCheck, predictive_check
from genmod.evaluation.statistics import correlations
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder
from genmod.nn import MLP, Labels
from genmod.priors import NormalPrior
from genmod.spec import Column, DataSpec
from tests.oracles_vae import affine, gaussian_head
from tests.statistics import assert_mean

COUNTS = DataSpec((2,), columns=[Column("visits", "count", mean=2.0), Column("calls", "count")])


def linear(rows: Tensor, scale: float = 0.5) -> LatentModel:
    """``x = rows z + noise``."""
    units, dims = rows.shape[1], len(rows)
    head = gaussian_head(torch.zeros(units, dims), torch.zeros(units), torch.ones(units))
    decoder = GaussianDecoder(affine(rows, torch.zeros(dims)), (dims,), scale)
    return LatentModel(GaussianEncoder(head, (units,)), decoder, NormalPrior((units,)))


def test_tail_probabilities_of_the_models_own_data_are_uniform() -> None:
    """Over 60 data sets of the model: each probability is uniform on its ranks, and few are misfits."""
    torch.manual_seed(0)
    model = linear(torch.tensor([[1.0], [0.6]]))
    own = {"largest product": lambda x: (x[:, 0] * x[:, 1]).max()}
    tails, overall, misfits = [], [], []
    for seed in range(60):
        x = model.sample(40)
        found = predictive_check(model, x, replicates=39, seed=seed, statistics=own)
        tails.append(found.tail)
        overall.append(found.overall)
        misfits.append(bool(found.misfits))
    every = torch.stack(tails)
    names = found.names
    # Uniform on 2/40, 4/40, ..., 1: the mean is 0.525. Statistics of one data set depend on each other.
    assert_mean(every.mean(1), 0.525, name="tail")
    for place, name in enumerate(names):
        assert_mean(every[:, place], 0.525, name=name)
        assert_mean((every[:, place] <= 0.25).double(), 0.25, name=name)
    assert_mean(torch.tensor(overall, dtype=torch.float64), 0.5125, name="overall")
    assert sum(misfits) <= 9  # 3 expected; more than 9 has a chance of 1e-3
    assert "largest product" in names


def over_dispersed(rows: int) -> Tensor:
    """Counts of gamma-distributed rates: a variance of several times the mean, and many zeros."""
    rate = torch.distributions.Gamma(0.6, 0.3).sample((rows, 2))
    return torch.poisson(rate)


def test_a_poisson_model_of_overdispersed_counts_is_caught_and_a_negative_binomial_is_not() -> None:
    """By the spread and the zeros, with a verdict that names the remedy."""
    torch.manual_seed(0)
    x = over_dispersed(300)
    found: dict[str, PredictiveCheck] = {}
    for kind in (PoissonDecoder, NegativeBinomialDecoder):
        model = VAE(COUNTS, latents=1, width=8, decoder=kind(MLP(1, 2, width=8), COUNTS))
        fit(model, x, steps=150, learning_rate=3e-3, progress=False)
        found[kind.__name__] = predictive_check(model, x, replicates=60)
    poisson = found["PoissonDecoder"]
    assert "standard deviation of visits" in poisson.misfits
    assert "share of zeros of visits" in poisson.misfits
    assert "NegativeBinomialDecoder" in poisson.verdict
    assert "replicates are below the data" in poisson.verdict
    good = found["NegativeBinomialDecoder"]
    assert good.misfits == ()
    assert good.overall > 0.05
    assert good.verdict.startswith("No misfit")


@pytest.mark.usefixtures("float64")
def test_a_gaussian_model_of_heavy_tails_is_caught_by_its_extremes() -> None:
    torch.manual_seed(0)
    x = torch.distributions.StudentT(2.0).sample((300, 1))
    columns = DataSpec((1,), columns=[Column("income", std=float(x.std()))])
    decoder = GaussianDecoder(MLP(1, 1, width=4), columns)
    model = VAE(columns, latents=1, width=4, decoder=decoder)
    fit(model, x, steps=100, learning_rate=3e-3, progress=False)
    found = predictive_check(model, x, replicates=60)
    assert found.overall <= 0.05
    assert any("maximum" in name or "minimum" in name for name in found.misfits)
    assert StudentTDecoder.__name__ in found.verdict


@pytest.mark.usefixtures("float64")
def test_replicates_lack_the_entries_that_the_data_lack() -> None:
    """Values under the mask change nothing; each statistic sees as many entries in both."""
    model = linear(torch.randn(3, 2))
    x, seen = model.sample(30), torch.rand(30, 3) < 0.6
    counted: list[Tensor] = []

    def count(rows: Tensor) -> Tensor:
        counted.append((~rows.isnan()).sum(0))
        return torch.nanmean(rows, 0)

    found = predictive_check(model, x, replicates=39, observed=seen, statistics={"own": count})
    assert all(torch.equal(each, seen.sum(0)) for each in counted)
    assert len(counted) == 40
    other = predictive_check(
        model, torch.where(seen, x, 1e6), replicates=39, observed=seen, batch_size=4
    )
    torch.testing.assert_close(other.observed, found.observed[:-3])
    torch.testing.assert_close(other.replicated, found.replicated[:, :-3])
    means = found.observed[[found.names.index(f"mean of x{place}") for place in range(3)]]
    torch.testing.assert_close(means, (x * seen).sum(0) / seen.sum(0))
    assert found.names[-3:] == ("own 0", "own 1", "own 2")
    torch.testing.assert_close(found.observed[-3:], means)


@pytest.mark.usefixtures("float64")
def test_replicates_keep_the_contexts_of_the_rows() -> None:
    """Of a conditional model the share of rows by group is that of the data."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 2
    model = VAE(1, latents=1, width=8, condition=Labels(2))
    x = torch.randn(60, 1) + 3.0 * labels[:, None]
    gap = {"gap": lambda rows: rows[labels == 1].mean() - rows[labels == 0].mean()}
    dull = predictive_check(model, x, labels, replicates=39, statistics=gap)
    assert "gap" in dull.misfits
    rows = (x, labels)
    fit(model, data.conditional(data.load(rows, validation=0.0, test=0.0), 0.0), steps=300,
        learning_rate=1e-2, progress=False)  # fmt: skip
    fitted = predictive_check(model, x, labels, replicates=39, statistics=gap)
    assert "gap" not in fitted.misfits
    plain = predictive_check(model, x, labels.flip(0).roll(1), replicates=39, statistics=gap)
    assert "gap" not in plain.names[:-1]


def test_every_kind_of_column_has_its_statistics() -> None:
    columns = [
        Column("height", mean=170.0, std=10.0),
        Column("color", "category", ("red", "green")),
        Column("grade", "ordinal", (1, 2, 3)),
        Column("year", "integer", mean=2000.0, std=5.0),
        Column("visits", "count", mean=2.0),
    ]
    spec = DataSpec((5,), columns=columns)
    torch.manual_seed(0)
    model = HVAE(spec, latents=(2, 2), width=8)
    x = model.sample(25)
    found = predictive_check(model, x, replicates=39)
    shares = found.observed[[found.names.index(f"share of color={v}") for v in ("red", "green")]]
    assert float(shares.sum()) == pytest.approx(1.0)
    assert float(shares[0]) == pytest.approx(float((x[:, 1] == 0).double().mean()))
    assert "mean of color" not in found.names
    assert "share of zeros of grade" not in found.names
    index = found.names.index("correlation of height and visits")
    expected = torch.corrcoef(x[:, [0, 4]].double().T)[0, 1]
    assert float(found.observed[index]) == pytest.approx(float(expected), abs=1e-9)
    assert set(found.to_dict()) == set(found.names)
    assert "tail" in repr(found)
    digits = data.load("digits").cut("test", 20)
    pictures = predictive_check(VAE(digits, latents=2, width=8), digits, replicates=39)
    assert "share of zeros of all entries" in pictures.names
    assert "standard deviation of row means" in pictures.names
    assert pictures.misfits


def test_correlations_with_holes_are_those_of_the_complete_pairs() -> None:
    """Far from zero as well; a constant column has none."""
    torch.manual_seed(0)
    x = torch.randn(200, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64) + 1e6
    x[torch.rand(200, 3) < 0.3] = torch.nan
    found = correlations(x)
    for one, two in ((0, 1), (0, 2), (1, 2)):
        both = ~(x[:, one].isnan() | x[:, two].isnan())
        expected = torch.corrcoef(x[both][:, [one, two]].T)[0, 1]
        assert float(found[one, two]) == pytest.approx(float(expected), abs=1e-6)
    x[:, 0] = 7.0
    assert float(correlations(x)[0, 1]) == 0.0


@pytest.mark.usefixtures("as_users_run")
def test_bad_checks_are_refused() -> None:
    model, x = VAE(2, latents=1, width=8), torch.randn(9, 2)
    with pytest.raises(ValueError, match=r"replicates=20.*at least 39"):
        predictive_check(model, x, replicates=20)
    with pytest.raises(ValueError, match="'broken'.*finite numbers.*nanmean"):
        predictive_check(model, x, statistics={"broken": lambda rows: math.nan}, replicates=39)
    with pytest.raises(ValueError, match="whose number changes"):
        predictive_check(
            model, x, replicates=39, statistics={"positive": lambda rows: rows[rows > 0].flatten()}
        )
    with pytest.raises(ValueError, match="flat prior"):
        predictive_check(Autoencoder(2, latents=1, width=8), x, replicates=39)
    seen = torch.ones(9, 2, dtype=torch.bool)
    seen[1:, 1] = False
    with pytest.raises(ValueError, match="1 observed entries of x1"):
        predictive_check(model, x, observed=seen, replicates=39)
