"""Contexts in training: each row has its own label, dropped at the rate asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genmod.data import Dataset, binarized, conditional
from genmod.data.images import digits
from genmod.data.rows import dataset
from genmod.models import Diffusion
from genmod.nn import DenoisingMLP, Labels
from genmod.nn.conditioning import is_null_context
from genmod.training import fit, training_loop
from genmod.training.batches import MemoryBatches
from tests.statistics import assert_mean
from tests.training.cases import flat


def numbered(count: int = 40) -> Dataset:
    """Rows that hold their own label: what arrives beside a row can be compared with it."""
    labels = torch.arange(count) % 4
    return dataset(labels[:, None] + torch.zeros(count, 3), labels=labels)


def model() -> Diffusion:
    """A small conditional diffusion, always with the same weights."""
    torch.manual_seed(7)
    return Diffusion(3, width=8, depth=1, condition=Labels(4))


class Ears:
    """Records the context of each call, and whether the network was in training mode."""

    def __init__(self, model: Diffusion) -> None:
        self.heard: list[tuple[bool, Tensor, Tensor]] = []
        (network,) = (part for part in model.modules() if isinstance(part, DenoisingMLP))
        network.register_forward_pre_hook(
            lambda net, args: self.heard.append((net.training, args[0], args[2]))
        )

    def __iter__(self) -> Iterator[tuple[bool, Tensor, Tensor]]:
        return iter(self.heard)


def test_batches_drop_labels_at_the_rate_asked_for_and_by_step_alone() -> None:
    """A z-test over many batches; kept labels stay beside their rows; batches repeat by seed."""
    data = conditional(numbered(4000))
    told = data.context("train")
    batches = MemoryBatches(data.train, told, 256, seed=5, dropout=0.1)
    gone = []
    for step in range(40):
        batch = batches(step)
        x, context = batch.x, batch.context
        assert context is not None
        again = batches(step).context
        assert again is not None
        assert torch.equal(again, context)
        lost = is_null_context(context)
        assert torch.equal(context[~lost].float(), x[~lost, 0])
        gone.append(lost.double())
    assert_mean(torch.cat(gone), 0.1, name="share told nothing")
    assert not torch.equal(gone[0], gone[1])
    whole = MemoryBatches(data.train, told, 256, seed=5)(3)
    assert torch.equal(whole.x, batches(3).x)
    assert whole.context is not None
    assert not is_null_context(whole.context).any()


@pytest.mark.parametrize("dropout", [0.0, 0.5, 1.0])
def test_context_dropout_applies_in_training_alone(dropout: float) -> None:
    """Recorded at the network, over a whole run with its validations."""
    data, trained = conditional(numbered(), dropout), model()
    ears = Ears(trained)
    steps = training_loop(trained, data, steps=6, batch_size=24, validate_every=2, progress=False)
    states = [step.averaged for step in steps]
    assert len(states) == 6
    heard = torch.cat([is_null_context(told) for training, _, told in ears if training]).double()
    assert len(heard) == 2 * 6 * 24
    assert {0.0: heard.sum() == 0, 0.5: 0.3 < heard.mean() < 0.7, 1.0: heard.all()}[dropout]
    # The averaged weights are a copy of the model, hook and all.
    held = [told for training, _, told in ears if not training]
    assert held
    assert not torch.cat([is_null_context(told) for told in held]).any()


@pytest.mark.usefixtures("float64")
def test_a_resumed_conditional_run_is_the_same_run(tmp_path: Path) -> None:
    """Bit for bit, with labels dropped on the way; another share, or none, is another run."""
    data, path = conditional(numbered(), 0.3), tmp_path / "run.safetensors"

    def run(stop: int, checkpoint: Path | None, data: Dataset = data) -> Tensor:
        trained = model()
        for step in training_loop(
            trained, data, steps=8, batch_size=8, checkpoint=checkpoint, checkpoint_every=4,
            progress=False,
        ):  # fmt: skip
            if step.number == stop:
                break
        return flat(trained)

    whole = run(8, None)
    run(4, path)
    for other in (conditional(data, 0.2), replace(data, context_dropout=0.0)):
        with pytest.raises(ValueError, match=r"other settings: data\.context_dropout"):
            run(8, path, other)
    assert torch.equal(run(8, path), whole)


def test_labels_that_the_model_cannot_take_are_refused_on_the_call() -> None:
    """Too many classes, labels for an unconditional model, none for a conditional one."""
    data = conditional(numbered())
    assert data.labels is not None
    more = replace(data, labels={split: marks + 1 for split, marks in data.labels.items()})
    with pytest.raises(ValueError, match="labels from 1 to 4"):
        fit(model(), more, steps=1, progress=False)
    with pytest.raises(ValueError, match="got no context"):
        fit(model(), replace(data, context_dropout=None), steps=1, progress=False)
    deaf = Diffusion(3, width=8)
    with pytest.raises(ValueError, match="got a context; expected none"):
        fit(deaf, data, steps=1, batch_size=8, progress=False)


def test_a_pair_of_data_and_context_is_never_dropped() -> None:
    data, trained = numbered(), model()
    assert data.labels is not None
    ears = Ears(trained)
    fit(trained, (data.train, data.labels["train"]), steps=3, batch_size=24, progress=False)
    assert all(not is_null_context(told).any() for _, _, told in ears)


def test_binarized_data_keep_their_labels() -> None:
    """In either order; the labels are those of the gray images."""
    data = digits()
    told = conditional(data, 0.2)
    for bits in (binarized(told), conditional(binarized(data), 0.2)):
        assert bits.context_dropout == 0.2
        context = bits.context("test")
        assert context is not None
        assert data.labels is not None
        assert torch.equal(context, data.labels["test"])
    assert data.context("test") is None
