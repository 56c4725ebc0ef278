"""One entrance for data: names, files, rows in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genmod.data import Dataset, GivenRows, load, rows_or_dataset
from genmod.data.images import digits
from genmod.data.rows import dataset
from genmod.data.sources import NAMES
from genmod.data.toys import BY_NAME as TOYS
from genmod.spec import DataSpec

BYTES = np.arange(200, dtype=np.uint8).reshape(50, 4)
MARKS = np.arange(50)


def test_data_sets_by_name() -> None:
    assert torch.equal(load("digits", seed=2).train, digits(2).train)
    for name in TOYS:
        data = load(name)
        assert data.shape == (2,)
        assert len(data.train) == 7200
    assert {"digits", "mnist", "fashion-mnist", "moons"} <= set(NAMES)


def test_a_data_set_passes_as_it_is() -> None:
    data = digits()
    assert load(data) is data
    with pytest.raises(ValueError, match=r"got bins, labels for digits.*leave bins and labels out"):
        load(data, bins=17, labels=MARKS)


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
def test_rows_in_memory(make: Any, pair: bool) -> None:
    x = make(BYTES)
    data = load((x, make(MARKS))) if pair else load(x, labels=MARKS)
    wanted = dataset(BYTES, bins=256, labels=MARKS)
    assert data.identity() == wanted.identity()
    assert load(make(BYTES) > 100).bins == 2


def test_a_pair_of_rows_is_no_pair_of_rows_and_labels() -> None:
    pair = ([1.0, 2.0], [3.0, 4.0])
    rows = rows_or_dataset(pair)
    assert isinstance(rows, GivenRows)
    assert rows.x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(ValueError, match="bring more rows"):
        load(pair)


def test_other_integers_need_their_number_of_values() -> None:
    with pytest.raises(ValueError, match=r"bins=None.*pass bins="):
        load(BYTES.astype(np.int64))
    assert load(BYTES.astype(np.int64), bins=200).bins == 200


def test_files_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", BYTES)
    np.savez(tmp_path / "one.npz", anything=BYTES)
    np.savez(tmp_path / "two.npz", x=BYTES, y=MARKS)
    plain = load(tmp_path / "rows.npy")
    assert plain.name == "rows"
    assert torch.equal(plain.train, load(str(tmp_path / "one.npz")).train)
    assert load(tmp_path / "two.npz").labels is not None
    with pytest.raises(ValueError, match="labels beside data that hold labels"):
        load(tmp_path / "two.npz", labels=MARKS)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "rows.npy", BYTES)
    assert load("~/rows.npy").bins == 256


def test_bad_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "torn.npy", BYTES)
    os.truncate(tmp_path / "torn.npy", 150)
    np.savez(tmp_path / "torn.npz", x=BYTES)
    os.truncate(tmp_path / "torn.npz", 150)
    np.save(tmp_path / "pickle.npy", np.array([{1}]), allow_pickle=True)
    np.savez(tmp_path / "pickle.npz", x=np.array([{1}]))
    np.savez(tmp_path / "names.npz", a=BYTES, b=MARKS)
    (tmp_path / "table.csv").write_text("1,2")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "folder.npy").mkdir()
    for file in (*tmp_path.iterdir(), tmp_path, tmp_path / "missing.npy"):
        with pytest.raises(ValueError, match=r"^got [^\n]*; expected [^\n]*; [^\n]*$"):
            load(file)


@pytest.mark.parametrize(
    ("x", "why"),
    [
        ("digit", "got data='digit'; expected one of 'digits', .*; did you mean 'digits'"),
        ("fashion_mnist", "did you mean 'fashion-mnist'"),
        ("nowhere/rows.npy", "does not exist"),
        ({"a": 1}, "got x of type dict"),
        (None, "got x of type NoneType"),
        ([["a"]], "an array x of type"),
    ],
)
def test_what_is_no_data_is_refused(x: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        load(x)


def test_settings_that_change_nothing_are_refused() -> None:
    for call in (
        lambda: load("digits", bins=17),
        lambda: load("moons", root="x"),
        lambda: load(BYTES, root="x"),
    ):
        with pytest.raises(ValueError, match="only settings that change something"):
            call()


def test_rows_in_memory_are_used_whole_and_names_are_split(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", BYTES.astype(np.int64))
    assert isinstance(rows_or_dataset("digits"), Dataset)
    assert isinstance(rows_or_dataset(digits()), Dataset)
    found = rows_or_dataset(tmp_path / "rows.npy", DataSpec((4,), 200))
    assert isinstance(found, Dataset)
    assert found.bins == 200
    rows = rows_or_dataset(BYTES)
    assert isinstance(rows, GivenRows)
    assert rows.x.shape == (50, 4)
    both = rows_or_dataset((BYTES, MARKS))
    assert isinstance(both, GivenRows)
    assert both.context is not None
    assert both.context.shape == (50,)


# ---------------------------------------------------------------------- what looks wrong is said


def test_a_spread_far_from_one_is_said_and_can_be_standardized() -> None:
    """Wine, as scikit-learn gives it: proline's standard deviation is 315."""
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    with pytest.warns(
        UserWarning, match=r"of 13 columns of data .*such as 3.* in column 12.*standardize"
    ):
        plain = load(x, labels=y)
    assert plain.columns is None
    data = load(x, labels=y, standardize=True)
    assert data.columns is not None
    assert torch.equal(data.train, plain.train)
    for place, column in enumerate(data.columns):
        assert column.mean == pytest.approx(float(data.train[:, place].double().mean()))
        assert column.std == pytest.approx(float(data.train[:, place].double().std(correction=0)))
    with pytest.raises(ValueError, match=r"standardize=True for \(1, 8, 8\)"):
        load(digits().train.numpy(), bins=17, standardize=True)
    with pytest.raises(ValueError, match="without two different values"):
        load(np.column_stack([x[:, 0], np.ones(len(x))]), standardize=True)


def test_a_duplicate_across_parts_is_said() -> None:
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    load(x)
    with pytest.warns(UserWarning, match=r"got \d+ of the 22 validation and test rows of data"):
        load(torch.cat([x, x]))
    load(torch.randint(0, 2, (80, 2)), bins=2)  # few distinct rows repeat by chance
    load(torch.cat([x, x]), groups=torch.arange(40).repeat(2))


def test_labels_may_be_text() -> None:
    data = load(BYTES, labels=["b", "a"] * 25)
    assert data.classes == ("a", "b")
    assert data.labels is not None
    assert set(data.labels["train"].tolist()) == {0, 1}
    with pytest.raises(ValueError, match=r"labels of shape \(3,\)"):
        load(BYTES, labels=["a", "b", "c"])
    for missing in (None, np.nan):
        with pytest.raises(ValueError, match="labels with 1 missing values"):
            load(BYTES, labels=np.array(["a", missing] + ["b"] * 48, dtype=object))
