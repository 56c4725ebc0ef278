"""Laws of a table's columns: masses that sum to one and equal SciPy's, draws that follow them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal

from genmod import random
from genmod.distributions import Categorical, NegativeBinomial, Normal, Poisson
from genmod.distributions.base import Factorized, masked_log_prob, moved
from genmod.distributions.composed import Joined, Rescaled
from genmod.distributions.counts import ZeroInflated
from genmod.distributions.discrete import IntegerLogistic, OrderedCategorical
from genmod.distributions.reals import LaplaceDensity, StudentT

pytestmark = pytest.mark.usefixtures("float64")

FINITE = st.floats(-6, 8)


def row(*numbers: float) -> Tensor:
    """One row of numbers."""
    return torch.tensor([numbers])


def counts(most: int = 400) -> Tensor:
    """Every count up to a limit, as the entries of one row."""
    return torch.arange(most + 1, dtype=torch.get_default_dtype())[None]


def same(found: Tensor, expected: np.ndarray, rtol: float = 1e-9) -> None:
    """Equal to SciPy's logarithms, where they are not lost in underflow."""
    wanted = torch.as_tensor(expected)
    finite = wanted > -600
    torch.testing.assert_close(found[finite], wanted[finite], rtol=rtol, atol=1e-9)


@given(log_mean=FINITE)
def test_poisson_masses_are_scipys(log_mean: float) -> None:
    k = counts()
    law = Poisson(torch.full_like(k, log_mean))
    same(law.elementwise(k), stats.poisson.logpmf(k.numpy(), math.exp(log_mean)))


@given(log_mean=FINITE, log_r=st.floats(-4, 14))
def test_negative_binomial_masses_are_scipys(log_mean: float, log_r: float) -> None:
    """Also where r is large and the law is almost a Poisson's."""
    k, m, r = counts(), math.exp(log_mean), math.exp(log_r)
    law = NegativeBinomial(torch.full_like(k, log_mean), torch.tensor(log_r))
    # SciPy's own mass loses digits where r / (r + m) is near one.
    rtol = 1e-9 if log_r < 8 else 1e-5
    same(law.elementwise(k), stats.nbinom.logpmf(k.numpy(), r, r / (r + m)), rtol)


def test_a_negative_binomial_of_a_huge_concentration_is_poisson() -> None:
    k = counts()
    law = NegativeBinomial(torch.full_like(k, 1.3), torch.tensor(40.0))
    torch.testing.assert_close(
        law.elementwise(k), Poisson(torch.full_like(k, 1.3)).elementwise(k), rtol=1e-9, atol=1e-8
    )


@given(log_mean=st.floats(-4, 4), log_r=st.floats(-2, 6), logit=st.floats(-5, 5))
@settings(max_examples=50)
def test_masses_of_counts_sum_to_one(log_mean: float, log_r: float, logit: float) -> None:
    k = counts(20_000)
    plain = Poisson(torch.full_like(k, log_mean))
    wide = NegativeBinomial(torch.full_like(k, log_mean), torch.tensor(log_r))
    for law in (plain, wide):
        odds = torch.full_like(k, logit)
        for each in (law, ZeroInflated(law, odds)):
            mass = each.elementwise(k).exp()
            assert float(mass.sum()) == pytest.approx(1, abs=1e-9)
            assert float((mass * k).sum()) == pytest.approx(float(each.mean[0, 0]), rel=1e-6)
            square = float((mass * k.square()).sum()) - float((mass * k).sum()) ** 2
            assert square == pytest.approx(float(each.variance[0, 0]), rel=1e-5)


@given(logit=st.floats(-8, 8))
def test_zero_inflation_adds_its_probability_at_zero(logit: float) -> None:
    k = counts(30)
    base = Poisson(torch.full_like(k, 0.7))
    found = ZeroInflated(base, torch.full_like(k, logit)).elementwise(k).exp()
    pi = 1 / (1 + math.exp(-logit))
    expected = (1 - pi) * base.elementwise(k).exp()
    expected[0, 0] += pi
    torch.testing.assert_close(found, expected)


@given(eta=st.floats(-30, 30), gaps=st.lists(st.floats(0.01, 5), min_size=1, max_size=6))
def test_ordered_masses_sum_to_one_and_are_differences_of_the_logistic(
    eta: float, gaps: list[float]
) -> None:
    inner = torch.tensor(gaps).cumsum(0) - sum(gaps) / 2
    ends = torch.cat([row(-math.inf)[0], inner, row(math.inf)[0]])
    law = OrderedCategorical(row(eta), ends[None])
    codes = torch.arange(len(gaps) + 1)
    each = OrderedCategorical(torch.full((1, len(codes)), eta), ends.expand(len(codes), -1))
    mass = each.elementwise(codes[None]).exp()
    torch.testing.assert_close(mass.sum(), torch.tensor(1.0))
    torch.testing.assert_close(mass, law.masses()[0])
    torch.testing.assert_close(mass[0], (ends - eta).sigmoid().diff(), atol=1e-12, rtol=1e-6)


