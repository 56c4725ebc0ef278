"""Joint draws of the latents: the laws beside them, their gradients, several draws, and their names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace

from genmod import decoders, diffusion, encoders, random
from genmod.decoders import Identity
from genmod.diffusion.variances import ReverseVariance
from genmod.distributions import Normal
from genmod.elbo import Kind
from genmod.encoders import Posterior
from genmod.encoders.base import require_distribution
from genmod.model import LatentModel, Request
from genmod.models import HVAE, VAE, Diffusion, LatentDiffusion
from genmod.objectives import Batch, Bound
from genmod.path import GenerativePath, InferencePath, Latent, Path
from genmod.prior import Prior
from genmod.priors.simple import DistributionPrior, NormalPrior
from genmod.schedules import LinearLogSNR
from tests.oracles_vae import ppca
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

MILD = LinearLogSNR(3.0, -3.0)


def laplace() -> Distribution:
    """A prior law without a closed KL."""
    return Independent(Laplace(torch.zeros(2), torch.ones(2)), 1)


MODELS: dict[str, Callable[[], LatentModel]] = {
    "VAE": lambda: VAE(3, latents=2, width=8),
    "VAE of integers": lambda: VAE(3, 5, latents=2, width=8),
    "VAE, Laplace prior": lambda: VAE(3, latents=2, width=8, prior=DistributionPrior(laplace())),
    "HVAE, bottom-up": lambda: HVAE(3, latents=(3, 2, 2), width=8),
    "HVAE, top-down": lambda: HVAE(3, latents=(3, 2, 2), width=8, inference="top-down"),
    "Diffusion": lambda: Diffusion(3, steps=3, width=8, schedule=MILD),
    "Diffusion, one latent": lambda: Diffusion(3, steps=1, width=8, schedule=MILD),
    "LatentDiffusion": lambda: LatentDiffusion(
        vae=VAE(3, latents=2, width=8), diffusion=Diffusion(2, steps=3, width=8, schedule=MILD)
    ),
}
every = pytest.mark.parametrize("name", MODELS)


def data(model: LatentModel, rows: int = 4) -> Tensor:
    """Data of the model's kind."""
    bins = model.spec.bins
    return torch.randn(rows, 3) if bins is None else torch.randint(0, bins, (rows, 3))


def path_of(model: LatentModel, x: Tensor, samples: int = 1) -> Path:
    """Joint draws."""
    path = model(x, Request(samples=samples, needs_path=True))[1]
    assert path is not None
    return path


# ---------------------------------------------------------------------- what a path holds


@every
@pytest.mark.parametrize("samples", [1, 3])
def test_a_log_ratio_is_the_sum_of_its_laws(name: str, samples: int) -> None:
    """Latent by latent at the draws; draw ``k`` of row ``b`` is row ``k B + b`` of the laws."""
    model = MODELS[name]()
    x = data(model)
    path = path_of(model, x, samples)
    assert set(path.z) == set(path.q) == set(path.p)
    total = torch.zeros(samples * len(x))
    for latent, z in path.z.items():
        assert z.shape[:2] == (samples, len(x))
        rows = z.reshape(-1, *z.shape[2:])
        total = total + path.p[latent].log_prob(rows) - path.q[latent].log_prob(rows)
    torch.testing.assert_close(path.log_ratio(), total.reshape(samples, len(x)))
    assert path.log_likelihood is not None
    weight = path.log_likelihood + path.log_ratio()
    torch.testing.assert_close(path.log_weight(), weight)


@every
def test_rates_are_computed_from_the_draws_of_the_path(name: str) -> None:
    """The same draws, the same numbers: what is closed is closed in both, what is sampled agrees."""
    model = MODELS[name]()
    x = data(model)
    torch.manual_seed(0)
    elbo, path = model(x, Request(needs_path=True))
    torch.manual_seed(0)
    again = path_of(model, x)
    assert path is not None
    torch.testing.assert_close(path.log_weight(), again.log_weight(), rtol=0, atol=0)
    torch.testing.assert_close(elbo.reconstruction, path.log_likelihood[0])
    sampled = [rate for rate in elbo.rates.values() if rate.kind is Kind.MONTE_CARLO]
    if len(sampled) == len(elbo.rates):
        torch.testing.assert_close(elbo.value, path.log_weight()[0])


@every
def test_weights_have_the_bounds_mean(name: str) -> None:
    model = MODELS[name]()
    x = data(model, 1).expand(4000, -1)
    with torch.no_grad():
        elbo, path = model(x, Request(needs_path=True))
        assert path is not None
        assert_mean(path.log_weight()[0] - elbo.value, 0.0, name=name)


def test_a_path_without_a_decoder_has_no_weight() -> None:
    model = MODELS["VAE"]()
    path = model.prior.draw_path(model.posterior(data(model)))[1]
    with pytest.raises(ValueError, match=r"without log p\(x \| z\).*Request\(needs_path=True\)"):
        path.log_weight()


