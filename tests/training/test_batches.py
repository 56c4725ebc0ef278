"""Batches are a function of (seed, step), and an epoch is a permutation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genmod import random
from genmod.data import Dataset, binarized
from genmod.data.binarized import BernoulliPixels
from genmod.data.images import digits
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.models import VAE, Diffusion
from genmod.objectives import Batch, Bound
from genmod.training import training_loop
from genmod.training.batches import MemoryBatches
from tests.statistics import assert_mean
from tests.training.cases import flat

CPU = torch.device("cpu")


def epoch(batches: MemoryBatches, number: int) -> torch.Tensor:
    """All rows of an epoch, in order."""
    first = number * batches.per_epoch
    return torch.cat([batches(first + i).x for i in range(batches.per_epoch)])


def test_every_epoch_visits_each_sample_once_in_an_order_of_its_own() -> None:
    """Twelve rows in batches of four, three epochs."""
    batches = MemoryBatches(torch.arange(12), None, 4, seed=3)
    epochs = [epoch(batches, number).tolist() for number in range(3)]
    assert all(sorted(rows) == list(range(12)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 3


def test_an_epoch_leaves_out_only_what_fills_no_batch() -> None:
    """Of eleven rows in batches of four, three are left out, others in each epoch."""
    batches = MemoryBatches(torch.arange(11), None, 4, seed=0)
    left = [set(range(11)) - set(epoch(batches, number).tolist()) for number in range(40)]
    assert all(len(rows) == 3 for rows in left)
    assert set().union(*left) == set(range(11)), "nobody is left out for ever"


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    """Not on the batches asked for before, and not on torch's generator."""
    x = torch.arange(50)
    torch.manual_seed(1)
    forward = [MemoryBatches(x, None, 7, seed=4)(step).x for step in range(20)]
    torch.manual_seed(2)
    backward = MemoryBatches(x, None, 7, seed=4)
    for step in reversed(range(20)):
        assert torch.equal(backward(step).x, forward[step])
    assert not torch.equal(MemoryBatches(x, None, 7, seed=5)(0).x, forward[0])


def test_the_context_and_the_index_follow_their_sample() -> None:
    """Rows, their context and their place in the data set are cut alike."""
    x = torch.arange(20.0)
    batch = MemoryBatches(x, 3 * x[:, None], 6, seed=0)(5)
    assert batch.context is not None
    assert torch.equal(batch.context[:, 0], 3 * batch.x)
    assert batch.index is not None
    assert torch.equal(x[batch.index], batch.x)
    assert batch.rows == 20


