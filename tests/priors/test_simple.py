"""One latent's prior: the standard normal, any distribution of torch's, and none."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import (
    Distribution,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    constraints,
)
from torch.distributions import Normal as TorchNormal

from genmod import Kind, encoders, priors
from genmod.decoders import Identity
from genmod.distributions import Dirac, Normal
from genmod.models import VAE
from genmod.priors.simple import DistributionPrior
from genmod.tensors import Sizes
from tests.oracles_vae import affine, ppca
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


def mixture() -> MixtureSameFamily:
    """Two Gaussians on R^2."""
    means = torch.tensor([[-1.0, 2.0], [3.0, 0.0]])
    parts = Independent(TorchNormal(means, torch.tensor([0.5, 1.0])), 1)
    return MixtureSameFamily(TorchCategorical(torch.tensor([0.2, 0.8])), parts)


def laws() -> dict[str, tuple[Distribution, Kind]]:
    """Distributions on R^2, and the kind of a Gaussian posterior's rate under each."""
    root = torch.tensor([[1.0, 0.0], [0.8, 0.4]])
    return {
        "full": (MultivariateNormal(torch.ones(2), scale_tril=root), Kind.ANALYTIC),
        "independent": (
            Independent(TorchNormal(torch.ones(2), torch.tensor([0.3, 2.0])), 1),
            Kind.ANALYTIC,
        ),
        "mixture": (mixture(), Kind.MONTE_CARLO),
        "laplace": (Independent(Laplace(torch.zeros(2), torch.ones(2)), 1), Kind.MONTE_CARLO),
    }


@pytest.mark.parametrize("name", ["full", "independent", "mixture", "laplace"])
def test_any_distribution_can_be_a_prior(name: str) -> None:
    """Closed where a form is registered; the path's weight is torch's ``log p - log q``."""
    law, kind = laws()[name]
    prior = DistributionPrior(law)
    q = Normal(torch.randn(1, 2).expand(30_000, 2), torch.tensor([-0.5, 0.2]))
    torch.manual_seed(1)
    z, path = prior.draw_path(q)
    weight = path.log_ratio()[0]
    plain = law.log_prob(z) - TorchNormal(q.mean, q.stddev).log_prob(z).sum(1)
    torch.testing.assert_close(weight, plain)
    torch.manual_seed(1)
    state, rates = prior.rates(q)
    assert rates["prior"].kind is kind
    assert torch.equal(state, z)
    expected = rates["prior"].total
    if kind is Kind.ANALYTIC:
        assert_mean(-weight, expected[0], name=name)
    else:
        torch.testing.assert_close(-weight, expected)


def test_the_standard_normal_is_closed_and_per_dimension() -> None:
    q = Normal(torch.randn(5, 2), torch.randn(5, 2))
    _, rates = priors.NormalPrior((2,), name="z7").rates(q)
    rate = rates["z7"]
    assert rate.kind is Kind.ANALYTIC
    assert rate.per_dim is not None
    expected = torch.distributions.kl_divergence(
        TorchNormal(q.mean, q.stddev), TorchNormal(torch.zeros(2), torch.ones(2))
    )
    torch.testing.assert_close(rate.per_dim[0], expected)


@pytest.mark.parametrize("name", ["full", "mixture"])
def test_samples_are_the_distributions_own(name: str) -> None:
    law, _ = laws()[name]
    z = DistributionPrior(law).sample(20_000)
    assert_mean(z, law.mean, name="mean")
    assert_mean((z - law.mean).square(), law.variance, name="variance")
    assert_mean(priors.NormalPrior((2,)).sample(20_000).square(), 1.0, name="standard")


