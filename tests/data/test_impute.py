"""Frames with their empty cells filled in: nothing else changes, whatever the library and the types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from genmod import VAE, data
from genmod.data import impute

ROWS = 30


def table(holes: bool = True) -> pd.DataFrame:
    """Columns of all kinds, between columns that the model does not have, with an index of its own."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": [f"p{row:03}" for row in range(ROWS)],
            "height": draw.normal(170, 10, ROWS).round(2),
            "note": ["", "NA", None] * (ROWS // 3),
            "city": draw.choice(["Ulm", "Bonn", "Trier"], ROWS),
            "grade": pd.Categorical(
                draw.choice(["low", "mid", "high"], ROWS), ["low", "mid", "high"], ordered=True
            ),
            "year": pd.array(draw.integers(1950, 2019, ROWS), dtype="Int64"),
            "flag": pd.array(draw.random(ROWS) < 0.5, dtype="boolean"),
            "when": pd.date_range("2020-01-01", periods=ROWS),
            "code": draw.choice([1, 2, 3], ROWS).astype(float),
        },
        index=pd.Index(draw.permutation(1000)[:ROWS], name="patient"),
    )
    if holes:
        for place, name in enumerate(OWN):
            frame.loc[frame.index[place::7], name] = pd.NA if name in ("year", "flag") else None
    return frame


OWN = ("height", "city", "grade", "year", "flag", "code")


@pytest.fixture(scope="module")
def model() -> VAE:
    """Of the six columns, in an order of its own."""
    torch.manual_seed(0)
    frame = table()[list(OWN[::-1])]
    return VAE(data.load(frame), latents=2, width=8).eval()


FRAMES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "polars": lambda frame: pl.from_pandas(frame),
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}


@pytest.mark.parametrize("library", FRAMES)
def test_a_frame_keeps_all_but_its_empty_cells(library: str, model: VAE) -> None:
    frame = table()
    given = FRAMES[library](frame)
    copies = impute(model, given, 3, 4)
    assert len(copies) == 3
    for copy in copies:
        assert type(copy) is type(given)
        filled = copy if library == "pandas" else copy.to_pandas()
        assert list(filled.columns) == list(frame.columns)
        if library == "pandas":
            assert filled.index.equals(frame.index)
            assert (filled.dtypes == frame.dtypes).all()
        for name in frame.columns:
            seen = frame[name].notna().to_numpy()
            own, found = frame[name].to_numpy()[seen], filled[name].to_numpy()[seen]
            assert all(a == b for a, b in zip(own, found, strict=True)), name
            assert filled[name].isna().sum() == (0 if name in OWN else frame[name].isna().sum())
        assert set(filled["city"]) <= {"Ulm", "Bonn", "Trier"}
        assert set(filled["grade"]) <= {"low", "mid", "high"}
        assert set(filled["code"]) <= {1, 2, 3}
        assert filled["year"].between(1950, 2018).all()
    heights = (
        [copy["height"][0] for copy in copies[:2]]
        if library != "pandas"
        else [copy["height"].iloc[0] for copy in copies[:2]]
    )
    assert heights[0] != heights[1]


def test_a_frame_is_filled_with_the_draws_of_tensors(model: VAE) -> None:
    frame = table()
    read = data.load(frame, spec=model, validation=0, test=0)
    assert read.rows is not None
    order = read.rows["train"].argsort()
    mask = read.mask("train")
    assert mask is not None
    draws = model.impute(read.train[order], mask[order], 1, 4, seeds=range(5, 5 + ROWS))
    (copy,) = impute(model, frame, 1, 4, seed=5)
    names = [column.name for column in model.spec.columns or ()]
    for name in ("height", "year"):
        found = torch.tensor(copy[name].to_numpy(dtype=float), dtype=torch.float32)
        torch.testing.assert_close(found, draws[0][:, names.index(name)])


def test_numbers_as_text_become_numbers_and_whole_numbers_can_become_real() -> None:
    x = np.random.default_rng(0).normal(size=(ROWS, 2)).round(3)
    frame = pd.DataFrame({"a": x[:, 0].astype(str), "b": (1e5 * x[:, 1]).astype(int)})
    frame.loc[3, "a"] = "?"
    frame["b"] = frame["b"].astype("Int64")
    frame.loc[4, "b"] = pd.NA
    read = data.load(frame, kinds={"b": "real"})
    (filled,) = impute(VAE(read, latents=1, width=8), frame, 1, 2)
    assert [str(kind) for kind in filled.dtypes] == ["float64", "Float64"]
    assert filled["a"].notna().all()
    seen = np.arange(ROWS) != 4
    assert (filled["b"][seen] == frame["b"][seen]).all()


def test_what_cannot_be_filled_is_refused_in_a_sentence(model: VAE) -> None:
    cases: list[tuple[Any, str]] = [
        (table(holes=False), "without an empty cell"),
        (table().drop(columns="city"), r"without the column \['city'\]"),
        (np.zeros((3, 6)), "of type ndarray; expected a data frame; pass tensors to model.impute"),
    ]
    for frame, why in cases:
        with pytest.raises(ValueError, match=rf"^got .*{why}"):
            impute(model, frame)
