"""Predictive checks: uniform where the data are the model's own, small where they are not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from genmod import data, plots
from genmod.decoders import (
    Columns,
    Decoder,
    GaussianDecoder,
    NegativeBinomialDecoder,
    PoissonDecoder,
    StudentTDecoder,
    ZeroInflatedNegativeBinomialDecoder,
)
from genmod.decoders.columns import ColumnLaw
from genmod.distributions import Normal
from genmod.encoders import GaussianEncoder
from genmod.evaluation import predictive_check
from genmod.evaluation.predictive import PredictiveCheck, probabilities
from genmod.evaluation.statistics import Group, correlations
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder
from genmod.nn import Labels
from genmod.priors import NormalPrior
from genmod.spec import Column, DataSpec
from tests.oracles_vae import affine, gaussian_head
from tests.statistics import assert_equal_means, assert_mean

COUNTS = DataSpec(
    (2,), columns=[Column("visits", "count", mean=2.0), Column("calls", "count", mean=2.0)]
)


def linear(rows: Tensor, scale: float = 0.5) -> LatentModel:
    """``x = rows z + noise``."""
    units, dims = rows.shape[1], len(rows)
    head = gaussian_head(torch.zeros(units, dims), torch.zeros(units), torch.ones(units))
    decoder = GaussianDecoder(affine(rows, torch.zeros(dims)), (dims,), scale)
    return LatentModel(GaussianEncoder(head, (units,)), decoder, NormalPrior((units,)))


def test_tail_probabilities_of_the_models_own_data_are_uniform() -> None:
    """Replicates in groups of 20, of which the first stands for the data: uniform on the ranks."""
    torch.manual_seed(0)
    model = linear(torch.tensor([[1.0], [0.6]]))
    own = {"largest product": lambda x: (x[:, 0] * x[:, 1]).max()}
    x = model.sample(30)
    found = predictive_check(model, x, replicates=240, statistics=own)
    assert found.misfits == ()
    assert found.overall > 0.05
    assert bool((found.tail >= 0.01).all())
    tails, overall, misfits = [], [], 0
    for group in found.replicated.split(20):
        tail, adjusted, together = probabilities(group[0], group[1:], found.names)
        tails.append(tail)
        overall.append(together)
        misfits += bool((adjusted <= 0.1).any())
    every = torch.stack(tails)
    # Uniform on 2/20, 4/20, ..., 1: the mean is 0.55. Statistics of one data set depend on each other.
    assert_mean(every.mean(1), 0.55, name="tail")
    assert_mean((every <= 0.25).double().mean(1), 0.2, name="tail up to 0.25")
    assert_mean(torch.tensor(overall, dtype=torch.float64), 0.525, name="overall")
    assert misfits <= 5  # 1.2 expected of 12; more than 5 has a chance below 1e-3
    # The replicates are draws of the model: they have the statistics of samples.
    drawn = model.sample(6000).reshape(200, 30, 2)
    place = found.names.index("standard deviation of x0")
    assert_equal_means(found.replicated[:, place], drawn[..., 0].double().std(1))
    place = found.names.index("correlation of x0 and x1")
    pairs = torch.stack([torch.corrcoef(each.double().T)[0, 1] for each in drawn])
    assert_equal_means(found.replicated[:, place], pairs)


def over_dispersed(rows: int) -> Tensor:
    """Counts of gamma-distributed rates: a variance of several times the mean, and many zeros."""
    rate = torch.distributions.Gamma(0.6, 0.3).sample((rows, 2))
    return torch.poisson(rate)


def test_a_poisson_model_of_overdispersed_counts_is_caught_and_a_negative_binomial_is_not() -> None:
    """Both have the right mean; by the spread and the zeros, with a verdict that names the remedy."""
    torch.manual_seed(0)
    x = over_dispersed(300)
    poisson = predictive_check(counts(PoissonDecoder), x, replicates=40)
    assert "standard deviation of visits" in poisson.misfits
    assert "share of zeros of visits" in poisson.misfits
    assert "mean of visits" not in poisson.misfits
    assert "NegativeBinomialDecoder" in poisson.verdict
    assert "replicates are below the data" in poisson.verdict
    good = predictive_check(counts(NegativeBinomialDecoder), x, replicates=40)
    assert good.misfits == ()
    assert good.overall > 0.05
    assert good.verdict.startswith("No misfit")


def counts(kind: type[PoissonDecoder | NegativeBinomialDecoder]) -> VAE:
    """A model of the column means alone, with the concentration of :func:`over_dispersed`."""
    network = affine(torch.zeros(2, 1), torch.zeros(2))
    decoder = kind(network, COUNTS)
    if isinstance(decoder, NegativeBinomialDecoder):
        nn.init.constant_(decoder.log_concentration, math.log(0.6) / 10)
    return VAE(COUNTS, latents=1, width=8, decoder=decoder)


@pytest.mark.usefixtures("float64")
def test_a_gaussian_model_of_heavy_tails_is_caught_by_its_extremes() -> None:
    torch.manual_seed(0)
    x = torch.distributions.StudentT(2.0).sample((300, 1))
    model = linear(torch.zeros(1, 1), float(x.std()))
    found = predictive_check(model, x, replicates=40)
    assert found.overall <= 0.05
    assert any("maximum" in name or "minimum" in name for name in found.misfits)
    assert StudentTDecoder.__name__ in found.verdict


@pytest.mark.usefixtures("float64")
def test_what_a_model_has_already_is_not_advised() -> None:
    """Column by column: tables have Student's t, a predicted scale and a negative binomial by default."""
    torch.manual_seed(0)
    spec = DataSpec((3,), columns=[Column("a"), Column("b"), Column("n", "count", mean=2.0)])
    laws: dict[str, ColumnLaw] = {"b": GaussianDecoder}
    decoder = Columns.of(lambda outputs: nn.Linear(1, outputs), spec, laws)
    model = VAE(spec, latents=1, width=8, decoder=decoder)
    x = torch.stack([torch.zeros(60), torch.zeros(60), over_dispersed(60)[:, 0]], 1)
    x[:2, :2] = torch.tensor([[1e5], [-1e5]])  # two outliers are out of reach of any of these laws
    verdict = predictive_check(model, x, replicates=39).verdict
    sentences = verdict.split(". ")
    tails = [each for each in sentences if "StudentTDecoder" in each]
    assert [each.split(":")[0] for each in tails] == ["minimum of b", "maximum of b"]
    assert not any("of a:" in each and "decoders." in each for each in sentences)
    for used, low, high in (
        (set[type](), "NegativeBinomialDecoder, or for more zeros use", "PoissonDecoder"),
        ({NegativeBinomialDecoder}, "for more zeros use decoders.Zero", "PoissonDecoder"),
        ({ZeroInflatedNegativeBinomialDecoder}, "train longer, or with more latents", "Poisson"),
        ({PoissonDecoder}, "use decoders.NegativeBinomialDecoder", "data; train longer"),
    ):
        group = Group.COUNTED_SPREAD
        assert low in group.advice("maximum of n", model_too_low=True, used=frozenset(used))
        assert high in group.advice("maximum of n", model_too_low=False, used=frozenset(used))


