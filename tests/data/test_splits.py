"""Checking and splitting the user's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from genmod.data import Dataset, binarized, conditional, dataset
from genmod.data.splits import SPLITS


def rows(count: int = 50) -> Tensor:
    """Row ``i`` holds ``2 i`` and ``2 i + 1``: rows can be told apart."""
    return torch.arange(2.0 * count, dtype=torch.float64).reshape(count, 2)


def order(data: Dataset) -> list[int]:
    """Which row of :func:`rows` stands where, test part first."""
    return (torch.cat([data.test, data.validation, data.train])[:, 0] / 2).long().tolist()


def test_split_is_a_partition_of_the_rows_with_the_stated_sizes() -> None:
    data = dataset(rows(), validation=0.1, test=0.2)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [36, 4, 10]
    assert sorted(order(data)) == list(range(50))
    assert order(data) != list(range(50))
    whole = torch.cat([data.train, data.validation, data.test])
    assert torch.equal(whole.sort(0).values, rows())


def test_split_depends_on_seed_and_length_alone() -> None:
    base = order(dataset(rows(), seed=3))
    torch.manual_seed(99)
    other = dataset(rows().long().numpy(), bins=100, seed=3)
    assert order(other) == base
    assert order(dataset(rows(), seed=4)) != base
    assert order(dataset(rows(), test=0.4, validation=0.3, seed=3)) == base


def test_a_part_not_asked_for_is_empty() -> None:
    data = dataset(rows(), validation=0.0, test=0.0)
    assert (len(data.train), len(data.validation), len(data.test)) == (50, 0, 0)
    assert data.validation.shape == (0, 2)


def test_labels_follow_their_rows() -> None:
    labels = np.arange(50)
    data = dataset(rows(), labels=labels)
    assert data.labels is not None
    for split, part in data.parts().items():
        assert torch.equal(data.labels[split], (part[:, 0] / 2).long())


@pytest.mark.parametrize(
    "x",
    [
        np.array([[0, 200]] * 20, dtype=np.uint8),
        np.array([[0.0, 200.0]] * 20),
        torch.tensor([[0, 200]] * 20, dtype=torch.int16),
        torch.tensor([[0.0, 200.0]] * 20),
    ],
)
def test_integers_stay_integers_that_do_not_wrap(x: Tensor | np.ndarray) -> None:
    """The reason for 64 bits: in ``torch.uint8`` twice 200 is 144."""
    data = dataset(x, bins=256)
    assert data.train.dtype is torch.int64
    assert torch.equal(2 * data.train[0], torch.tensor([0, 400]))
    assert data.bins == 256


def test_booleans_are_two_levels() -> None:
    assert set(dataset(torch.eye(20).bool(), bins=2).train.flatten().tolist()) == {0, 1}


def test_reals_keep_a_tensors_type_and_arrays_take_the_default() -> None:
    assert dataset(rows()).train.dtype is torch.float64
    assert dataset(rows().numpy()).train.dtype is torch.get_default_dtype()
    assert dataset(rows()).bins is None


def test_the_data_set_does_not_share_memory_with_its_source() -> None:
    x = rows()
    data = dataset(x, validation=0.0, test=0.0)
    x.zero_()
    assert data.train.sum() > 0


def test_shape_is_the_event_shape() -> None:
    assert dataset(torch.zeros(20, 3, 4, 5)).shape == (3, 4, 5)


def test_a_part_is_cut_with_all_that_goes_with_it() -> None:
    """Labels, coins and floors of that part; the other parts stay as they are."""
    gray = conditional(
        dataset(torch.arange(60).reshape(20, 3) % 9, bins=9, labels=torch.arange(20))
    )
    data = binarized(gray)
    for split in SPLITS:
        small = data.cut(split, 1)
        assert small.context_dropout == data.context_dropout
        assert small.labels is not None
        assert data.labels is not None
        for name, part in data.parts().items():
            rows = 1 if name == split else len(part)
            assert torch.equal(small.parts()[name], part[:rows])
            assert torch.equal(small.labels[name], data.labels[name][:rows])
        assert small.redraw is not None
        assert len(small.redraw) == len(small.train)
        assert small.floors is not None
        assert len(small.floors) == len(small.test)
    assert data.cut("test", 999).test is not None
    with pytest.raises(ValueError, match="split='valid'"):
        data.cut("valid", 3)
    with pytest.raises(ValueError, match="rows=-1"):
        data.cut("test", -1)
    with pytest.raises(ValueError, match="an empty training part"):
        data.cut("train", 0)


def spoiled(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Twenty rows of ones with two bad values, the first in row 7, column 1."""
    x = torch.ones(20, 3, dtype=dtype)
    x[7, 1] = value
    x[9, 0] = value
    return x


@pytest.mark.parametrize(
    ("x", "bins", "message"),
    [
        (spoiled(torch.nan), None, r"NaN or infinite values in x: 2 of them.*\(7, 1\).*nan"),
        (spoiled(torch.inf), None, r"NaN or infinite values in x: 2 of them.*\(7, 1\).*inf"),
        (spoiled(torch.nan), 4, r"NaN or infinite values in x: 2 of them.*\(7, 1\)"),
        (
            spoiled(0.5),
            4,
            r"got torch.float32 data with non-integer values in x: 2.*\(7, 1\).*0\.5",
        ),
        (spoiled(4), 4, r"out-of-range values in x: 2.*\(7, 1\), which is 4.0; expected .*0\.\.3"),
        (spoiled(-1, torch.int64), 4, r"out-of-range.*2 of them.*\(7, 1\), which is -1"),
        (spoiled(1, torch.int64), None, r"torch.int64 data in x and bins=None.*pass bins="),
        (spoiled(1), 1, r"bins=1; expected at least 2"),
        (torch.ones(20), None, r"shape \(20,\).*\(N, \*event\)"),
        (torch.ones(0, 2), None, r"shape \(0, 2\)"),
        (torch.ones(4, 2), None, r"4 rows.*0 validation.*bring more rows"),
        (torch.ones(20, 2, dtype=torch.complex64), None, "complex x"),
        (np.array([["a"]] * 20), None, "an array x of type"),
    ],
)
def test_bad_data_are_refused_with_count_and_place(
    x: Tensor | np.ndarray, bins: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(x, bins=bins)


def test_an_array_that_overflows_the_default_type_is_refused() -> None:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with pytest.raises(ValueError, match="NaN or infinite values in x: 40 of them"):
            dataset(np.full((20, 2), 1e300))
    finally:
        torch.set_default_dtype(default)


def test_bad_splits_and_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"test=1\.5"):
        dataset(rows(), test=1.5)
    with pytest.raises(ValueError, match="into 0 train"):
        dataset(rows(50), test=0.99, validation=0.99)
    with pytest.raises(ValueError, match="one label for each of the 50 rows"):
        dataset(rows(), labels=torch.zeros(49))


def test_a_hand_made_data_set_is_checked_too() -> None:
    x = rows(4)
    with pytest.raises(ValueError, match="a test part of shape"):
        Dataset("x", x, x, x[:, :1])
    with pytest.raises(ValueError, match=r"torch\.uint8 with bins=256"):
        Dataset("x", *3 * (x.to(torch.uint8),), bins=256)
    with pytest.raises(ValueError, match="labels per part"):
        Dataset("x", x, x, x, labels={"train": torch.zeros(4)})
    with pytest.raises(ValueError, match="an empty training part"):
        Dataset("x", x[:0], x, x)
    with pytest.raises(ValueError, match="in validation: 8 of them"):
        Dataset("x", x, x + torch.nan, x)
