"""A prior that is a model: its bound in place of a density, and the Jacobian of a rescaling."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from genmod import Kind, decoders, priors, random
from genmod.distributions import Normal
from genmod.evaluation import log_weights
from genmod.model import LatentModel, Request
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.path import run_path
from tests.oracles_vae import PPCA, ppca, tower
from tests.statistics import assert_equal_means, assert_mean

pytestmark = pytest.mark.usefixtures("float64")


def nested(oracle: PPCA) -> priors.NestedPrior:
    """PPCA with its exact posterior as a prior over its data."""
    return priors.NestedPrior(oracle.model(oracle.diagonal()))


def test_an_exact_inner_model_is_its_density() -> None:
    """Path by path: ``log p(z) - log q(z | x)`` with ``p = N(mu, W W' + s2 I)``."""
    oracle = ppca()
    q = Normal(torch.randn(40, 5), torch.randn(40, 5))
    z, path = nested(oracle).draw_path(q)
    weight = path.log_ratio()[0]
    torch.testing.assert_close(weight, oracle.law.log_prob(z) - q.log_prob(z))


@pytest.mark.parametrize("log_unit", [-7.0, 0.0, 4.0])
def test_a_rescaled_latent_counts_its_jacobian(log_unit: float) -> None:
    """Through shift and scale the prior is ``N(shift + scale mu, scale S scale)``, in any units."""
    oracle = ppca()
    shift, scale = torch.randn(5), (torch.randn(5) + log_unit).exp()
    inner = oracle.model(oracle.diagonal())
    prior = priors.NestedPrior(inner, shift=shift, scale=scale)
    covariance = scale[:, None] * oracle.law.covariance_matrix * scale
    law = MultivariateNormal(shift + scale * oracle.mu, covariance)
    q = Normal(shift + scale * torch.randn(1, 5), scale.log() - 1.0)
    many = Normal(q.mean.expand(20_000, -1), q.log_std.expand(20_000, -1))
    z, path = prior.draw_path(many)
    weight = path.log_ratio()[0]
    torch.testing.assert_close(weight, law.log_prob(z) - many.log_prob(z), rtol=1e-9, atol=1e-9)
    _, rates = prior.rates(many)
    full = MultivariateNormal(q.mean, q.stddev.square().diag_embed())
    assert rates["latent"].kind is Kind.MONTE_CARLO
    total = sum(rate.total for rate in rates.values())
    assert isinstance(total, torch.Tensor)
    assert_mean(total, torch.distributions.kl_divergence(full, law)[0], name="rates")
    x = prior.sample(20_000)
    assert_mean((x - law.mean) / scale, 0.0, name="samples' mean")
    assert_mean(((x - law.mean) / scale).square(), law.variance / scale.square(), name="variance")


def test_standardizing_later_is_building_with_it() -> None:
    oracle = ppca()
    inner, later = oracle.model(oracle.diagonal()), nested(oracle)
    shift, scale = torch.randn(5), torch.rand(5) + 0.5
    later.standardize(shift, scale)
    built = priors.NestedPrior(inner, shift=shift, scale=scale)
    assert {name for name, _ in later.named_buffers()} >= {"shift", "log_scale"}
    q = Normal(torch.randn(6, 5), torch.zeros(6, 5))
    weights = []
    for prior in (later, built):
        torch.manual_seed(0)
        weights.append(prior.draw_path(q)[1].log_ratio()[0])
    torch.testing.assert_close(weights[0], weights[1])


def test_the_rate_is_the_log_density_less_the_inner_bound() -> None:
    """At the same draws, the path's weight and the rates differ by the top level alone.

    There the path has a log-ratio and the rates a KL.
    """
    oracle = tower(3)
    model = oracle.bottom_up()
    x = oracle.joint().law("x").sample((50,))
    q = model.encoder(x)
    torch.manual_seed(3)
    _, rates = model.prior.rates(q)
    torch.manual_seed(3)
    _, path = model.prior.draw_path(q)
    weight = path.log_ratio()[0]
    sampled = -(rates["z1"].total + rates["z2"].total)
    top = weight - sampled
    assert_mean(top + rates["z3"].total, 0.0, name="top level")


@pytest.mark.parametrize(
    "inner",
    [
        lambda: VAE((3,), latents=2, width=8),
        lambda: HVAE((3,), latents=(2, 2), width=8),
        lambda: Diffusion((3,), steps=3, width=8),
    ],
)
def test_any_model_of_real_vectors_can_be_nested(inner: type[VAE]) -> None:
    """The closed and the sampled form have one mean."""
    prior = priors.NestedPrior(inner())
    q = Normal(torch.randn(1, 3).expand(20_000, 3), torch.tensor(-1.0))
    with torch.no_grad():
        _, rates = prior.rates(q)
        total = torch.stack([rate.total for rate in rates.values()]).sum(0)
        _, path = prior.draw_path(q)
        weight = path.log_ratio()[0]
    assert_mean(total + weight, 0.0, name="two forms")
    assert prior.sample(4).shape == (4, 3)


# ---------------------------------------------------------------------- what it refuses


def test_only_a_bound_on_a_density_can_be_a_prior() -> None:
    for model, word in ((VAE((3,), 5, width=8), "mass"), (Autoencoder((3,), width=8), "none")):
        with pytest.raises(ValueError, match=rf"value is a {word}.*Gaussian decoder \(bins=None\)"):
            priors.NestedPrior(model)


def test_scales_are_positive() -> None:
    inner = ppca().model(ppca().diagonal())
    for scale in (torch.tensor(0.0), -torch.ones(5), torch.tensor(torch.inf)):
        with pytest.raises(ValueError, match=r"got scales.*positive finite.*collapsed"):
            priors.NestedPrior(inner, scale=scale)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("latents", [(3,), (3, 2)], ids=str)
def test_a_chain_on_top_of_a_hierarchy_has_names_of_its_own(latents: tuple[int, ...]) -> None:
    """Both are z1, z2, ... in papers. Weights average to the bound, and draws are those of the path."""
    torch.manual_seed(0)
    top = Diffusion(latents[-1], steps=3, width=8)
    model = HVAE(3, latents=latents, inference="bottom-up", width=8, prior=top).double().eval()
    x = torch.randn(2, 3)
    path = model(x, Request(needs_path=True))[1]
    assert path is not None
    levels = [f"z{i + 1}" for i in range(len(latents))]
    assert set(path.z) == {*levels, *(f"{levels[-1]}.z{i}" for i in (1, 2, 3))}
    with torch.no_grad():
        bounds = model.elbo(x.repeat(200, 1)).value.reshape(200, 2)
    assert_equal_means(log_weights(model, x, importance_samples=200).T, bounds)
    assert model.impute(x, torch.rand(2, 3) > 0.5, 2, 8).draws.isfinite().all()
    assert model.sample(2).shape == (2, 3)
    assert run_path(model.prior.generate(2), lambda step: step[1].sample()).shape[0] == 2


def test_an_inner_decoder_that_is_no_gaussian_has_no_path() -> None:
    class Laplace(decoders.Decoder):
        def __init__(self) -> None:
            super().__init__((3,))

        def forward(
            self, state: torch.Tensor, context: torch.Tensor | None = None
        ) -> torch.distributions.Distribution:
            location = state.sum(1, keepdim=True).expand(-1, 3)
            return torch.distributions.Independent(torch.distributions.Laplace(location, 1.0), 1)

        def formula(self) -> str:
            return "p(x | z) = Laplace(x; sum z, 1)"

    inner = VAE((3,), latents=2, width=8, decoder=Laplace())
    with pytest.raises(ValueError, match=r"gives Independent; expected a Gaussian; use decoders"):
        priors.NestedPrior(inner).sample(3)


def test_its_code_is_the_outer_latent_alone() -> None:
    prior = nested(ppca())
    z = torch.randn(3, 5)
    assert prior.state_from(z) is z
    for code in (torch.randn(3, 2), (z, z)):
        with pytest.raises(ValueError, match=r"not one batch.*\(B, 5\).*z1 alone"):
            prior.state_from(code)
    assert prior.formula().startswith("p(latent) >= a bound, 5 dimensions")


TOPS: dict[str, Callable[[], LatentModel]] = {
    "one latent": lambda: VAE(2, latents=2, width=8),
    "top-down": lambda: HVAE(2, latents=(2, 2), width=8),
    "bottom-up": lambda: HVAE(2, latents=(2, 2), inference="bottom-up", width=8),
    "diffusion": lambda: Diffusion(2, steps=3, width=8),
    "latent diffusion": lambda: LatentDiffusion(
        vae=VAE(2, latents=2, width=8), diffusion=Diffusion(2, steps=3, width=8)
    ),
}
OWN = [("z", "z"), ("z1", "z2"), ("z2", "z1"), ("z", "z.z"), ("z.z", "z"), ("z1.z1", "z1")]
OWN += [("prior", "latent"), ("latent", "latent"), ("levels", "prior"), ("steps", "z3")]


@pytest.mark.parametrize("top", TOPS)
def test_names_of_nested_latents_are_all_different_whatever_they_are_called(top: str) -> None:
    """In the order of inference, in that of generation, in the rates, and in both routes to the rates."""
    x = torch.zeros(3, 2)
    for outer, inner in OWN:
        model = TOPS[top]()
        alone = len(model.prior.draw_path(model.posterior(x))[1].z)
        for name in (inner, outer):
            model = VAE(2, latents=2, width=8, prior=priors.NestedPrior(model, name))
        with random.keyed(0):
            bound, path = model(x, Request(needs_path=True))
        with random.keyed(0):
            plain = model.elbo(x)
        assert path is not None
        assert len(path.z) == alone + 2
        assert next(iter(path.z)) == outer
        assert list(plain.rates) == list(bound.rates)
        levels = [level.name for level in plain.levels()]
        assert len(set(levels)) == len(levels)
        assert levels == [level.name for level in bound.levels()]
        if "diffusion" not in top:  # a chain has one rate for all its steps
            assert set(levels) == set(path.z)
        drawn: list[str] = []

        def take(step: tuple[str, Distribution], z: Mapping[str, Tensor] = path.z) -> Tensor:
            drawn.append(step[0])  # noqa: B023
            return z[step[0]][0]

        run_path(model.prior.generate(3), take)
        assert sorted(drawn) == sorted(path.z)