# ---------------------------------------------------------------------- gradients


@every
def test_detached_laws_keep_the_numbers(name: str) -> None:
    model = MODELS[name]()
    path = path_of(model, data(model), 2)
    torch.testing.assert_close(path.log_weight(detached=True), path.log_weight(), rtol=0, atol=0)
    tensors = [t for law in path.q.detached().values() for t in vars(law).values()]
    assert not any(isinstance(t, Tensor) and t.requires_grad for t in tensors)


def test_detached_gradients_of_an_exact_posterior_vanish_draw_by_draw() -> None:
    """``log p(x, z) - log q(z | x)`` is then constant in ``z``: sticking the landing (Roeder 2017).

    With the parameters of ``q`` counted in, the gradient of one draw is its score, which is not zero.
    """
    oracle = ppca()
    model = oracle.model(oracle.diagonal())
    x = oracle.law.sample((1,))
    parameters = list(model.encoder.parameters())

    def gradient(detached: bool) -> Tensor:
        torch.manual_seed(0)
        weight = path_of(model, x).log_weight(detached).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(weight, parameters)])

    assert gradient(detached=True).abs().max() < 1e-10
    assert gradient(detached=False).abs().max() > 1e-2


# ---------------------------------------------------------------------- several draws


@every
def test_the_bound_of_three_draws_is_the_mean_of_three(name: str) -> None:
    """The batch three times over, in the same noise: term by term."""
    model = MODELS[name]()
    x = data(model)
    torch.manual_seed(0)
    three, path = model(x, Request(samples=3))
    torch.manual_seed(0)
    single, _ = model(x.repeat(3, 1), Request(needs_path=True))
    assert path is not None
    assert three.value.shape == (len(x),)
    torch.testing.assert_close(three.value, single.value.reshape(3, -1).mean(0))
    assert three.rates.keys() == single.rates.keys()
    for term, rate in three.rates.items():
        one = single.rates[term]
        torch.testing.assert_close(rate.total, one.total.reshape(3, -1).mean(0))
        assert (rate.kind, rate.claim, rate.names) == (one.kind, one.claim, one.names)
    assert path.log_weight().shape == (3, len(x))
    assert not torch.allclose(path.log_weight()[0], path.log_weight()[1])


def test_several_draws_go_with_masks_and_contexts() -> None:
    """Each draw of a row sees the row's own mask and context."""
    observed = torch.rand(4, 3) < 0.6
    model = VAE(3, latents=2, width=8)
    x = torch.randn(4, 3)
    torch.manual_seed(0)
    three, _ = model(x, Request(None, observed, samples=3))
    torch.manual_seed(0)
    single, _ = model(x.repeat(3, 1), Request(None, observed.repeat(3, 1)))
    torch.testing.assert_close(three.value, single.value.reshape(3, -1).mean(0))


@pytest.mark.parametrize("samples", [0, -1])
def test_no_draws_are_refused(samples: int) -> None:
    with pytest.raises(ValueError, match=f"samples={samples}; expected at least one"):
        Request(samples=samples)


# ---------------------------------------------------------------------- names


class Two(Prior):
    """``z2 ~ N(0, 1)``, ``z1 | z2 ~ N(z2, 1)``, under names that may clash; the exact posterior."""

    def __init__(self, *yields: str) -> None:
        super().__init__((1,))
        self.names = yields

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        x = require_distribution(posterior, (1,)).mean
        zero, (top, low) = torch.zeros_like(x), self.names
        q = Normal(x / 3, zero + 0.5 * math.log(2 / 3))
        z2 = yield Latent(top, q, Normal(zero, zero))
        q = Normal((x + z2) / 2, zero + 0.5 * math.log(1 / 2))
        z1 = yield Latent(low, q, Normal(z2, zero))
        return z1

    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        zero, (top, low) = torch.zeros(n, 1), self.names
        z2 = yield top, Normal(zero, zero)
        z1 = yield low, Normal(z2, zero)
        return z1


