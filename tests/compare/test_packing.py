"""Data that travel arrive as they were."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import pytest
import torch

from genmod.compare.packing import Packed
from genmod.data import BernoulliPixels, Dataset, binarized, conditional, dataset
from tests.compare.cases import few

SETS = {
    "told": conditional(few(), dropout=0.25),
    "gray": few(),
    "binarized": binarized(few(), seed=3),
    "real": dataset(torch.arange(60.0).reshape(20, 3) / 7, name="real"),
    "many levels": dataset(torch.arange(60).reshape(20, 3) * 10, name="many", bins=1000),
}


@pytest.mark.parametrize("kind", SETS)
def test_what_arrives_is_what_was_sent(kind: str) -> None:
    """Every field of a data set, and each has a value in some set, so that a new one is not forgotten."""
    sent = SETS[kind]
    for field in fields(Dataset):
        assert any(getattr(data, field.name) is not None for data in SETS.values()), field.name
    arrived = pickle.loads(pickle.dumps(Packed.of(sent))).unpack()
    for field in fields(Dataset):
        was, is_ = getattr(sent, field.name), getattr(arrived, field.name)
        if isinstance(was, torch.Tensor):
            assert was.dtype == is_.dtype
            assert torch.equal(was, is_)
        elif isinstance(was, BernoulliPixels):
            assert was.bins == is_.bins
            assert torch.equal(was.gray, is_.gray)
        elif field.name == "labels" and was is not None:
            assert all(torch.equal(was[part], is_[part]) for part in was)
        else:
            assert was == is_, field.name


def test_bytes_take_an_eighth() -> None:
    data = few()
    packed = Packed.of(data)
    assert packed.train.nbytes * 8 == data.train.nbytes


def test_a_digest_knows_every_pixel() -> None:
    data = few()
    digest = Packed.of(data).digest()
    assert Packed.of(few()).digest() == digest
    for part in ("train", "validation", "test"):
        changed = getattr(data, part).clone()
        changed[-1, 0, 7, 7] = (changed[-1, 0, 7, 7] + 1) % 17
        assert Packed.of(replace(data, **{part: changed})).digest() != digest
    assert Packed.of(binarized(data, 0)).digest() != Packed.of(binarized(data, 1)).digest()


def test_a_digest_knows_what_models_are_told() -> None:
    """Labels and their dropout where models hear them, and nowhere else."""
    data = few()
    assert data.labels is not None
    digest = Packed.of(conditional(data)).digest()
    assert digest != Packed.of(data).digest()
    assert digest != Packed.of(conditional(data, dropout=0.2)).digest()
    for part in data.labels:
        other = replace(data, labels={**data.labels, part: data.labels[part].flip(0)})
        assert Packed.of(other).digest() == Packed.of(data).digest()
        assert Packed.of(conditional(other)).digest() != digest
