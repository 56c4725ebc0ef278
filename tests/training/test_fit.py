"""Training: what it converges to, that it repeats itself, what it leaves behind, what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from genmod import decoders, encoders, priors
from genmod.data import Dataset
from genmod.evaluation.scoring import score
from genmod.model import LatentModel
from genmod.models import VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.objectives import Bound, Simple, Weighted
from genmod.training import NonFiniteLoss, fit, train
from tests.oracles_vae import PPCA
from tests.statistics import assert_mean
from tests.training.cases import breaking, data, diffusion, flat, vae

pytestmark = pytest.mark.usefixtures("float64")


# ---------------------------------------------------------------------- where it goes


def ppca_optimum(x: Tensor, q: int) -> float:
    """The highest mean log-likelihood of pPCA with ``q`` latents (Tipping, Bishop 1999, eq. 8)."""
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    d, left = len(values), values[q:].mean()
    spread = values[:q].log().sum() + (d - q) * left.log()
    return float(-0.5 * (d * math.log(2 * math.pi) + spread + d))


def test_a_linear_vae_reaches_the_maximum_likelihood_of_ppca() -> None:
    """Trained by ``fit``, the marginal of its decoder lies within 0.005 nats of the closed form.

    Sign flipped: the loss in ``Bound.cost`` (``elbo.value``).
    """
    x = data(256)
    network, scale = nn.Linear(1, 3), decoders.Global()
    model = LatentModel(
        encoders.Gaussian(nn.Linear(3, 2), (1,)),
        decoders.Gaussian(network, (3,), scale),
        priors.Normal((1,)),
    )
    list(
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
    )
    spread = float((2 * scale.log_scale.detach()).exp())
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
        steps = fit(model, data(), steps=8, batch_size=16, seed=seed, progress=False)
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
    train(fit(model, data(), steps=3, batch_size=16, progress=False))
    assert torch.equal(torch.randn(4), expected)


# ---------------------------------------------------------------------- what the loop leaves behind


def test_the_best_by_validation_is_the_highest_and_is_kept() -> None:
    """With an average of no memory and a rate that spoils the model, the best is not the last."""
    x = data(64)
    parts = Dataset("rows", x[:40], x[40:], x[:0])
    model = vae()
    seen: list[tuple[float, Tensor]] = []
    for step in fit(
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
    for step in fit(model, data(), steps=50, batch_size=16, progress=False):
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
    for _ in fit(model, data(), Simple(), steps=5, batch_size=16, progress=False):
        assert not model.encoder.training
        assert not model.decoder.training
        assert model.prior.training
        assert all(p.grad is None for part in model.fixed() for p in part.parameters())
    assert all(torch.equal(a, flat(b)) for a, b in zip(fixed, model.fixed(), strict=True))
    assert not torch.equal(before, flat(model.prior))


# ---------------------------------------------------------------------- a loss that is not finite


@pytest.mark.parametrize(("at", "value"), [(1, math.nan), (5, math.nan), (5, math.inf)])
def test_a_broken_term_stops_the_run_and_keeps_the_last_good_weights(at: int, value: float) -> None:
    """The weights are those of the run that was stopped one step before, bit for bit.

    Made to fail by letting ``State.update`` step on whatever it gets.
    """
    broken = breaking(at, value)
    with pytest.raises(NonFiniteLoss, match=rf"step {at} \(in reconstruction\)"):
        train(fit(broken, data(), steps=20, batch_size=16, progress=False))
    whole = breaking(0, 1.0)
    for step in fit(whole, data(), steps=20, batch_size=16, progress=False):
        if step.number == at - 1:
            break
    reference = breaking(0, 1.0) if at == 1 else whole
    assert torch.equal(flat(broken), flat(reference))
    assert all(p.grad is None for p in broken.parameters())


def test_a_poisoned_batch_is_named_by_its_step() -> None:
    """A context that is NaN in one row breaks the step whose batch holds the row, and no other."""
    x, told = data(), torch.zeros(48, 1)
    told[11] = math.nan
    network = encoders.Gaussian(_Told(), (2,))
    model = VAE(3, latents=2, encoder=network, decoder=decoders.Gaussian(_Deaf(), (3,)))
    steps = fit(model, (x, told), steps=30, batch_size=12, progress=False)
    made: list[float] = []
    with pytest.raises(NonFiniteLoss, match=r"step \d+ \(in ") as caught:
        made.extend(step.loss for step in steps)
    assert all(map(math.isfinite, made))
    assert f"step {len(made) + 1} " in str(caught.value)
    assert len(made) < 4, "each row is in one of the four batches of the first epoch"
    assert torch.isfinite(flat(model)).all()


def test_a_gradient_that_is_not_finite_is_caught_where_the_loss_is() -> None:
    """The root of zero: a finite value with an infinite slope."""
    model = VAE(3, latents=2, width=8, depth=1, decoder=decoders.Gaussian(_Root(), (3,)))
    before = flat(model)
    with pytest.raises(NonFiniteLoss, match=r"step 1 \(its gradient is not finite\)"):
        train(fit(model, data(), steps=3, batch_size=16, progress=False))
    assert torch.equal(flat(model), before)


class _Told(nn.Linear):
    """Reads the data and the context."""

    def __init__(self) -> None:
        super().__init__(4, 4)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        assert context is not None
        return super().forward(torch.cat([x, context], -1))


class _Deaf(nn.Linear):
    """Ignores the context."""

    def __init__(self) -> None:
        super().__init__(2, 3)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x)


class _Root(nn.Module):
    """The square root of a parameter that is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(3))

    def forward(self, z: Tensor) -> Tensor:
        return self.zero.sqrt().expand(len(z), 3)


