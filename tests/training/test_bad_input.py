"""Training on bad input: refused on the call, or stopped with the last good weights kept."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from genmod import decoders, encoders
from genmod.data import Dataset
from genmod.models import VAE, Diffusion
from genmod.objectives import Simple, Weighted
from genmod.training import NonFiniteLoss, fit, training_loop
from tests.training.cases import breaking, data, flat, vae

pytestmark = pytest.mark.usefixtures("float64")


# ---------------------------------------------------------------------- a loss that is not finite


@pytest.mark.parametrize(("at", "value"), [(1, math.nan), (5, math.nan), (5, math.inf)])
def test_a_broken_term_stops_the_run_and_keeps_the_last_good_weights(at: int, value: float) -> None:
    """The weights are those of the run that was stopped one step before, bit for bit."""
    broken = breaking(at, value)
    with pytest.raises(NonFiniteLoss, match=rf"step {at} \(in reconstruction\)"):
        fit(broken, data(), steps=20, batch_size=16, progress=False)
    whole = breaking(0, 1.0)
    for step in training_loop(whole, data(), steps=20, batch_size=16, progress=False):
        if step.number == at - 1:
            break
    reference = breaking(0, 1.0) if at == 1 else whole
    assert torch.equal(flat(broken), flat(reference))
    assert all(p.grad is None for p in broken.parameters())


def test_a_poisoned_batch_is_named_by_its_step() -> None:
    """A context that is NaN in one row breaks the step whose batch holds the row, and no other."""
    x, told = data(), torch.zeros(48, 1)
    told[11] = math.nan
    network = encoders.GaussianEncoder(_Told(), (2,))
    model = VAE(3, latents=2, encoder=network, decoder=decoders.GaussianDecoder(_Deaf(), (3,)))
    steps = training_loop(model, (x, told), steps=30, batch_size=12, progress=False)
    made: list[float] = []
    with pytest.raises(NonFiniteLoss, match=r"step \d+ \(in ") as caught:
        made.extend(step.loss for step in steps)
    assert all(map(math.isfinite, made))
    assert f"step {len(made) + 1} " in str(caught.value)
    assert len(made) < 4, "each row is in one of the four batches of the first epoch"
    assert torch.isfinite(flat(model)).all()


def test_a_gradient_that_is_not_finite_is_caught_where_the_loss_is() -> None:
    """The root of zero: a finite value with an infinite slope."""
    model = VAE(3, latents=2, width=8, depth=1, decoder=decoders.GaussianDecoder(_Root(), (3,)))
    before = flat(model)
    with pytest.raises(NonFiniteLoss, match=r"step 1 \(its gradient is not finite\)"):
        fit(model, data(), steps=3, batch_size=16, progress=False)
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
        (lambda x: fit(vae(), x, validation_rows=0), "validation_rows=0"),
        (lambda x: fit(vae(), x, validation_timesteps=0), "validation_timesteps=0"),
        (lambda x: fit(vae(), x, checkpoint_every=0), "checkpoint_every=0"),
        (lambda x: fit(vae(), x[:0]), "no rows"),
        (lambda x: fit(vae(), x.where(x != x[5, 1], math.nan)), "1 values of x that are NaN"),
        (lambda x: fit(vae(), x[:, :2]), r"x of shape \(48, 2\)"),
        (lambda x: fit(vae(), (x, x[:5])), "context with another number of rows"),
        (lambda x: fit(VAE(3, bins=17), x), "not whole numbers"),
        (lambda x: fit(VAE(3, bins=3), (x * 0 + 3).long()), "x from 3 to 3"),
        (lambda x: fit(vae(), x, Simple()), "Simple on a model whose encoder learns"),
        (lambda x: fit(vae(), x, Weighted(torch.ones_like)), "Weighted on a model whose"),
        (lambda x: fit(vae().requires_grad_(False), x), "without parameters that learn"),
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
    assert fit(vae(), parts, steps=2, batch_size=16, progress=False).validations == ()
