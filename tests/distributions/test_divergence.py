"""Rates of a posterior: closed where a form is registered, sampled otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    register_kl,
)
from torch.distributions import Normal as TorchNormal

from genmod import Kind
from genmod.distributions import Normal, rate, register_kl_per_dim
from genmod.distributions.base import Factorized, masked_log_prob
from genmod.distributions.divergence import closed_kl, log_ratio
from genmod.distributions.normal import StandardNormal
from genmod.tensors import Sizes
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

ROWS = 20_000


def covariance(d: int) -> Tensor:
    """A full covariance."""
    root = torch.randn(d, d)
    return root @ root.T + 0.5 * torch.eye(d)


def mixture() -> MixtureSameFamily:
    """Two Gaussians on R^3."""
    parts = Independent(TorchNormal(torch.randn(2, 3), torch.rand(2, 3) + 0.5), 1)
    return MixtureSameFamily(TorchCategorical(torch.tensor([0.3, 0.7])), parts)


def target(name: str) -> Distribution:
    """A prior on R^3."""
    return {
        "normal": lambda: Normal(torch.randn(ROWS, 3)[:1].expand(ROWS, 3), torch.randn(3)),
        "standard": lambda: StandardNormal((ROWS, 3)),
        "independent": lambda: Independent(TorchNormal(torch.randn(3), torch.rand(3) + 0.5), 1),
        "full": lambda: MultivariateNormal(torch.randn(3), covariance(3)),
        "laplace": lambda: Independent(torch.distributions.Laplace(torch.zeros(3), 1.0), 1),
        "mixture": mixture,
    }[name]()


CLOSED = ["normal", "standard", "independent", "full"]


@pytest.mark.parametrize("name", [*CLOSED, "laplace", "mixture"])
def test_a_rate_is_analytic_where_a_closed_form_exists(name: str) -> None:
    """And both forms agree in the mean, against torch's densities alone."""
    q = Normal(torch.randn(3).expand(ROWS, 3), torch.randn(3) * 0.5 - 0.5)
    p, z = target(name), q.rsample()
    priced = rate(q, p, z)
    assert priced.kind is (Kind.ANALYTIC if name in CLOSED else Kind.MONTE_CARLO)
    assert priced.nats.shape == (ROWS, 1)
    sampled = log_ratio(q, p, z)
    assert sampled.kind is Kind.MONTE_CARLO
    plain = TorchNormal(q.mean, q.stddev).log_prob(z).sum(1) - p.log_prob(z)
    torch.testing.assert_close(sampled.total, plain)
    if priced.kind is Kind.ANALYTIC:
        assert_mean(sampled.total, priced.total[0], name=name)
    else:
        torch.testing.assert_close(priced.total, plain)


def test_a_full_covariance_prior_has_torchs_divergence() -> None:
    q = Normal(torch.randn(4, 3), torch.randn(4, 3))
    p = MultivariateNormal(torch.randn(3), covariance(3))
    full = MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    expected = torch.distributions.kl_divergence(full, p)
    torch.testing.assert_close(rate(q, p, q.rsample()).total, expected)


@pytest.mark.parametrize("name", ["normal", "standard"])
def test_nats_per_dimension_are_the_same_nats(name: str) -> None:
    q = Normal(torch.randn(5, 2, 3), torch.randn(5, 2, 3))
    p = (
        StandardNormal((5, 2, 3))
        if name == "standard"
        else Normal(torch.randn(5, 2, 3), torch.randn(5, 2, 3))
    )
    for priced in (rate(q, p, q.rsample()), log_ratio(q, p, q.rsample())):
        assert priced.per_dim is not None
        assert priced.per_dim[0].shape == (5, 6)
        torch.testing.assert_close(priced.per_dim[0].sum(-1, keepdim=True), priced.nats)
    closed = rate(q, p, q.rsample()).per_dim
    expected = torch.distributions.kl_divergence(
        TorchNormal(q.mean, q.stddev), TorchNormal(p.mean, p.stddev)
    )
    assert closed is not None
    torch.testing.assert_close(closed[0], expected.reshape(5, 6))


@given(
    mean=st.floats(-1e3, 1e3),
    log_std=st.floats(-13, 13),
    p_mean=st.floats(-1e3, 1e3),
    p_log_std=st.floats(-13, 13),
)
def test_a_closed_rate_is_never_negative(
    mean: float, log_std: float, p_mean: float, p_log_std: float
) -> None:
    """In each dimension; and zero for a posterior equal to the prior."""
    q = Normal(torch.full((1, 2), mean), torch.tensor(log_std))
    p = Normal(torch.full((1, 2), p_mean), torch.tensor(p_log_std))
    for prior in (p, StandardNormal((1, 2))):
        priced = rate(q, prior, q.rsample())
        assert priced.kind is Kind.ANALYTIC
        assert priced.per_dim is not None
        assert float(priced.per_dim[0].min()) >= 0
    assert float(rate(q, q, q.rsample()).total.abs().max()) == 0