def test_advice_is_withheld_for_the_class_itself_whatever_it_is_called() -> None:
    """A subclass has what its base class has; another class of the same name has not."""
    mine = type("Mine", (StudentTDecoder,), {})
    namesake = type("StudentTDecoder", (GaussianDecoder,), {})
    for kind, advised in ((mine, False), (namesake, True)):
        used = frozenset(kind.__mro__)
        advice = Group.TAIL.advice("maximum of x", model_too_low=True, used=used)
        assert ("decoders.StudentTDecoder" in advice) is advised


def test_replicates_that_differ_in_the_last_digit_are_drawn() -> None:
    """A correlation of one, up to rounding."""
    replicated = torch.tensor([[1.0], [1.0 - 2.0**-53]] * 20, dtype=torch.float64)
    one, small = torch.ones(1), torch.tensor([0.02])
    names, groups = ("correlation of x0 and x1",), (Group.CORRELATION,)
    check = PredictiveCheck("VAE", 9, names, one, replicated, small, small, 0.02, groups)
    (axes,) = plots.predictive_check(check).axes
    assert sum(float(bar.get_height()) for bar in axes.containers[0]) == 40


@pytest.mark.parametrize(
    ("name", "group", "wider", "narrower"),
    [
        ("minimum of x0", Group.TAIL, "StudentTDecoder", "GaussianDecoder"),
        ("5 % quantile of x0", Group.SPREAD, "or use more latents", "noise is too wide"),
    ],
)
def test_a_minimum_below_the_replicates_calls_for_more_spread(
    name: str, group: Group, wider: str, narrower: str
) -> None:
    """A lower end that is too high is a spread that is too small; the other way for an upper end."""
    upper = {"minimum of x0": "maximum of x0"}.get(name, "95 % quantile of x0")
    replicated, small = -5.0 + torch.linspace(0, 1, 40)[:, None], torch.tensor([0.02])
    for end, data_at, remedy in (
        (name, -50.0, wider), (name, 5.0, narrower), (upper, -50.0, narrower), (upper, 5.0, wider),
    ):  # fmt: skip
        check = PredictiveCheck(
            "VAE", 9, (end,), torch.tensor([data_at]), replicated, small, small, 0.02, (group,)
        )
        assert remedy in check.verdict
        assert f"the replicates are {'above' if data_at < 0 else 'below'} the data" in check.verdict


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
    """A model whose mean is three times the label: in the right rows for their own labels alone."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 2
    model = VAE(1, latents=1, width=8, condition=Labels(2), decoder=_Labeled(1))
    x = torch.randn(60, 1) + 3.0 * labels[:, None]
    gap = {"gap": lambda rows: rows[labels == 1].mean() - rows[labels == 0].mean()}
    fitted = predictive_check(model, x, labels, replicates=39, statistics=gap)
    assert "gap" not in fitted.misfits
    swapped = predictive_check(model, x, 1 - labels, replicates=39, statistics=gap)
    assert "gap" in swapped.misfits
    # Ids change the noise, not which row has which context.
    ids = torch.randperm(60)
    mixed = predictive_check(model, x, labels, replicates=39, statistics=gap, ids=ids)
    assert "gap" not in mixed.misfits


class _Labeled(Decoder):
    """``N(3 label, 1)``."""

    def forward(self, state: Tensor, context: Tensor | None = None) -> Normal:
        assert context is not None
        mean = 3.0 * context[:, None].to(state)
        return Normal(mean, torch.zeros_like(mean))


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
    assert pictures.overall <= 0.05
    assert "StudentT" not in pictures.verdict
    assert "as a count" not in pictures.verdict
    none = replace(pictures, adjusted=torch.ones_like(pictures.adjusted))
    assert "all 15 statistics together" in none.verdict


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
    with pytest.raises(ValueError, match=r"'broken'.*finite numbers.*nanmean"):
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
