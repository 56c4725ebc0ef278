"""Training: what it converges to, that it repeats itself, what it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from genmod import decoders, encoders, priors
from genmod.data import Dataset
from genmod.evaluation import paired, score
from genmod.model import LatentModel
from genmod.models import Autoencoder, Diffusion, LatentDiffusion
from genmod.objectives import Bound, Simple
from genmod.training import fit, training_loop
from genmod.training.validation import SEED, HeldOut, validate
from tests.oracles_vae import PPCA
from tests.statistics import assert_mean
from tests.training.cases import data, diffusion, flat, vae

pytestmark = pytest.mark.usefixtures("float64")


# ---------------------------------------------------------------------- where it goes


def ppca_optimum(x: Tensor, q: int) -> float:
    """The highest mean log-likelihood of pPCA with ``q`` latents (Tipping, Bishop 1999, eq. 8)."""
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    d, left = len(values), values[q:].mean()
    spread = values[:q].log().sum() + (d - q) * left.log()
    return float(-0.5 * (d * math.log(2 * math.pi) + spread + d))


def test_a_linear_vae_reaches_the_maximum_likelihood_of_ppca() -> None:
    """Trained by ``fit``, the marginal of its decoder lies within 0.005 nats of the closed form."""
    x = data(256)
    network, scale = nn.Linear(1, 3), decoders.GlobalScale()
    model = LatentModel(
        encoders.GaussianEncoder(nn.Linear(3, 2), (1,)),
        decoders.GaussianDecoder(network, (3,), scale),
        priors.NormalPrior((1,)),
    )
    fit(
        model,
        x,
        steps=250,
        batch_size=256,
        learning_rate=0.1,
        warmup=10,
        ema=0.95,
        progress=False,
    )
    spread = float((2 * scale(torch.zeros(1)).detach()).exp())
    learned = PPCA(network.weight.detach(), network.bias.detach(), spread)
    optimum = ppca_optimum(x, 1)
    reached = float(learned.law.log_prob(x).mean())
    assert optimum - 0.005 < reached <= optimum
    # Its posterior became the exact one: the bound says the same.
    draws = torch.stack([score(model, x, seed=seed).value.mean() for seed in range(20)])
    assert abs(float(draws.mean()) - optimum) < 0.02


# ---------------------------------------------------------------------- equal seeds, equal runs


@pytest.mark.parametrize("build", [vae, lambda: vae(dropout=0.4), diffusion])
def test_equal_seeds_give_equal_runs_bit_for_bit(build: Callable[[], LatentModel]) -> None:
    """Whatever state torch's own generator is in; and another seed gives another run."""
    runs = []
    for chaos, seed in ((1, 5), (2, 5), (1, 6)):
        model = build()
        torch.manual_seed(chaos)
        steps = training_loop(model, data(), steps=8, batch_size=16, seed=seed, progress=False)
        losses = [step.loss for step in steps]
        runs.append((losses, flat(model)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][1], runs[2][1])


def test_training_leaves_the_users_random_numbers_alone() -> None:
    """Dropout draws from a generator that is put back after each step."""
    torch.manual_seed(3)
    expected = torch.randn(4)
    model = vae(dropout=0.4)
    torch.manual_seed(3)
    fit(model, data(), steps=3, batch_size=16, progress=False)
    assert torch.equal(torch.randn(4), expected)


# ---------------------------------------------------------------------- what the loop leaves behind


def test_the_best_by_validation_is_the_highest_and_is_kept() -> None:
    """With an average of no memory and a rate that spoils the model, the best is not the last."""
    x = data(64)
    parts = Dataset("rows", x[:40], x[40:], x[:0])
    model = vae()
    seen: list[tuple[float, Tensor]] = []
    for step in training_loop(
        model,
        parts,
        steps=24,
        batch_size=40,
        learning_rate=0.3,
        warmup=0,
        decay=False,
        ema=0.0,
        clip=None,
        validate_every=3,
        progress=False,
    ):
        if step.validation is not None:
            seen.append((step.validation.nats, flat(step.averaged)))
    assert len(seen) == 8
    best = max(range(8), key=lambda i: seen[i][0])
    assert best != 7, "the case should have its best inside"
    assert torch.equal(flat(model), seen[best][1])
    assert not model.training


def test_breaking_out_of_the_loop_leaves_the_averaged_weights() -> None:
    """Without held-out data the last averaged weights; with it, the best validated ones."""
    model = vae()
    for step in training_loop(model, data(), steps=50, batch_size=16, progress=False):
        kept = flat(step.averaged)
        if step.number == 7:
            assert not torch.equal(flat(model), kept)
            break
    assert torch.equal(flat(model), kept)
    assert not model.training


