"""The VAE against closed forms: tight where the posterior is exact, else short by a known gap."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from genmod import ELBO, Kind, Measure, decoders, encoders, priors
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion
from genmod.nn import MLP
from genmod.priors.simple import DistributionPrior
from genmod.spec import DataSpec
from tests.oracles_vae import FullGaussian, affine, gaussian_head, ppca
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


def test_the_exact_posterior_weighs_every_draw_the_same() -> None:
    """``log p(x, z) - log q(z | x)`` is ``log p(x)`` whatever ``z`` was drawn."""
    oracle = ppca()
    model = oracle.model(oracle.diagonal())
    x = oracle.law.sample((200,)) * 3  # far from the data too
    for _ in range(3):
        gap = model.log_weight(x) - oracle.law.log_prob(x)
        assert gap.abs().max() < 1e-10


def test_a_full_covariance_posterior_of_a_users_own_is_tight_too() -> None:
    """The rate of an encoder that returns a torch distribution is a sampled log-ratio."""
    oracle = ppca(orthogonal=False)
    model = oracle.model(FullGaussian(oracle.posterior))
    x = oracle.law.sample((200,))
    bound = model.elbo(x)
    assert bound.rates["prior"].kind is Kind.MONTE_CARLO
    assert (bound.value - oracle.law.log_prob(x)).abs().max() < 1e-10


def test_the_closed_kl_is_tight_in_expectation() -> None:
    """With a closed KL only the reconstruction is random: its mean is what the bound lacks."""
    oracle = ppca()
    model = oracle.model(oracle.diagonal())
    x = oracle.law.sample((1,)).expand(20_000, -1)
    bound = model.elbo(x)
    assert bound.rates["prior"].kind is Kind.ANALYTIC
    assert_mean(bound.value, oracle.law.log_prob(x[0]), name="ELBO")


@pytest.mark.parametrize("orthogonal", [True, False])
def test_log_p_is_the_elbo_plus_the_divergence_from_the_true_posterior(orthogonal: bool) -> None:
    """``log p(x) = ELBO + KL(q || p(z | x))`` for a wrong q: in closed form, then by draws.

    ``E_q log p(x | z) = -1/2s2 (|x - mu - W m|^2 + tr W S W') - d/2 log 2 pi s2``.
    """
    oracle = ppca(orthogonal=orthogonal)
    x = oracle.law.sample((1,))
    exact = oracle.posterior
    gain, offset, std = exact.weight + 0.2, exact.bias - 0.3, torch.tensor([0.3, 1.1])
    model = oracle.model(encoders.GaussianEncoder(gaussian_head(gain, offset, std), (2,)))
    mean = (gain @ x[0] + offset).detach()
    q = MultivariateNormal(mean, covariance_matrix=std.square().diag())
    p = MultivariateNormal(exact.weight @ x[0] + exact.bias, covariance_matrix=exact.covariance)
    error = (x[0] - oracle.mu - oracle.W @ mean).square().sum()
    error = error + (oracle.W @ std.square().diag() @ oracle.W.T).trace()
    reconstruction = -0.5 * error / oracle.s2 - 0.5 * len(x[0]) * math.log(2 * math.pi * oracle.s2)

    bound = model.elbo(x)
    elbo = (reconstruction - bound.rates["prior"].total).detach()
    torch.testing.assert_close(
        elbo + kl_divergence(q, p), oracle.law.log_prob(x), rtol=0, atol=1e-10
    )
    many = model.elbo(x.expand(40_000, -1))
    assert_mean(many.reconstruction, reconstruction, name="reconstruction")
    assert_mean(model.log_weight(x.expand(40_000, -1)), elbo[0], name="log-weight")


def test_the_best_diagonal_posterior_of_a_skewed_model_leaves_hadamards_gap() -> None:
    """``1/2 [sum log M_ii - log det M]``, with std^2 = s2 / M_ii; any other diagonal q leaves more."""
    oracle = ppca(orthogonal=False)
    best = (oracle.s2 / oracle.M.diagonal()).sqrt()
    gap = 0.5 * (oracle.M.diagonal().log().sum() - oracle.M.logdet())
    assert gap > 0.01
    x = oracle.law.sample((30_000,))
    lost = oracle.law.log_prob(x) - oracle.model(oracle.diagonal(best)).elbo(x).value
    assert_mean(lost, gap, name="Hadamard's gap")
    for factor in (0.8, 1.25):
        model = oracle.model(oracle.diagonal(best * factor))
        # KL between Gaussians of the same mean: the extra is known as well.
        extra = 0.5 * 2 * (factor**2 - 1 - 2 * math.log(factor))
        assert_mean(oracle.law.log_prob(x) - model.elbo(x).value, gap + extra, name="worse q")


def test_at_the_exact_posterior_the_gradient_is_that_of_the_likelihood() -> None:
    """Fisher's identity: ``d log p(x) / d mu = E_{z | x} [d log p(x | z) / d mu]``."""
    oracle = ppca()
    model = oracle.model(oracle.diagonal())
    x = oracle.law.sample((1,))
    rows = 20_000
    bias = oracle.mu.expand(rows, -1).clone().requires_grad_()
    z = model.encoder(x.expand(rows, -1)).sample()
    joint = decoders.GaussianDecoder(decoders.Identity(), (5,), oracle.s2**0.5)
    likelihood = joint(z @ oracle.W.T + bias).log_prob(x.expand(rows, -1))
    (each,) = torch.autograd.grad(likelihood.sum(), bias)
    mu = oracle.mu.clone().requires_grad_()
    law = MultivariateNormal(mu, oracle.law.covariance_matrix)
    (expected,) = torch.autograd.grad(law.log_prob(x[0]), mu)
    assert_mean(each, expected, name="gradient in mu")


# ---------------------------------------------------------------------- a model of a model


def test_a_nested_gaussian_equals_the_closed_form() -> None:
    """A linear-Gaussian model as the prior is the Gaussian ``N(mu, W W' + s2 I)`` as a prior."""
    inner = ppca(d=3, q=2)
    outer = ppca(d=5, q=3)
    encoder = outer.diagonal()
    nested = VAE(encoder=encoder, decoder=outer.decoder(), prior=inner.model(inner.diagonal()))
    given = VAE(encoder=encoder, decoder=outer.decoder(), prior=DistributionPrior(inner.law))
    x = outer.law.sample((50,))
    torch.manual_seed(1)
    one = nested.log_weight(x)
    torch.manual_seed(1)
    two = given.log_weight(x)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-10)
    closed = given.elbo(x[:1].expand(40_000, -1))
    sampled = nested.elbo(x[:1].expand(40_000, -1))
    assert closed.rates["prior"].kind is Kind.ANALYTIC
    assert_mean(sampled.value - sampled.reconstruction, -closed.rates["prior"].total[0].detach())