@given(
    location=st.floats(-40, 40),
    log_scale=st.floats(-4, 2),
    low=st.none() | st.integers(-20, 0),
    high=st.none() | st.integers(1, 20),
)
def test_integer_masses_sum_to_one(
    location: float, log_scale: float, low: int | None, high: int | None
) -> None:
    bottom = -math.inf if low is None else float(low)
    top = math.inf if high is None else float(high)
    first, last = max(bottom, -500.0), min(top, 500.0)
    x = torch.arange(first, last + 1)[None]
    origin = torch.tensor(2.0)
    law = IntegerLogistic(
        torch.full_like(x, location), torch.tensor(log_scale), origin,
        torch.tensor(bottom), torch.tensor(top),
    )  # fmt: skip
    mass = law.elementwise(x).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-9)
    # Rounding moves a draw, and so the mean, by at most one half.
    assert float((mass * x).sum()) == pytest.approx(float(law.mean[0, 0]), abs=0.5 + 1e-6)


def test_large_integers_keep_their_digits_in_float32() -> None:
    """Timestamps near 1e7, whose spacing in float32 is one, about an origin near them."""
    law = IntegerLogistic(
        torch.zeros(1, 1, dtype=torch.float32), torch.zeros(()), torch.tensor(1e7),
        torch.tensor(-math.inf), torch.tensor(math.inf),
    )  # fmt: skip
    small = IntegerLogistic(
        torch.zeros(1, 1), torch.zeros(()), torch.tensor(0.0),
        torch.tensor(-math.inf), torch.tensor(math.inf),
    )  # fmt: skip
    found = law.elementwise(torch.tensor([[1e7 + 3]], dtype=torch.float32)).double()
    torch.testing.assert_close(found, small.elementwise(row(3.0)), rtol=1e-5, atol=1e-5)


@given(x=st.floats(-50, 50), location=st.floats(-5, 5), log_scale=st.floats(-3, 3))
def test_heavy_tails_have_scipys_densities(x: float, location: float, log_scale: float) -> None:
    place, scale = row(location), torch.tensor(log_scale)
    found = LaplaceDensity(place, scale).elementwise(row(x))
    same(found[0], np.atleast_1d(stats.laplace.logpdf(x, location, math.exp(log_scale))))
    for df in (0.7, 3.0, 1e6):
        law = StudentT(place, scale, torch.tensor(math.log(df)))
        expected = stats.t.logpdf(x, df, location, math.exp(log_scale))
        same(law.elementwise(row(x))[0], np.atleast_1d(expected), 1e-7)


ROWS = 40_000


def many(*numbers: float) -> Tensor:
    """Rows of the same numbers."""
    return torch.tensor(numbers).expand(ROWS, -1)


DRAWN: dict[str, tuple[Callable[[], Factorized], float]] = {
    "Poisson, small": (lambda: Poisson(many(-1.0)), math.exp(-1)),
    "Poisson, large": (lambda: Poisson(many(9.0)), math.exp(9)),
    "negative binomial": (lambda: NegativeBinomial(many(2.0), torch.tensor(0.4)), math.exp(2)),
    "a small concentration": (lambda: NegativeBinomial(many(0.5), torch.tensor(-1.2)), math.exp(0.5)),
    "zero-inflated": (lambda: ZeroInflated(Poisson(many(1.0)), many(0.3)), math.e / (1 + math.exp(0.3))),
    "Laplace": (lambda: LaplaceDensity(many(0.4), torch.tensor(0.2)), 0.4),
    "Student's t": (lambda: StudentT(many(0.4), torch.tensor(0.2), torch.tensor(2.0)), 0.4),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DRAWN))
def test_draws_have_the_laws_mean_and_variance(name: str) -> None:
    build, mean = DRAWN[name]
    law = build()
    with random.keyed(0):
        x = law.sample().double()[:, 0]
    error = float(x.std()) / math.sqrt(ROWS)
    assert abs(float(x.mean()) - mean) < 5 * error
    spread = (x - mean).square()
    wrong = float(spread.mean()) - float(law.variance[0, 0])
    assert abs(wrong) < 5 * float(spread.std()) / math.sqrt(ROWS)