def test_a_registered_closed_form_is_used() -> None:
    """Two shifted exponentials: ``KL = log(r_q / r_p) + r_p / r_q - 1`` per dimension."""

    class Exponential(Factorized):
        has_rsample = True

        def __init__(self, rates: Tensor) -> None:
            self.rates = rates
            super().__init__(rates.shape)

        def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
            return torch.distributions.Exponential(self.rates).rsample()

        def elementwise(self, x: Tensor) -> Tensor:
            return self.rates.log() - self.rates * x

    q = Exponential(torch.tensor([[0.5, 2.0]]).expand(ROWS, 2))
    p = Exponential(torch.tensor([[1.0, 1.5]]).expand(ROWS, 2))
    sampled = rate(q, p, q.rsample())
    assert sampled.kind is Kind.MONTE_CARLO

    @register_kl_per_dim(Exponential, Exponential)
    def closed_form(a: Exponential, b: Exponential) -> Tensor:
        return (a.rates / b.rates).log() + b.rates / a.rates - 1

    closed = rate(q, p, q.rsample())
    assert closed.kind is Kind.ANALYTIC
    assert_mean(sampled.total, closed.total[0], name="exponentials")


class Moved(Normal):
    """A law of one's own on top of a Normal: all of its mass moved."""

    def __init__(self, by: Tensor, log_std: Tensor) -> None:
        super().__init__(torch.zeros_like(by), log_std)
        self.by = by

    def rsample(self, sample_shape: Sizes = ()) -> Tensor:
        return super().rsample() + self.by

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value - self.by)


class MovedEntries(Normal):
    """The same, entry by entry."""

    def __init__(self, by: Tensor, log_std: Tensor) -> None:
        super().__init__(torch.zeros_like(by), log_std)
        self.by = by

    def rsample(self, sample_shape: Sizes = ()) -> Tensor:
        return super().rsample() + self.by

    def elementwise(self, x: Tensor) -> Tensor:
        return super().elementwise(x - self.by)


class MovedTorch(TorchNormal):
    """The same on top of torch's Normal."""

    def __init__(self, by: Tensor, log_std: Tensor) -> None:
        super().__init__(torch.zeros_like(by), log_std.exp())
        self.by = by

    def rsample(self, sample_shape: Sizes = ()) -> Tensor:
        return super().rsample(torch.Size(sample_shape)) + self.by

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value - self.by)


class MovedIndependent(Independent):
    """The same around torch's Normal."""

    def __init__(self, by: Tensor, log_std: Tensor) -> None:
        super().__init__(TorchNormal(torch.zeros_like(by), log_std.exp()), 1)
        self.by = by

    def rsample(self, sample_shape: Sizes = ()) -> Tensor:
        return super().rsample(torch.Size(sample_shape)) + self.by

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value - self.by)


MOVED: dict[str, Callable[[Tensor, Tensor], Distribution]] = {
    "log_prob": Moved,
    "elementwise": MovedEntries,
    "torch's, inside Independent": lambda by, log_std: Independent(MovedTorch(by, log_std), 1),
    "Independent itself": MovedIndependent,
    "twice": lambda by, log_std: Independent(Independent(MovedTorch(by, log_std), 1), 0),
}


@pytest.mark.parametrize("name", MOVED)
@pytest.mark.parametrize("side", ["q", "p"])
def test_a_subclass_with_its_own_law_uses_its_own_log_density(name: str, side: str) -> None:
    """Never by the closed KL of its parent. The moved law is a Normal, so the KL is known."""
    by, log_std = torch.tensor([[1.5, -2.0]]).expand(ROWS, 2), torch.tensor([-0.3, 0.2])
    moved, plain = MOVED[name](by, log_std.expand(ROWS, 2)), Normal(by, log_std)
    other = Normal(0.2 * by, torch.zeros(2))
    q, p = (moved, other) if side == "q" else (other, moved)
    priced = rate(q, p, q.rsample())
    assert priced.kind is Kind.MONTE_CARLO
    known = (plain, other) if side == "q" else (other, plain)
    assert_mean(priced.total, rate(*known, by).total[0], name=name)


def test_a_subclass_with_its_parents_law_keeps_the_closed_form() -> None:
    class Unit(Normal):
        def __init__(self, mean: Tensor) -> None:
            super().__init__(mean, torch.zeros_like(mean))

    q, p = Unit(torch.ones(3, 2)), StandardNormal((3, 2))
    priced = rate(q, p, q.rsample())
    assert priced.kind is Kind.ANALYTIC
    torch.testing.assert_close(priced.total, torch.ones(3))


def test_a_pair_registered_with_torch_for_exactly_its_types_is_used() -> None:
    class Apart(MovedTorch):
        pass

    @register_kl(Apart, Apart)
    def closed_form(a: Apart, b: Apart) -> Tensor:
        return 0.5 * (a.by - b.by).square()

    one, zero = torch.ones(4, 2), torch.zeros(4, 2)
    q, p = Apart(one, zero), Apart(zero, zero)
    torch.testing.assert_close(closed_kl(q, p), torch.full((4, 2), 0.5))
    torch.testing.assert_close(closed_kl(Independent(q, 1), Independent(p, 1)), torch.ones(4))
    for pair in ((q, MovedTorch(zero, zero)), (Independent(q, 1), Normal(zero, zero))):
        with pytest.raises(NotImplementedError, match="no closed KL"):
            closed_kl(*pair)


def test_observed_entries_of_a_law_of_ones_own_are_its_own() -> None:
    """Or refused, where only the whole row's density is known."""
    by, zero = torch.ones(3, 2), torch.zeros(3, 2)
    x = torch.randn(3, 2)
    everything = torch.ones(3, 2, dtype=torch.bool)
    for name in ("elementwise", "torch's, inside Independent"):
        law = MOVED[name](by, zero)
        torch.testing.assert_close(masked_log_prob(law, x, everything), law.log_prob(x))
    for name in ("log_prob", "Independent itself"):
        with pytest.raises(ValueError, match="factorizes"):
            masked_log_prob(MOVED[name](by, zero), x, everything)