def test_a_vae_takes_any_model_of_its_latents_as_a_prior() -> None:
    """``VAE(prior=...)`` nests; the rates of both are named apart and add up."""
    x = torch.randint(0, 5, (6, 4))
    for prior in (VAE((3,), latents=2, width=8), Diffusion((3,), steps=4, width=8)):
        model = VAE((4,), bins=5, latents=3, width=8, prior=prior)
        assert isinstance(model.prior, priors.NestedPrior)
        bound = model.elbo(x)
        assert set(bound.rates) >= {"latent", "prior"}
        total = sum(rate.total for rate in bound.rates.values())
        torch.testing.assert_close(bound.value, bound.reconstruction - total)
        assert model.sample(7).shape == (7, 4)
        assert bool(model.log_weight(x).isfinite().all())


# ---------------------------------------------------------------------- conditional


def test_a_conditional_vae_is_tight_for_each_context() -> None:
    """``x = W z + C c + noise``: with the context, the bound is ``log p(x | c)``; without it the
    networks have too few inputs.
    """
    oracle, C = ppca(), torch.randn(5, 3)
    exact = oracle.posterior
    encoder = encoders.GaussianEncoder(
        WithContext(exact.weight, -exact.weight @ C, exact.bias, exact.std), (2,)
    )
    decoder = decoders.GaussianDecoder(WithContext(oracle.W, C, oracle.mu), (5,), oracle.s2**0.5)
    model = LatentModel(encoder, decoder, priors.NormalPrior((2,)))
    context = torch.randn(40, 3)
    x = oracle.law.sample((40,)) + context @ C.T
    expected = oracle.law.log_prob(x - context @ C.T)
    torch.testing.assert_close(model.log_weight(x, context=context), expected, rtol=0, atol=1e-10)


class WithContext(torch.nn.Module):
    """``A h + C c + b``, with the log of a constant std after it if there is one."""

    def __init__(
        self, A: torch.Tensor, C: torch.Tensor, b: torch.Tensor, std: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        both = torch.cat([A, C], 1)
        self.layer = affine(both, b) if std is None else gaussian_head(both, b, std)

    def forward(self, h: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """``(B, outputs)``."""
        return self.layer(torch.cat([h, context], -1))


def test_perceptrons_carry_a_context_through_every_method() -> None:
    """A VAE of two ``MLP(context=2)``: each method takes the context, and it matters."""
    encoder = encoders.GaussianEncoder(MLP(4, 6, width=16, context=2), (3,), DataSpec((4,), 5))
    decoder = decoders.DiscretizedLogisticDecoder(MLP(3, 4, width=16, context=2), (4,), 5)
    model = VAE(encoder=encoder, decoder=decoder, latents=3)
    x, context = torch.randint(0, 5, (6, 4)), torch.randn(6, 2)
    value = model.elbo(x, context=context).value
    value.sum().backward()
    told = [p.grad for n, p in model.named_parameters() if n.endswith("first.weight")]
    assert all(grad is not None and bool(grad[:, -2:].abs().sum() > 0) for grad in told)
    z = model.encode(x, context)
    assert isinstance(z, torch.Tensor)
    torch.testing.assert_close(model.decode(z, context).mean, model.reconstruct(x, context))
    assert not torch.allclose(model.reconstruct(x, context), model.reconstruct(x, context + 1))
    assert model.sample(6, context).shape == x.shape
    assert model.log_weight(x, context=context).shape == (6,)


# ---------------------------------------------------------------------- one line


@pytest.mark.parametrize(
    ("shape", "bins", "measure"),
    [
        (4, None, Measure.DENSITY),
        ((4,), 2, Measure.MASS),
        ((1, 2, 3), 17, Measure.MASS),
        ((2, 3, 2, 2), None, Measure.DENSITY),
    ],
)
def test_one_line_builds_a_model_of_any_shape(
    shape: tuple[int, ...] | int, bins: int | None, measure: Measure
) -> None:
    """Samples have the shape and type of the data, and their bound has the right measure."""
    model = VAE(shape, bins, latents=2, width=8)
    x = model.sample(5)
    bound, path = model(x)
    assert path is None
    assert isinstance(bound, ELBO)
    assert bound.measure is model.measure is measure
    assert x.is_floating_point() == (bins is None)
    assert model.reconstruct(x).shape == x.shape


def test_the_repr_of_a_vae_is_its_formula() -> None:
    text = repr(VAE((4,), 5, latents=2, width=8))
    assert "q(z | x) = N(z; mean(x), diag std(x)^2)" in text
    assert "p(z) = N(z; 0, I), z in R^2" in text
    assert "Logistic over bins(x; d(z), s_i(z))" in text
    assert "parameters" in text