class Same(nn.Module):
    """The mean ``x``, the log-std 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(x)], 1)


def around(prior: Prior) -> LatentModel:
    """``x | z1 ~ N(z1, 1)``, so that ``x ~ N(0, 3)`` under :class:`Two`."""
    encoder = encoders.GaussianEncoder(Same(), (1,))
    return LatentModel(encoder, decoders.GaussianDecoder(Identity(), (1,), 1.0), prior)


def test_both_latents_of_a_custom_prior_enter_the_bound() -> None:
    """Exactly ``log p(x)`` on every path, and in the mean from the rates."""
    model, x = around(Two("z2", "z1")), math.sqrt(3) * torch.randn(20_000, 1)
    truth = torch.distributions.Normal(0.0, math.sqrt(3)).log_prob(x)[:, 0]
    torch.testing.assert_close(model.log_weight(x), truth, rtol=0, atol=1e-10)
    bound = model.elbo(x)
    assert list(bound.rates) == ["z2", "z1"]
    assert_mean(bound.value - truth, 0.0, name="ELBO")
    assert_mean(model.sample(20_000).square(), 3.0, name="variance of samples")


class Shifted(NormalPrior):
    """One latent, whose draw is moved by one on its own path."""

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        q = require_distribution(posterior, self.shape)
        moved = Normal(q.mean + 1, q.stddev.log())
        z = yield Latent(self.name, moved, self.law(q.batch_shape[0], context))
        return z


def test_the_rates_of_a_density_follow_a_path_of_its_own() -> None:
    """The route without a path is for the path of the base class alone."""
    q = Normal(torch.zeros(3, 1), torch.zeros(3, 1))
    for prior, nats in ((NormalPrior((1,)), 0.0), (Shifted((1,)), 0.5)):
        with random.keyed(0):
            z, rates = prior.rates(q)
        with random.keyed(0):
            state, path = prior.draw_path(q)
        assert torch.equal(z, state)
        assert torch.equal(rates["prior"].nats, prior.rates_of_path(path)["prior"].nats)
        torch.testing.assert_close(rates["prior"].total, torch.full((3,), nats))


class Forgetful(Two):
    """Draws ``z2`` and never scores it, scores it twice, or scores what it did not draw."""

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        x = require_distribution(posterior, (1,)).mean
        law = Normal(torch.zeros_like(x), torch.zeros_like(x))
        (fault,) = self.names
        if fault != "never drawn":
            yield Latent("z2", law, law if fault == "scored twice" else None)
        if fault != "never scored":
            yield Latent("z2", None, law)
        z1 = yield Latent("z1", law, law)
        return z1


@pytest.mark.parametrize("use", ["elbo", "log_weight"])
@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (Two("z", "z"), r"two latents named 'z'.*pass another name="),
        (Forgetful("scored twice"), "two latents named 'z2'"),
        (Forgetful("never scored"), r"drawn and never scored: \['z2'\]"),
        (Forgetful("never drawn"), "a law p of 'z2', which was not drawn"),
    ],
)
def test_every_latent_is_drawn_once_and_scored_once(prior: Prior, words: str, use: str) -> None:
    """A second one of a name would overwrite the first: its nats are lost, and the bound is none."""
    model = around(prior)
    uses: dict[str, Callable[[Tensor], object]] = {
        "elbo": model.elbo,
        "log_weight": model.log_weight,
    }
    with pytest.raises(ValueError, match=words):
        uses[use](torch.randn(5, 1))


# ---------------------------------------------------------------------- recomputed activations


class Noisy(nn.Module):
    """A network that draws noise of its own."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.weight, self.outputs = nn.Parameter(torch.tensor(0.5)), outputs

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        noise = random.normal_like(z)
        return torch.cat([self.weight * noise] * self.outputs, 1)


@pytest.mark.parametrize("chunk", [1, 8, 100])
@pytest.mark.parametrize(
    "variance",
    [diffusion.FixedSmall(), diffusion.FixedLarge(), diffusion.LearnedInterpolation()],
    ids=repr,
)
def test_recomputed_activations_see_the_same_noise(
    variance: ReverseVariance, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every level visited, activations are computed again: autograd agrees with differences."""
    monkeypatch.setattr(diffusion.bound, "rows_per_chunk", lambda shape, device: chunk)
    network = Noisy(2 if variance.learned else 1)
    model = Diffusion(3, denoiser=network, steps=5, variance=variance, schedule=MILD).double()
    x = torch.randn(8, 3)
    weight = network.weight

    def loss(value: float) -> Tensor:
        weight.data.fill_(value)
        with random.keyed(0):
            return -model.elbo(x, timesteps=None).value.mean()

    by_differences = (loss(0.5001).detach() - loss(0.4999).detach()) / 2e-4
    loss(0.5).backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, by_differences, rtol=1e-5, atol=0)


def test_an_objective_that_visits_every_level_has_its_own_gradient() -> None:
    """The same through an objective, keyed as training keys it."""
    network, x = Noisy(), torch.randn(8, 3)
    model = Diffusion(3, denoiser=network, steps=4, schedule=MILD).double()

    def loss(value: float) -> Tensor:
        network.weight.data.fill_(value)
        with random.keyed(0):
            return Bound(timesteps=None)(model, Batch(x))[0]

    by_differences = (loss(0.5001).detach() - loss(0.4999).detach()) / 2e-4
    loss(0.5).backward()
    assert network.weight.grad is not None
    torch.testing.assert_close(network.weight.grad, by_differences, rtol=1e-5, atol=0)


@pytest.mark.parametrize("request_", [{"samples": 2}, {"needs_path": True}])
def test_timesteps_beside_whole_paths_are_refused(request_: dict[str, Any]) -> None:
    model = Diffusion(2, width=8, steps=4)
    with pytest.raises(ValueError, match="timesteps=2 beside whole paths"):
        model(torch.zeros(3, 2), Request(timesteps=2, **request_))