@pytest.mark.parametrize(
    ("x", "context", "size", "said"),
    [
        (torch.zeros(0, 2), None, 1, "no rows"),
        (torch.zeros(4, 2), None, 5, "batch_size=5 for 4 samples"),
        (torch.zeros(4, 2), torch.zeros(3), 2, "context with another number of rows"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    x: torch.Tensor, context: torch.Tensor | None, size: int, said: str
) -> None:
    """With what was got and what to do."""
    with pytest.raises(ValueError, match=said):
        MemoryBatches(x, context, size, seed=0)


# ---------------------------------------------------------------------- pixels, drawn again


ROWS, IDENTITY, FAIR = 64, 6, 50


def coins() -> BernoulliPixels:
    """Six pixels, empty or full, spell the number of the row; fifty have probability 1/2."""
    digit = (torch.arange(ROWS)[:, None] >> torch.arange(IDENTITY)) & 1
    return BernoulliPixels(
        torch.cat([2 * digit, torch.ones(ROWS, FAIR, dtype=torch.int64)], 1), bins=3
    )


def in_order(bits: Tensor) -> Tensor:
    """The random pixels of each row, rows in the order that their first six bits spell."""
    who = (bits[:, :IDENTITY] << torch.arange(IDENTITY)).sum(1)
    return bits[who.argsort(), IDENTITY:]


def test_pixels_are_drawn_again_in_every_epoch() -> None:
    """Each row once an epoch; a fair pixel equals its draw of the epoch before half of the time."""
    batches = MemoryBatches(coins(), None, 16, seed=3)
    epochs = [in_order(epoch(batches, number)) for number in range(40)]
    assert all(each.shape == (ROWS, FAIR) for each in epochs)
    bits = torch.stack(epochs).double()
    assert_mean(bits, 0.5 * torch.ones(ROWS, FAIR))
    assert_mean((bits[1:] == bits[:-1]).double().flatten(), 0.5)
    assert_mean((bits[:, 1:] == bits[:, :-1]).double().flatten(), 0.5)


def test_drawn_pixels_depend_on_seed_and_step_alone() -> None:
    """Not on the batches asked for before, nor on torch's generator."""
    forward = [MemoryBatches(coins(), None, 20, seed=4)(step).x for step in range(7)]
    torch.manual_seed(2)
    backward = MemoryBatches(coins(), None, 20, seed=4)
    for step in reversed(range(7)):
        assert torch.equal(backward(step).x, forward[step])
    other = torch.cat([MemoryBatches(coins(), None, 20, seed=5)(step).x for step in range(3)])
    assert not torch.equal(other, torch.cat(forward[:3]))


def test_drawn_pixels_are_independent_of_the_models_noise() -> None:
    """The model draws under the key of the same seed and step, but other numbers."""
    drawn = MemoryBatches(coins(), None, ROWS, seed=4)(9).x[:, IDENTITY:]
    with random.keyed(4, step=9):
        noise = random.uniform((ROWS, IDENTITY + FAIR), torch.float32)[:, IDENTITY:]
    assert_mean((drawn == (noise < 0.5)).double().flatten(), 0.5)


class Watching(Bound):
    """The bound, and the batches that it was computed of."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ELBO]:
        """The loss and the bound."""
        self.seen.append(batch.x.clone())
        return super().forward(model, batch)


def test_fit_resamples_the_training_pixels_alone() -> None:
    """The user does nothing: training bits change, validation bits are those of the data set.

    The first six pixels spell the row, so a batch is compared with the very rows it was cut from.
    """
    gray = coins().gray
    bits = binarized(Dataset("coins", gray, gray[:10], gray[:10], bins=3))
    watching = Watching()
    model = VAE(IDENTITY + FAIR, 2, latents=1, width=4, depth=1)
    for _ in training_loop(model, bits, watching, steps=40, batch_size=ROWS, progress=False):
        pass
    seen = torch.stack([in_order(x) for x in watching.seen]).double()
    assert_mean(seen, 0.5 * torch.ones(ROWS, FAIR))
    assert_mean((seen == in_order(bits.train)).double().flatten(), 0.5)
    plain = Watching()
    kept = Dataset("bits", bits.train, bits.validation, bits.test, bins=2)
    for _ in training_loop(model, kept, plain, steps=2, batch_size=ROWS, progress=False):
        pass
    assert all(torch.equal(in_order(x), in_order(bits.train)) for x in plain.seen)


@pytest.mark.parametrize(
    "build",
    [
        lambda: VAE((1, 8, 8), 2, latents=2, width=8, depth=1),
        lambda: Diffusion((1, 8, 8), 2, steps=4, width=8, depth=1),
    ],
    ids=["vae", "diffusion"],
)
def test_a_resumed_run_on_resampled_pixels_equals_the_uninterrupted_one(
    build: Callable[[], LatentModel], tmp_path: Path
) -> None:
    """Stopped in the third epoch, between two checkpoints: losses, bits and weights go on alike."""
    bits = binarized(digits())

    def run(path: Path, stop: int) -> tuple[list[float], list[Tensor], Tensor]:
        torch.manual_seed(7)
        model, watching, losses = build(), Watching(), []
        for step in training_loop(
            model,
            bits,
            watching,
            steps=12,
            batch_size=300,
            checkpoint=path,
            checkpoint_every=4,
            validate_every=6,
            progress=False,
        ):
            losses.append(step.loss)
            if step.number == stop:
                break
        return losses, watching.seen, flat(model)

    losses, seen, final = run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 10)
    again, seen_again, final_again = run(tmp_path / "parts", 12)
    assert again == losses[8:]
    assert all(torch.equal(a, b) for a, b in zip(seen_again, seen[8:], strict=True))
    assert torch.equal(final_again, final)
