"""Checking and splitting the user's own numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genmod.data import Dataset, binarized, conditional
from genmod.data.datasets import SPLITS, digest
from genmod.data.rows import dataset
from genmod.spec import DataSpec


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
def test_integers_take_a_byte_where_they_fit(x: Tensor | np.ndarray) -> None:
    data = dataset(x, bins=256)
    assert data.train.dtype is torch.uint8
    assert data.train[0].tolist() == [0, 200]
    assert data.spec == DataSpec((2,), 256)
    wide = dataset(x, bins=257)
    assert wide.train.dtype is torch.int64
    assert wide.train[0].tolist() == [0, 200]


def test_booleans_are_two_values() -> None:
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
    """Labels, gray values and entropies of that part; the other parts stay as they are."""
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
        assert small.resample is not None
        assert len(small.resample) == len(small.train)
        assert small.entropy is not None
        assert len(small.entropy) == len(small.test)
    assert data.cut("test", 999).test is not None
    with pytest.raises(ValueError, match=r"split='valid'; .*did you mean 'validation'"):
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
    assert Dataset("x", *3 * (x.long(),), bins=256).test.dtype is torch.uint8
    with pytest.raises(ValueError, match="non-integer values in train"):
        Dataset("x", *3 * (x + 0.5,), bins=256)
    with pytest.raises(ValueError, match="labels per part"):
        Dataset("x", x, x, x, labels={"train": torch.zeros(4)})
    with pytest.raises(ValueError, match="an empty training part"):
        Dataset("x", x[:0], x, x)
    with pytest.raises(ValueError, match="in validation: 8 of them"):
        Dataset("x", x, x + torch.nan, x)


def test_values_are_checked_before_they_are_rounded() -> None:
    """In float32, 0.99999999 is 1 and 16777217 is 16777216."""
    x = np.zeros((20, 1))
    x[::2] = 0.99999999
    for rows in (x, torch.from_numpy(x), x.tolist()):
        with pytest.raises(ValueError, match="non-integer values in x: 10 of them"):
            dataset(rows, bins=2)
    large = np.full((20, 1), 16777217.0)
    for exact in (large, torch.from_numpy(large), large.tolist(), large.astype(np.uint32)):
        data = dataset(exact, bins=2**25, labels=large[:, 0])
        assert int(data.train[0]) == 16777217
        assert data.labels is not None
        assert float(data.labels["train"][0]) == 16777217.0
    with pytest.raises(ValueError, match=r"labels of type torch.uint64"):
        dataset(x, labels=np.full(20, 2**63 + 5, dtype=np.uint64))


def test_float_labels_become_a_context_of_the_default_type() -> None:
    data = conditional(dataset(rows(), labels=np.ones((50, 2))))
    found = data.context("train")
    assert found is not None
    assert found.dtype is torch.get_default_dtype()


GRAY = np.arange(50 * 28 * 28, dtype=np.int64).reshape(50, 28, 28) % 251
COLOR = np.arange(50 * 32 * 30 * 3, dtype=np.int64).reshape(50, 32, 30, 3) % 251


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_images_of_integers_get_their_channels_first(kind: type[np.generic]) -> None:
    gray = dataset(GRAY.astype(kind), bins=256, test=0, validation=0)
    assert gray.shape == (1, 28, 28)
    color = dataset(COLOR.astype(kind), bins=256, test=0, validation=0)
    assert color.shape == (3, 32, 30)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(color.train[0].long(), torch.from_numpy(COLOR)[order[0]].permute(2, 0, 1))
    assert dataset(GRAY[..., None], bins=256).shape == (1, 28, 28)
    assert dataset(GRAY[:, None], bins=256).shape == (1, 28, 28)
    assert dataset(GRAY[:, :, :20], bins=256).shape == (1, 28, 20)


def test_real_images_without_channels_first_need_a_layout() -> None:
    for x, layout, shape in (
        (GRAY / 255, "gray", (1, 28, 28)),
        (COLOR / 255, "channels-last", (3, 32, 30)),
    ):
        with pytest.raises(ValueError, match=rf"got real data with events.*layout='{layout}'"):
            dataset(x)
        assert dataset(x, layout=layout).shape == shape
        assert dataset(x, layout="as-given").shape == x.shape[1:]
    assert dataset(GRAY[:, :, :20] / 255).shape == (28, 20)  # a sequence of 28 steps
    with pytest.raises(ValueError, match=r"got layout='grey'.*did you mean 'gray'"):
        dataset(GRAY, bins=256, layout="grey")
    with pytest.raises(ValueError, match="layout='gray' for events of shape"):
        dataset(COLOR, bins=256, layout="gray")
    with pytest.raises(ValueError, match="layout='channels-last' for events of shape"):
        dataset(GRAY, bins=256, layout="channels-last")


def test_seeds_of_other_libraries_are_numbers_too() -> None:
    assert torch.equal(dataset(rows(), seed=np.int64(3)).train, dataset(rows(), seed=3).train)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: replace(d, name="other"),
        lambda d: replace(d, bins=101),
        lambda d: replace(d, train=d.train.flip(0)),
        lambda d: replace(d, validation=d.validation[:-1], labels=None),
        lambda d: replace(d, test=d.test * 0),
        lambda d: replace(d, labels={k: v * 0 for k, v in d.labels.items()}),
        lambda d: conditional(d),
        lambda d: conditional(d, 0.2),
    ],
)
def test_equal_data_have_one_identity_and_other_data_another(
    change: Callable[[Dataset], Dataset],
) -> None:
    def make() -> Dataset:
        return dataset(rows(), bins=100, labels=torch.arange(50))

    assert make().identity() == make().identity()
    assert change(make()).identity() != make().identity()
    gray = binarized(make())
    assert gray.identity() != make().identity()
    assert digest(torch.zeros(2, 3)) != digest(torch.zeros(3, 2))


def test_a_data_set_prints_as_a_table_of_80_columns() -> None:
    data = conditional(
        binarized(dataset(rows(), name="n" * 100, bins=100, labels=torch.arange(50)))
    )
    lines = repr(data).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1:]] == [*SPLITS, "labels", "bits", "entropy"]
    assert "36 rows" in lines[1]
    page = replace(data, name="<b>")._repr_html_()
    assert "<th>train</th><td>36 rows</td>" in page
    assert "&lt;b&gt;" in page
    assert data.summary().count("\n") == 0


# ---------------------------------------------------------------------- groups, times, missing entries


def test_groups_stay_together_and_sizes_are_near_the_fractions() -> None:
    """Forty patients of one to nine rows: no patient in two parts, about 20 % of rows to test."""
    sizes = torch.arange(40) % 9 + 1
    patient = torch.arange(40).repeat_interleave(sizes)
    x = torch.arange(float(len(patient)))[:, None]
    data = dataset(x, groups=patient)
    found = [set(patient[part[:, 0].long()].tolist()) for part in data.parts().values()]
    assert sorted(each for part in found for each in part) == list(range(40))
    assert len(data.test) == pytest.approx(0.2 * len(x), abs=5)
    assert len(data.validation) == pytest.approx(0.08 * len(x), abs=5)
    again = dataset(x, groups=[f"p{each:02}" for each in patient.tolist()])
    assert torch.equal(again.test, data.test)
    assert not torch.equal(dataset(x, groups=patient, seed=1).test, data.test)
    assert data.split == {"kind": "groups", "validation": 0.1, "test": 0.2, "seed": 0}
    assert "split       by groups" in repr(data)


def test_the_latest_rows_are_the_test_part() -> None:
    """Times in any order and of any kind; rows of one time are not divided."""
    time = torch.arange(50).flip(0) // 3
    data = dataset(rows(), time=time)
    moments = [time[order].tolist() for order in (data.rows or {}).values()]
    assert max(moments[0]) < min(moments[1])
    assert max(moments[1]) < min(moments[2])
    assert len(data.test) == pytest.approx(10, abs=2)
    assert moments[0] == sorted(moments[0])
    dates = np.datetime64("2020-01-01") + time.numpy()
    assert torch.equal(dataset(rows(), time=dates).test, data.test)
    assert data.split is not None
    assert "seed" not in data.split


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [0] * 49}, r"groups of shape \(49,\); expected one value for each of the 50"),
        ({"groups": [0] * 50}, "1 groups, which"),
        ({"time": [0] * 50}, "1 times, which"),
        ({"time": [np.nan] * 50}, "time with 50 missing values"),
        ({"time": np.array([1, "a"] * 25, dtype=object)}, "time of several types"),
        ({"groups": [0] * 50, "time": [0] * 50}, "groups and time; expected one of the two"),
    ],
)
def test_bad_groups_and_times_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(rows(), **options)


@pytest.mark.parametrize("bins", [None, 100])
def test_missing_entries_of_arrays_are_zero_and_not_observed(bins: int | None) -> None:
    x = rows().numpy().copy()
    mask = np.ones_like(x, dtype=bool)
    x[3, 0], mask[3, 0] = np.nan, False
    data = dataset(x, bins=bins, observed=mask)
    assert data.observed is not None
    assert data.rows is not None
    assert data.spec.missing
    for split, part in data.parts().items():
        seen = data.observed[split]
        wanted = torch.from_numpy(mask)[data.rows[split]]
        assert torch.equal(seen, wanted)
        assert torch.equal(part[~seen], torch.zeros_like(part[~seen]))
    assert dataset(rows(), observed=np.ones((50, 2), dtype=bool)).observed is None
    mask[3, 1] = False
    with pytest.raises(
        ValueError, match="1 rows of x without an observed entry, the first at row 3"
    ):
        dataset(x, bins=bins, observed=mask)
    with pytest.raises(ValueError, match=r"observed of type torch.int64 and shape \(50,\)"):
        dataset(rows(), observed=np.ones(50, dtype=int))
    with pytest.raises(ValueError, match="observed for train"):
        replace(data, observed={"train": data.observed["train"]})