def test_a_given_prior_makes_the_exact_posterior_tight() -> None:
    """With ``N(m, S)`` in place of pPCA's ``N(0, I)`` the exact posterior is tight as well."""
    oracle = ppca()
    shift, root = torch.randn(2), torch.tensor([[1.3, 0.0], [0.0, 0.4]])
    law = MultivariateNormal(shift, scale_tril=root)
    joint = oracle.W @ root
    inner = type(oracle)(joint, oracle.mu + oracle.W @ shift, oracle.s2)
    # z = shift + root u, with u the inner model's standard normal latent.
    exact = inner.posterior
    weight, bias = root @ exact.weight, shift + root @ exact.bias
    std = root.diagonal() * exact.std
    both = torch.cat([weight, torch.zeros_like(weight)])
    encoder = encoders.GaussianEncoder(affine(both, torch.cat([bias, std.log()])), (2,))
    model = VAE(encoder=encoder, decoder=oracle.decoder(), prior=DistributionPrior(law))
    x = inner.law.sample((50,))
    assert (model.log_weight(x) - inner.law.log_prob(x)).abs().max() < 1e-10


# ---------------------------------------------------------------------- none at all


def test_a_flat_prior_has_no_rate_and_no_bound() -> None:
    prior = priors.FlatPrior((2,))
    assert not prior.proper
    code = torch.randn(3, 2)
    state, rates = prior.rates(Dirac(code))
    assert state is code
    assert rates == {}
    for ask in (
        lambda: prior.sample(2),
        lambda: prior.draw_path(Dirac(code)),
        lambda: prior.generate(2),
    ):
        with pytest.raises(ValueError, match=r"got a request.*flat prior.*use a VAE"):
            ask()


# ---------------------------------------------------------------------- what they refuse


def test_a_distribution_with_a_batch_is_not_a_prior() -> None:
    with pytest.raises(ValueError, match=r"batch shape \(3,\).*Independent"):
        DistributionPrior(TorchNormal(torch.zeros(3), 1.0))


@pytest.mark.parametrize("make", [priors.NormalPrior, priors.FlatPrior])
def test_a_posterior_of_another_shape_is_refused(make: type[priors.NormalPrior]) -> None:
    q = Normal(torch.zeros(4, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"latents of shape \(3,\).*the prior's shape \(2,\)"):
        make((2,)).rates(q)


def test_a_posterior_that_goes_level_by_level_needs_a_prior_that_does() -> None:
    posterior = encoders.TopDownEncoder([Identity()], [Identity()])(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"got a HeadPosterior.*pair encoders.TopDownEncoder with"):
        priors.NormalPrior((2,)).rates(posterior)


def test_a_point_under_a_proper_prior_is_refused() -> None:
    point = Dirac(torch.zeros(3, 2))
    for prior in (
        priors.NormalPrior((2,)),
        *(DistributionPrior(law) for law, _ in laws().values()),
    ):
        with pytest.raises(ValueError, match=r"Dirac.*priors.FlatPrior\(\)"):
            prior.rates(point)


def test_codes_have_the_priors_shape_and_number() -> None:
    prior, z = priors.NormalPrior((2,)), torch.zeros(3, 2)
    assert prior.state_from(z) is z
    bad: list[tuple[Tensor | tuple[Tensor, ...], str]] = [
        (torch.zeros(3, 4), r"prior of shape \(3, 4\)"),
        ((z, z), "2 latents, 1 too many"),
        ((), "no latents"),
    ]
    for code, words in bad:
        with pytest.raises(ValueError, match=words):
            prior.state_from(code)


class Shell(torch.distributions.Distribution):
    """Points of radius one: a law with draws and a density, and without ``expand``."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self) -> None:
        super().__init__(event_shape=torch.Size([2]), validate_args=False)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        angle = 2 * math.pi * torch.rand(*sample_shape)
        return torch.stack([angle.cos(), angle.sin()], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.full(value.shape[:-1], -math.log(2 * math.pi), dtype=value.dtype)


def test_a_law_without_expand_is_sampled() -> None:
    drawn = DistributionPrior(Shell()).sample(5)
    assert drawn.shape == (5, 2)
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(5))


def test_a_law_draws_what_torch_draws() -> None:
    law = mixture()
    torch.manual_seed(3)
    expected = law.sample((5,))
    torch.manual_seed(3)
    torch.testing.assert_close(DistributionPrior(law).sample(5), expected, rtol=0, atol=0)