# ---------------------------------------------------------------------- what is refused, and when


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda x: fit(vae(), x, batch_size=0), "batch_size=0"),
        (lambda x: fit(vae(), x, steps=0), "steps=0"),
        (lambda x: fit(vae(), x, learning_rate=0.0), "learning_rate=0"),
        (lambda x: fit(vae(), x, learning_rate=-1.0), "learning_rate=-1"),
        (lambda x: fit(vae(), x, learning_rate=math.nan), "learning_rate=nan"),
        (lambda x: fit(vae(), x, weight_decay=-1.0), "weight_decay=-1"),
        (lambda x: fit(vae(), x, warmup=-1), "warmup=-1"),
        (lambda x: fit(vae(), x, ema=1.0), "ema=1"),
        (lambda x: fit(vae(), x, clip=0.0), "clip=0"),
        (lambda x: fit(vae(), x, validate_every=0), "validate_every=0"),
        (lambda x: fit(vae(), x, validation_draws=0), "validation_draws=0"),
        (lambda x: fit(vae(), x, checkpoint_every=0), "checkpoint_every=0"),
        (lambda x: fit(vae(), x[:0]), "no data"),
        (lambda x: fit(vae(), x.where(x != x[5, 1], math.nan)), "1 values of x that are NaN"),
        (lambda x: fit(vae(), x[:, :2]), r"x of shape \(48, 2\)"),
        (lambda x: fit(vae(), (x, x[:5])), "context with another number of rows"),
        (lambda x: fit(VAE(3, bins=17), x), "not whole numbers"),
        (lambda x: fit(VAE(3, bins=3), (x * 0 + 3).long()), "x from 3 to 3"),
        (lambda x: fit(vae(), x, Simple()), "Simple on a model whose encoder learns"),
        (lambda x: fit(vae(), x, Weighted(torch.ones_like)), "Weighted on a model whose"),
        (lambda x: fit(vae().requires_grad_(False), x), "without parameters to learn"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_trained_is_refused_on_the_call(
    ask: Callable[[Tensor], object], said: str
) -> None:
    """Before the first step is asked for, with what was got and what to do."""
    with pytest.raises(ValueError, match=said):
        ask(data())


@pytest.mark.usefixtures("as_users_run")
def test_held_out_data_are_checked_on_the_call_too() -> None:
    """A validation part that the model cannot score is refused before hours of training."""
    x = data()
    with pytest.raises(ValueError, match="shape"):
        fit(Diffusion(2, width=8), Dataset("rows", x, x[:4], x[:0]))


def test_no_validation_data_is_fine() -> None:
    """An empty validation part means that nothing is measured."""
    x = data()
    parts = Dataset("rows", x, x[:0], x[:0])
    assert train(fit(vae(), parts, steps=2, batch_size=16, progress=False)) == []


# ---------------------------------------------------------------------- what a step says


def test_a_step_says_the_bound_that_was_trained_on() -> None:
    """For the bound itself, the loss is minus the mean bound; nothing said carries gradients."""
    model = vae()
    for number, step in enumerate(
        fit(model, data(), Bound(), steps=3, batch_size=16, progress=False), start=1
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
    found = train(fit(model, parts, steps=4, batch_size=16, validate_every=2, progress=False))
    assert [v.step for v in found] == [2, 4]
    assert found[0].bits_per_dim is None
    assert max(v.nats for v in found) == pytest.approx(
        float(score(model, x[40:]).reconstruction.mean()), rel=1e-12
    )


def test_validation_noise_is_shared() -> None:
    """Two close models differ by what they learned: far less than under fresh noise.

    Under shared noise the difference of two validations has a fiftieth of the spread, and it has
    the mean that fresh noise gives.
    """
    x, model = data(), diffusion()
    train(fit(model, x, steps=30, batch_size=16, progress=False))
    near = diffusion()
    near.load_state_dict(model.state_dict())
    with torch.no_grad():
        for p in near.parameters():
            p.add_(1e-3 * torch.randn_like(p))

    def bound(which: LatentModel, seed: int) -> Tensor:
        return score(which, x, draws=2, seed=seed).value.mean()

    shared = torch.stack([bound(model, s) - bound(near, s) for s in range(30)])
    fresh = torch.stack([bound(model, s) - bound(near, 1000 + s) for s in range(30)])
    assert shared.std() < fresh.std() / 50
    assert_mean(fresh, shared.mean(), name="difference")


def test_a_learning_rate_of_ones_own_optimizer_is_kept() -> None:
    """``fit`` shapes the rate that an optimizer came with: plain descent moves in proportion to it."""
    moves = []
    for rate in (0.02, 0.002):
        model = vae()
        before = flat(model)
        own = torch.optim.SGD(model.parameters(), lr=rate)
        train(fit(model, data(), steps=1, clip=None, optimizer=own, progress=False))
        moves.append(flat(model) - before)
    assert moves[0].abs().max() > 1e-4
    torch.testing.assert_close(moves[0], 10 * moves[1], rtol=1e-9, atol=1e-15)
