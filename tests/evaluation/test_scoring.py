"""Scoring: the same numbers however the data are cut, and the same mean by every route."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod import Measure, Stamp, decoders, encoders, random
from genmod.distributions import Normal
from genmod.evaluation.scoring import log_weights, score
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference, LatentDiffusion
from genmod.nn import MLP, DenoisingMLP
from genmod.random import BLOCK
from tests.oracles_vae import ppca
from tests.statistics import assert_equal_means

pytestmark = pytest.mark.usefixtures("float64")


def network() -> DenoisingMLP:
    """A denoiser's network whose output is not zero (a new one's is)."""
    net = DenoisingMLP((3,), width=8, depth=1)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


MODELS: dict[str, Callable[[], LatentModel]] = {
    "vae": lambda: VAE(3, latents=2, width=8),
    "bottom-up": lambda: HVAE(3, latents=(3, 2), width=8),
    "top-down": lambda: HVAE(3, latents=(3, 2), width=8, inference=Inference.TOP_DOWN),
    "diffusion": lambda: Diffusion(3, denoiser=network(), steps=4),
    "latent diffusion": lambda: LatentDiffusion(
        3, latents=2, width=8, diffusion=Diffusion(2, width=8, steps=3)
    ),
}


@pytest.mark.parametrize("family", MODELS)
def test_a_score_does_not_depend_on_the_rows_behind_it(family: str) -> None:
    """Blocks of noise are drawn whole: the first rows score alike alone and in a larger set.

    Also with stratified levels, which are spread over a block.
    """
    model, x = MODELS[family](), torch.randn(2 * BLOCK + 50, 3)
    for draws in (None, 2) if model.prior.has_timesteps else (None,):
        whole = score(model, x, timesteps=draws, seed=4)
        assert whole.value.shape == (len(x),)
        for count in (10, BLOCK + 7):
            part = score(model, x[:count], timesteps=draws, seed=4)
            torch.testing.assert_close(part.value, whole.value[:count], rtol=1e-11, atol=1e-11)
    weights = log_weights(model, x, importance_samples=2, seed=4)
    fewer = log_weights(model, x[: BLOCK + 7], importance_samples=2, seed=4)
    torch.testing.assert_close(fewer, weights[: BLOCK + 7], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("family", MODELS)
def test_rows_and_seeds_draw_noise_of_their_own(family: str) -> None:
    """Equal rows score differently in every place and block, and under every seed."""
    model, x = MODELS[family](), torch.ones(2 * BLOCK, 3)
    values = score(model, x, seed=1).value
    assert len(values.unique()) == len(values)
    assert not torch.equal(values[:BLOCK], values[BLOCK:])
    assert torch.equal(values, score(model, x, seed=1).value)
    assert not torch.equal(values, score(model, x, seed=2).value)
    weights = log_weights(model, x[:50], importance_samples=3)
    assert len(weights.unique()) == weights.numel()


@pytest.mark.parametrize("family", ["diffusion", "latent diffusion"])
def test_a_few_levels_or_all_of_them_have_one_mean(family: str) -> None:
    """``timesteps=n`` estimates the full sum: forty means of twenty rows, each row with its own noise."""
    model, x = MODELS[family](), torch.randn(20, 3).repeat(40, 1)

    def means(draws: int | None) -> Tensor:
        return score(model, x, timesteps=draws, seed=draws or 0).value.reshape(40, 20).mean(1)

    full = means(None)
    for draws in (1, 3):
        assert_equal_means(means(draws), full, name=f"timesteps={draws}")


@pytest.mark.parametrize("family", MODELS)
def test_the_mean_log_weight_is_the_bound(family: str) -> None:
    """Every KL sampled along one joint path, against closed forms where there are some."""
    model, x = MODELS[family](), torch.randn(1, 3).expand(200, 3)
    weights = log_weights(model, x, importance_samples=10, seed=1).flatten()
    bounds = torch.stack([score(model, x, seed=s).value for s in range(10)]).flatten()
    assert_equal_means(weights, bounds, name="log-weight")


def test_importance_weights_of_an_exact_posterior_are_all_the_likelihood() -> None:
    """Whatever was drawn, ``log p(x, z) - log q(z | x)`` is ``log p(x)``."""
    oracle = ppca()
    x = oracle.law.sample((300,))
    weights = log_weights(oracle.model(oracle.diagonal()), x, importance_samples=3)
    expected = oracle.law.log_prob(x)[:, None].expand(-1, 3)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", MODELS)
def test_a_score_is_the_sum_of_its_terms(family: str) -> None:
    """The reconstruction minus every rate, and each term the bound's own on the same noise."""
    model, x = MODELS[family](), torch.randn(30, 3)
    scores = score(model, x, seed=6)
    total = scores.reconstruction - torch.stack(list(scores.rates.values())).sum(0)
    torch.testing.assert_close(scores.value, total, rtol=1e-13, atol=1e-13)
    with random.keyed(6, ids=range(30)), torch.no_grad():
        bound = model.elbo(x)
    torch.testing.assert_close(scores.value, bound.value, rtol=1e-13, atol=1e-13)
    assert scores.measure is Measure.DENSITY
    assert scores.stamp is Stamp.BOUND