def test_draws_of_codes_follow_their_masses() -> None:
    ends = torch.tensor([[-math.inf, -1.0, 0.2, 2.0, math.inf]])
    law = OrderedCategorical(many(0.3), ends)
    expected = law.masses()[0, 0]
    with random.keyed(0):
        found = torch.bincount(law.sample()[:, 0], minlength=4) / ROWS
    assert bool(((found - expected).abs() < 5 * (expected / ROWS).sqrt()).all())
    assert int(law.mode[0, 0]) == int(expected.argmax())
    torch.testing.assert_close(law.mean[0, 0], (expected * torch.arange(4)).sum())


@pytest.mark.parametrize("name", list(DRAWN))
def test_the_draw_of_a_row_is_its_own(name: str) -> None:
    """Keyed by the row's id: other rows beside it, or another order, change nothing."""
    law = DRAWN[name][0]()
    some = torch.tensor([5, 999, 37_000])
    with random.keyed(3, ids=torch.arange(ROWS)):
        whole = law.sample()
    with random.keyed(3, ids=some):
        assert torch.equal(moved(law, lambda x: x[some]).sample(), whole[some])


@pytest.mark.parametrize("name", list(DRAWN))
def test_gradients_are_right_to_second_order_differences(name: str) -> None:
    law = DRAWN[name][0]()
    part = moved(law, lambda x: x[:1])
    x = row(3.0)

    def nats(*numbers: Tensor) -> Tensor:
        if isinstance(part, ZeroInflated):
            return ZeroInflated(Poisson(numbers[0]), numbers[1]).elementwise(x)
        kind: Any = type(part)
        nats: Tensor = kind(*numbers).elementwise(x)
        return nats

    inputs = (
        (part.counts.log_mean, part.logits)
        if isinstance(part, ZeroInflated)
        else tuple(v for v in vars(part).values() if isinstance(v, Tensor))
    )
    leaves = [each.clone().requires_grad_() for each in inputs]
    assert torch.autograd.gradcheck(nats, leaves)


def joined(rows: int = 3) -> Joined:
    """Four columns of three kinds, out of order."""
    torch.manual_seed(0)
    normal = Normal(torch.randn(rows, 2), torch.zeros(2))
    category = Categorical(torch.randn(rows, 1, 3))
    count = Poisson(torch.randn(rows, 1))
    return Joined([normal, category, count], [(1, 3), (0,), (2,)])


def test_joined_entries_each_have_the_law_of_their_part() -> None:
    law = joined()
    x = law.sample()
    normal, category, count = law.parts
    each = law.elementwise(x)
    torch.testing.assert_close(each[:, [1, 3]], normal.elementwise(x[:, [1, 3]]))
    torch.testing.assert_close(each[:, [0]], category.elementwise(x[:, [0]]))
    torch.testing.assert_close(each[:, [2]], count.elementwise(x[:, [2]]))
    torch.testing.assert_close(law.log_prob(x), each.sum(1))
    assert torch.equal(law.mean[:, 0], category.mode[:, 0].double())


def test_a_rescaled_law_is_the_law_after_the_change_of_units() -> None:
    torch.manual_seed(0)
    base = Normal(torch.randn(4, 2), torch.zeros(2))
    m, s = torch.tensor([3.0, -1.0]), torch.tensor([10.0, 0.1])
    law = Rescaled(base, m, s)
    same_law = Normal(m + s * base.mean, s.log())
    x = torch.randn(4, 2)
    torch.testing.assert_close(law.log_prob(x), same_law.log_prob(x))
    torch.testing.assert_close(law.elementwise(x), same_law.elementwise(x))
    torch.testing.assert_close(law.mean, same_law.mean)
    torch.testing.assert_close(law.variance, same_law.variance)
    seen = torch.tensor([[True, False]]).expand(4, 2)
    torch.testing.assert_close(masked_log_prob(law, x, seen), masked_log_prob(same_law, x, seen))


def test_entries_that_are_coupled_cannot_be_left_out() -> None:
    full = MultivariateNormal(torch.zeros(4, 2), torch.eye(2))
    x, seen = torch.randn(4, 2), torch.zeros(4, 2, dtype=torch.bool)
    scaled = Rescaled(full, torch.zeros(2), torch.ones(2))
    torch.testing.assert_close(scaled.log_prob(x), full.log_prob(x))
    for law in (full, scaled):
        with pytest.raises(ValueError, match=r"factorizes over the entries.*GaussianDecoder"):
            masked_log_prob(law, x, seen)
    assert masked_log_prob(Independent(torch.distributions.Laplace(x, 1.0), 1), x, seen).sum() == 0
