"""The embedded digits."""

from __future__ import annotations

import torch

from genmod.data.images import digits


def test_digits_are_1797_integer_images_with_17_values() -> None:
    data = digits()
    whole = torch.cat([data.train, data.validation, data.test])
    assert whole.shape == (1797, 1, 8, 8)
    assert whole.dtype is torch.uint8
    assert whole.unique().tolist() == list(range(17))
    assert data.bins == 17
    # The share of empty pixels identifies the very data that published numbers are about.
    assert abs(float((whole == 0).double().mean()) - 0.489) < 5e-4


def test_the_splits_are_80_20_with_a_tenth_of_the_80_for_validation() -> None:
    data = digits(seed=1)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1294, 144, 359]
    assert torch.equal(data.train, digits(seed=1).train)
    assert not torch.equal(data.train, digits(seed=2).train)


def test_labels_belong_to_their_images() -> None:
    """The class means of one part recognize most digits of another; shuffled labels give 10 %."""
    data = digits()
    assert data.labels is not None
    train, test = (x.double().flatten(1) for x in (data.train, data.test))
    means = torch.stack([train[data.labels["train"] == k].mean(0) for k in range(10)])
    nearest = torch.cdist(test, means).argmin(1)
    assert float((nearest == data.labels["test"]).double().mean()) > 0.8