def test_units_are_the_mean_cost_of_each_dimension() -> None:
    """The closed KL per latent dimension, averaged over all rows and not over batches."""
    model, x = VAE(3, latents=2, width=8), torch.randn(BLOCK + 40, 3)
    units = score(model, x).per_dim["prior"]
    with torch.no_grad():
        q = model.encoder(x)
    assert isinstance(q, Normal)
    each = 0.5 * (q.mean.square() + q.variance - 1) - q.log_std
    torch.testing.assert_close(units, each.mean(0), rtol=1e-12, atol=1e-14)


def test_levels_add_up_to_the_steps() -> None:
    """Of T latents there are T - 1 steps, from clean to noise; a few draws have no such curve."""
    model, x = MODELS["diffusion"](), torch.randn(BLOCK + 40, 3)
    scores = score(model, x)
    assert scores.levels is not None
    t, log_snr, nats = scores.levels
    torch.testing.assert_close(t, torch.tensor([1 / 3, 2 / 3, 1.0]))
    torch.testing.assert_close(log_snr, 13.3 - 18.3 * t)
    torch.testing.assert_close(nats.sum(), scores.rates["steps"].mean(), rtol=1e-12, atol=0)
    few = score(model, x, timesteps=1)
    assert few.levels is None
    assert few.stamp is Stamp.ESTIMATE


# ---------------------------------------------------------------------- what it leaves behind


def test_scoring_turns_dropout_off_and_restores_the_modes() -> None:
    """A model in training with one part in evaluation is found as it was."""
    model = VAE(3, latents=2, width=8, dropout=0.5)
    model.train()
    model.encoder.eval()
    x = torch.randn(20, 3)
    was = {name: module.training for name, module in model.named_modules()}
    torch.manual_seed(1)
    first = score(model, x)
    torch.manual_seed(2)
    assert torch.equal(score(model, x).value, first.value)
    assert not first.value.requires_grad
    assert {name: module.training for name, module in model.named_modules()} == was
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_error_restores_the_modes() -> None:
    """A continuous-time diffusion refuses ``timesteps=None``, and stays in training mode."""
    model = Diffusion(3, width=8)
    model.train()
    with pytest.raises(ValueError, match="continuous time"):
        score(model, torch.randn(4, 3), timesteps=None)
    assert all(module.training for module in model.modules())


def test_the_context_goes_with_its_rows() -> None:
    """The right one of two means as a context costs fewer nats than the wrong one."""
    told = (torch.arange(BLOCK + 60) % 2).to(torch.get_default_dtype())[:, None]
    model = VAE(
        3,
        latents=2,
        encoder=_told_encoder(),
        decoder=decoders.GaussianDecoder(_ShiftNetwork(), (3,)),
    )
    x = 10 * told.expand(-1, 3) + 0.1 * torch.randn(len(told), 3)
    right, wrong = score(model, x, told).reconstruction, score(model, x, 1 - told).reconstruction
    assert (right - wrong).min() > 100
    weights = log_weights(model, x, told, importance_samples=1) - log_weights(
        model, x, 1 - told, importance_samples=1
    )
    assert weights.min() > 100


def _told_encoder() -> encoders.Encoder:
    return encoders.GaussianEncoder(MLP(3, 4, width=8, context=1), (2,))


class _ShiftNetwork(torch.nn.Module):
    """Ten times the context for a mean."""

    def forward(self, z: Tensor, context: Tensor) -> Tensor:
        """``(B, 3)``."""
        return 10 * context.expand(-1, 3)


@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_scored_is_refused() -> None:
    """No rows, no draws, no prior, values that are not finite."""
    model, x = VAE(3, latents=2, width=8), torch.randn(4, 3)
    with pytest.raises(ValueError, match="without a row"):
        score(model, x[:0])
    with pytest.raises(ValueError, match="importance_samples=0"):
        log_weights(model, x, importance_samples=0)
    with pytest.raises(ValueError, match="n=0"):
        score(Diffusion(3, width=8), x, timesteps=0)
    with pytest.raises(ValueError, match="NaN"):
        score(model, x.where(x != x[1, 1], torch.nan))
    with pytest.raises(ValueError, match="flat prior"):
        log_weights(Autoencoder(3, latents=2, width=8), x, importance_samples=1)
    with pytest.raises(ValueError, match="continuous time"):
        log_weights(Diffusion(3, width=8), x, importance_samples=1)


def test_an_autoencoder_scores_without_chance() -> None:
    """It draws nothing: its score is one number, whatever the seed, and bounds nothing."""
    model, x = Autoencoder(3, latents=2, width=8), torch.randn(10, 3)
    scores = score(model, x, seed=1)
    assert torch.equal(scores.value, score(model, x, seed=2).value)
    assert torch.equal(scores.value, scores.reconstruction)
    assert scores.measure is Measure.NONE
