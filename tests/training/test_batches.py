"""Batches are a function of (seed, step), and an epoch is a permutation."""

from __future__ import annotations

import pytest
import torch

from genmod import random
from genmod.model import LatentModel
from genmod.training.batches import Batches
from tests.training.cases import data, diffusion, vae

CPU = torch.device("cpu")


def epoch(batches: Batches, number: int) -> torch.Tensor:
    """All rows of an epoch, in order."""
    first = number * batches.per_epoch
    return torch.cat([batches(first + i)[0] for i in range(batches.per_epoch)])


def test_every_epoch_visits_each_sample_once_in_an_order_of_its_own() -> None:
    """Twelve rows in batches of four, three epochs."""
    batches = Batches(torch.arange(12), None, 4, seed=3)
    epochs = [epoch(batches, number).tolist() for number in range(3)]
    assert all(sorted(rows) == list(range(12)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 3


def test_an_epoch_leaves_out_only_what_fills_no_batch() -> None:
    """Of eleven rows in batches of four, three are left out, others in each epoch."""
    batches = Batches(torch.arange(11), None, 4, seed=0)
    left = [set(range(11)) - set(epoch(batches, number).tolist()) for number in range(40)]
    assert all(len(rows) == 3 for rows in left)
    assert set().union(*left) == set(range(11)), "nobody is left out for ever"


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    """Not on the batches asked for before, and not on torch's generator."""
    x = torch.arange(50)
    torch.manual_seed(1)
    forward = [Batches(x, None, 7, seed=4)(step)[0] for step in range(20)]
    torch.manual_seed(2)
    backward = Batches(x, None, 7, seed=4)
    for step in reversed(range(20)):
        assert torch.equal(backward(step)[0], forward[step])
    assert not torch.equal(Batches(x, None, 7, seed=5)(0)[0], forward[0])


def test_the_context_follows_its_sample() -> None:
    """Rows and what is told about them are cut alike."""
    x = torch.arange(20.0)
    rows, told = Batches(x, 3 * x[:, None], 6, seed=0)(5)
    assert told is not None
    assert torch.equal(told[:, 0], 3 * rows)


@pytest.mark.parametrize(
    ("x", "context", "size", "said"),
    [
        (torch.zeros(0, 2), None, 1, "no data"),
        (torch.zeros(4, 2), None, 5, "batch_size=5 for 4 samples"),
        (torch.zeros(4, 2), torch.zeros(3), 2, "context with another number of rows"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    x: torch.Tensor, context: torch.Tensor | None, size: int, said: str
) -> None:
    """With what was got and what to do."""
    with pytest.raises(ValueError, match=said):
        Batches(x, context, size, seed=0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("model", [vae(), diffusion()], ids=["vae", "diffusion"])
def test_a_batch_in_two_halves_has_the_same_gradient(model: LatentModel) -> None:
    """Noise belongs to the row: gradients of pieces add up to the whole's.

    Also for a diffusion, whose stratified levels are spread over the whole batch. Made to fail by
    leaving ``start`` out of the second half's key.
    """
    model = model.double()
    x = data(16).double()

    def gradient(first: int, last: int) -> torch.Tensor:
        with random.keyed(3, step=2, start=first, block=16):
            loss = -model.elbo(x[first:last], draws=1).value.sum() / 16
        parameters = list(model.parameters())
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    whole = gradient(0, 16)
    torch.testing.assert_close(gradient(0, 8) + gradient(8, 16), whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient(0, 5) + gradient(5, 16), whole, rtol=1e-10, atol=1e-12)
    with random.keyed(3, step=2):
        loss = -model.elbo(x, draws=1).value.mean()
    single = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(
        torch.cat([g.flatten() for g in single]), whole, rtol=1e-10, atol=1e-12
    )
