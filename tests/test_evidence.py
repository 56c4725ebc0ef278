"""Every state of a tiny model: probabilities sum to one, and no bound lies above its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from genmod import decoders, encoders
from genmod.decoders import Decoder
from genmod.model import LatentModel
from genmod.models import VAE
from genmod.spec import DataSpec
from tests.oracles_vae import gauss_hermite, ppca
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


TINY: dict[str, tuple[Callable[[], Decoder], int, int]] = {
    "bits": (lambda: decoders.BernoulliDecoder(_network(6), (6,)), 2, 6),
    "levels": (lambda: decoders.CategoricalDecoder(_network(9), (3,), 3), 3, 3),
    "logistic": (lambda: decoders.DiscretizedLogisticDecoder(_network(3), (3,), 4, 0.3), 4, 3),
    "normal": (lambda: decoders.DiscretizedGaussianDecoder(_network(3), (3,), 4, 0.3), 4, 3),
    "normal, its scale said": (
        lambda: decoders.DiscretizedGaussianDecoder(
            _network(6), (3,), 4, decoders.PredictedScale(0.5)
        ),
        4,
        3,
    ),
}


def _network(outputs: int) -> nn.Module:
    """A smooth, strongly nonlinear function of one latent."""
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, outputs))


def tiny(name: str) -> tuple[VAE, Tensor]:
    """A VAE with one latent dimension, and every state of its data."""
    make, bins, entries = TINY[name]
    network = nn.Sequential(nn.Linear(entries, 8), nn.Tanh(), nn.Linear(8, 2))
    encoder = encoders.GaussianEncoder(network, (1,), DataSpec((entries,), bins))
    model = VAE(encoder=encoder, decoder=make(), latents=1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    model.requires_grad_(False)
    return model, torch.tensor(list(itertools.product(range(bins), repeat=entries)))


def log_joint_on_grid(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    """``log p(x | z)`` for each row of ``x`` and each node, ``(B, K)``."""
    rows = x.repeat_interleave(len(z), 0)
    law = model.decode(z.repeat(len(x))[:, None])
    return law.log_prob(rows).reshape(len(x), len(z))


def log_evidence(model: VAE, x: Tensor) -> Tensor:
    """``log p(x) = log E_{z ~ N(0, 1)} p(x | z)`` by Gauss-Hermite quadrature, ``(B,)``."""
    z, log_w = gauss_hermite(90)
    return (log_joint_on_grid(model, x, z) + log_w).logsumexp(1)


def exact_elbo(model: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """``E_q log p(x | z) - KL(q || N(0, 1))`` and ``KL(q || p(z | x))`` by quadrature under q."""
    nodes, log_w = gauss_hermite(90)
    q = model.encoder(x)
    assert isinstance(q, torch.distributions.Distribution)
    z = q.mean + q.stddev * nodes
    rows = x.repeat_interleave(len(nodes), 0)
    likelihood = model.decode(z.reshape(-1, 1)).log_prob(rows).reshape(len(x), -1)
    std = q.stddev[:, 0]
    kl = 0.5 * (std.square() + q.mean[:, 0].square() - 1) - std.log()
    elbo = (log_w.exp() * likelihood).sum(1) - kl
    log_q = -0.5 * nodes.square() - 0.5 * math.log(2 * math.pi) - q.stddev.log()
    log_p = likelihood - 0.5 * z.square() - 0.5 * math.log(2 * math.pi)
    posterior = log_p - log_evidence(model, x)[:, None]
    return elbo, (log_w.exp() * (log_q - posterior)).sum(1)


@pytest.mark.parametrize("name", list(TINY))
def test_the_probabilities_of_all_states_sum_to_one(name: str) -> None:
    model, states = tiny(name)
    assert log_evidence(model, states).exp().sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", list(TINY))
def test_no_state_has_a_bound_above_its_probability(name: str) -> None:
    """For every state ``log p = ELBO + KL(q || p(z | x))``; and the ELBO's draws have that mean."""
    model, states = tiny(name)
    with torch.no_grad():
        log_p = log_evidence(model, states)
        elbo, divergence = exact_elbo(model, states)
        assert bool((elbo < log_p).all())
        assert bool((divergence > 0).all())
        torch.testing.assert_close(elbo + divergence, log_p, rtol=0, atol=1e-9)
        many = states.repeat(2000, 1)
        draws = model.elbo(many).value.reshape(2000, -1)
        assert_mean(draws, elbo, name="ELBO")
        assert_mean(model.log_weight(many).reshape(2000, -1), elbo, name="log-weight")


def importance_weights(model: LatentModel, x: Tensor, k: int, repeats: int) -> Tensor:
    """Log-weights of ``k`` draws, ``repeats`` times: ``(repeats, k)``, for one row ``x``."""
    rows = x.expand(repeats * k, *x.shape[1:])
    return model.log_weight(rows).detach().reshape(repeats, k)


def iwae(log_weights: Tensor) -> Tensor:
    """``log 1/k sum exp`` over the last dimension."""
    return log_weights.logsumexp(-1) - math.log(log_weights.shape[-1])


def test_importance_weighted_bounds_grow_from_the_elbo_to_the_evidence() -> None:
    """``ELBO = L_1 < L_4 < L_16 < log p`` and ``E exp(log-weight) = p(x)`` (Burda et al. 2016)."""
    model, states = tiny("bits")
    gaps = exact_elbo(model, states)[1]
    worst = int(gaps.argmax())
    x = states[worst : worst + 1]
    log_p, elbo = float(log_evidence(model, x)), float(exact_elbo(model, x)[0])
    weights = importance_weights(model, x, 64, 3000)
    assert_mean(weights[:, 0], elbo, name="L_1")
    assert_mean(weights.flatten().exp(), math.exp(log_p), name="p(x)")
    means = [iwae(weights[:, :k]).mean() for k in (1, 4, 16, 64)]
    assert sorted(means) == means
    error = float(iwae(weights).std()) / math.sqrt(len(weights))
    assert means[-1] - means[0] > 0.1  # the climb is real, not noise
    assert means[-1] < log_p + 4.9 * error
    assert log_p - means[-1] < 0.2 * (log_p - elbo)


def test_the_mean_over_all_subsets_grows_with_their_size() -> None:
    """For any fixed weights, the average of L_k over all subsets of size k does not fall with k.

    Not a statistical statement: it holds draw by draw (Burda et al. 2016, theorem 1).
    """
    model, states = tiny("levels")
    weights = importance_weights(model, states[5:6], 7, 20)
    chain = []
    for k in range(1, 8):
        subsets = [iwae(weights[:, list(chosen)]) for chosen in itertools.combinations(range(7), k)]
        chain.append(torch.stack(subsets).mean(0))
    rises = torch.stack(chain).diff(dim=0)
    assert bool((rises > 0).all())


def test_importance_weights_of_an_exact_posterior_are_constant() -> None:
    """L_k is ``log p(x)`` for every k, with no variance."""
    oracle = ppca()
    x = oracle.law.sample((1,))
    weights = importance_weights(oracle.model(oracle.diagonal()), x, 16, 10)
    assert (iwae(weights) - oracle.law.log_prob(x)).abs().max() < 1e-10
