"""Marks for missing cells: one list, with one meaning in files, in frames, and for the estimators."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from genmod.data import Dataset, load
from genmod.data.cells import DOUBTFUL, MARKS
from genmod.sklearn import GenerativeDensity
from genmod.sklearn.rows import marks_as_nan

ROWS = 40
HOLES = (3, 17, 21)
MARK = sorted({*MARKS, "NA", "NaN", "Null", "N/A", "None", "<NA>"})
X = np.round(np.random.default_rng(0).normal(size=(ROWS, 2)), 3)


def marked(mark: str) -> dict[str, list[str]]:
    """Two columns as text, the first with marks in place of some numbers."""
    a = [mark if row in HOLES else str(x) for row, x in enumerate(X[:, 0].tolist())]
    return {"a": a, "b": [str(x) for x in X[:, 1].tolist()]}


def as_file(cells: dict[str, list[str]], folder: Path) -> Path:
    lines = [",".join(cells), *map(",".join, zip(*cells.values(), strict=True))]
    (folder / "mine.csv").write_text("\n".join(lines) + "\n")
    return folder / "mine.csv"


def numbers_beside(cells: dict[str, list[str]]) -> dict[str, Any]:
    """The second column is typed: a frame's text without marks stays text."""
    return {**cells, "b": list(map(float, cells["b"]))}


FORMS: dict[str, Callable[[dict[str, list[str]], Path], Any]] = {
    "file": as_file,
    "pandas": lambda cells, _: pd.DataFrame(numbers_beside(cells)),
    "pandas, mixed": lambda cells, _: pd.DataFrame(
        {**numbers_beside(cells), "a": [c if c == cells["a"][3] else float(c) for c in cells["a"]]}
    ),
    "polars": lambda cells, _: pl.DataFrame(numbers_beside(cells)),
    "arrow": lambda cells, _: pa.table(numbers_beside(cells)),
}


@pytest.mark.parametrize("form", FORMS)
def test_marks_among_numbers_are_missing_in_every_form(form: str, tmp_path: Path) -> None:
    for mark in MARK:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = load(FORMS[form](marked(mark), tmp_path), validation=0, test=0)
        assert [str(column.kind) for column in data.columns or ()] == ["real", "real"], mark
        assert data.rows is not None
        mask = data.mask("train")
        assert mask is not None
        order = data.rows["train"].argsort()
        assert (~mask[order]).nonzero().tolist() == [[row, 0] for row in HOLES]
        seen = mask[order].numpy()
        np.testing.assert_allclose(data.train[order].numpy()[seen], X[seen], rtol=1e-6)


def test_marks_among_words_are_words_in_every_form(tmp_path: Path) -> None:
    """With a warning, unless they can mean something: none, a hyphen, a dot."""
    for mark in MARK:
        cells = {"a": ["Ulm", "Bonn", mark, "Ulm"] * (ROWS // 4), "b": marked("0")["b"]}
        for form, make in FORMS.items():
            if form == "pandas, mixed":
                continue
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                data = load(make(cells, tmp_path))
            assert (data.columns or ())[0].values == tuple(sorted({"Ulm", "Bonn", mark}))
            warned = any("taken for a category" in str(each.message) for each in caught)
            assert warned is (mark.lower() in DOUBTFUL), (mark, form)


def test_text_of_a_frame_without_marks_stays_text() -> None:
    """The frame states the type: the codes of places that begin with a zero are no numbers."""
    codes = ["01234", "09999", "89073"] * 14
    data = load(pd.DataFrame({"code": codes, "x": np.arange(42) * 0.5}), drop=[])
    assert (data.columns or ())[0].values == ("01234", "09999", "89073")


def test_a_description_of_numbers_reads_marks_alone(tmp_path: Path) -> None:
    """A file of few rows can have nothing but marks in a column."""
    data: Dataset = load(as_file(marked("NA"), tmp_path))
    for mark in MARK:
        (tmp_path / "few.csv").write_text(
            f"a,b\n{mark},1.5\n{mark},{mark}x\n".replace(f"{mark}x", "2")
        )
        few = load(tmp_path / "few.csv", spec=data, validation=0, test=0)
        mask = few.mask("train")
        assert mask is not None
        assert mask.tolist() == [[False, True], [False, True]]


@pytest.mark.usefixtures("as_users_run")
def test_estimators_read_marks_as_missing() -> None:
    hidden = X.copy()
    hidden[list(HOLES), 0] = np.nan
    density = GenerativeDensity(steps=2, width=8, random_state=0).fit(hidden)
    expected = density.score_samples(hidden[:5])
    for mark in MARK:
        cells = marked(mark)
        forms = {
            "objects": np.array(list(zip(*cells.values(), strict=True)), dtype=object),
            "text": np.array(list(zip(*cells.values(), strict=True))),
            "pandas": pd.DataFrame(cells, index=range(7, 7 + ROWS)),
            "polars": pl.DataFrame(numbers_beside(cells)),
        }
        for name, x in forms.items():
            found = np.asarray(marks_as_nan(x)).astype(np.float64)
            np.testing.assert_array_equal(found, hidden, err_msg=f"{mark}, {name}")
            if mark == "?":
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="X has feature names")
                    scores = density.score_samples(x[:5])
                np.testing.assert_array_equal(scores, expected, err_msg=name)