def test_a_frozen_part_neither_learns_nor_drops_out() -> None:
    """Frozen parts stay in the mode in which they are used, and bit for bit as they are."""
    model = LatentDiffusion(3, latents=2, width=8, depth=1, dropout=0.5)
    model.freeze(data())
    fixed = [flat(part) for part in model.fixed()]
    before = flat(model.prior)
    for _ in training_loop(model, data(), Simple(), steps=5, batch_size=16, progress=False):
        assert not model.encoder.training
        assert not model.decoder.training
        assert model.prior.training
        assert all(p.grad is None for part in model.fixed() for p in part.parameters())
    assert all(torch.equal(a, flat(b)) for a, b in zip(fixed, model.fixed(), strict=True))
    assert not torch.equal(before, flat(model.prior))


# ---------------------------------------------------------------------- what a step says


def test_a_step_holds_the_bound_that_was_trained_on() -> None:
    """For the bound itself, the loss is minus the mean bound; nothing in it carries gradients."""
    model = vae()
    for number, step in enumerate(
        training_loop(model, data(), Bound(), steps=3, batch_size=16, progress=False), start=1
    ):
        assert step.number == number
        assert step.loss == pytest.approx(-step.bound, rel=1e-12)
        assert not step.elbo.value.requires_grad
        assert len(step.elbo.value) == 16


def test_an_autoencoder_is_validated_by_its_reconstruction() -> None:
    """It bounds nothing, so there are no bits per dimension; the best is still kept."""
    x = data()
    model = Autoencoder(3, latents=2, width=8, depth=1)
    parts = Dataset("rows", x[:40], x[40:], x[:0])
    found = fit(model, parts, steps=4, batch_size=16, validate_every=2, progress=False).validations
    assert [v.step for v in found] == [2, 4]
    assert found[0].bits_per_dim is None
    assert max(v.nats for v in found) == pytest.approx(
        float(score(model, x[40:]).reconstruction.mean()), rel=1e-12
    )


def close() -> tuple[Diffusion, Diffusion]:
    """A diffusion after thirty steps, and another from weights a thousandth away."""
    model, near = diffusion(), diffusion()
    fit(model, data(), steps=30, batch_size=16, progress=False)
    near.load_state_dict(model.state_dict())
    with torch.no_grad():
        for p in near.parameters():
            p.add_(1e-3 * torch.randn_like(p))
    return model, near


def test_validation_noise_is_shared() -> None:
    """Two close models differ by what they learned: far less than under fresh noise.

    Under shared noise the difference of two validations has a fiftieth of the spread, and it has
    the mean that fresh noise gives.
    """
    x, (model, near) = data(), close()

    def bound(which: LatentModel, seed: int) -> Tensor:
        return score(which, x, timesteps=2, seed=seed).value.mean()

    shared = torch.stack([bound(model, s) - bound(near, s) for s in range(16)])
    fresh = torch.stack([bound(model, s) - bound(near, 1000 + s) for s in range(16)])
    assert shared.std() < fresh.std() / 50
    assert_mean(fresh, shared.mean(), name="difference")


def test_validations_rank_two_checkpoints_closer_than_their_errors() -> None:
    """``validate`` itself draws one noise: the difference of two is paired, its error far below theirs.

    And the better one by it is the better one over much fresh noise.
    """
    x, (model, near) = data(), close()
    first, second = (
        validate(m, HeldOut.sample(x, None, len(x)), step, 2)
        for step, m in enumerate((model, near))
    )
    difference = paired(*(score(m, x, timesteps=2, seed=SEED) for m in (model, near)))
    assert first.nats - second.nats == pytest.approx(difference.mean, rel=1e-9)
    assert difference.error < min(first.error, second.error) / 50
    assert abs(difference.mean) < min(first.error, second.error) / 50
    many = x.repeat(30, 1)
    fresh = paired(*(score(m, many, timesteps=64, seed=1) for m in (model, near)))
    assert fresh.mean * difference.mean > 0
    assert first.error == pytest.approx(
        float(score(model, x, timesteps=2, seed=SEED).value.std()) / len(x) ** 0.5
    )


def test_the_learning_rate_of_a_given_optimizer_is_kept() -> None:
    """``fit`` shapes the rate that an optimizer came with: plain descent moves in proportion to it."""
    moves = []
    for rate in (0.02, 0.002):
        model = vae()
        before = flat(model)
        own = torch.optim.SGD(model.parameters(), lr=rate)
        fit(model, data(), steps=1, clip=None, optimizer=own, progress=False)
        moves.append(flat(model) - before)
    assert moves[0].abs().max() > 1e-4
    torch.testing.assert_close(moves[0], 10 * moves[1], rtol=1e-9, atol=1e-15)
