"""Tables as people have them: other notations of numbers, no names, row numbers, marks for missing."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from genmod.arrays import as_tensor
from genmod.data import Dataset, load

ROWS = 60
REFUSED = r"^got .*; expected .*; .*"


def written(path: Path, names: list[str], *columns: Any, sep: str = ",") -> Path:
    """A file of columns, with the names above them if there are some."""
    lines = [sep.join(map(str, row)) for row in zip(*columns, strict=True)]
    path.write_text("\n".join([sep.join(names)] * bool(names) + lines) + "\n", encoding="utf-8")
    return path


def numbers(seed: int = 0) -> list[float]:
    return [round(each, 3) for each in np.random.default_rng(seed).normal(size=ROWS).tolist()]


def quiet(path: Path | pd.DataFrame, **options: Any) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load(path, **options)


NOTATIONS = {
    "decimal comma": lambda x: str(x).replace(".", ","),
    "percent": lambda x: f"{x}%",
    "thousands": lambda x: f'"{int(5e4 + 1e4 * x):,}"',
    "space": lambda x: f"{int(5e4 + 1e4 * x):,}".replace(",", " "),
    "apostrophe": lambda x: f"{int(5e4 + 1e4 * x):,}".replace(",", "'"),
    "long minus": lambda x: str(x).replace("-", "−"),
}


@pytest.mark.parametrize("values", [6, ROWS])
@pytest.mark.parametrize("notation", NOTATIONS)
def test_numbers_in_another_notation_are_no_categories(
    notation: str, values: int, tmp_path: Path
) -> None:
    """Few values too, of which a category could be made: a notation is not guessed, and not passed over."""
    some = sorted(numbers())[:: ROWS // values]
    cells = [NOTATIONS[notation](some[row % len(some)]) for row in range(ROWS)]
    path = written(tmp_path / "mine.csv", ["a", "b"], cells, numbers(1), sep=";")
    with pytest.raises(ValueError, match=REFUSED) as error:
        load(path)
    assert "number in another notation" in str(error.value)
    kept = load(path, kinds={"a": "category"})
    assert (kept.columns or ())[0].count == len(set(cells))


@pytest.mark.parametrize("values", [5, ROWS])
@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%y", "%Y-%m-%d %H:%M:%S"])
def test_dates_are_refused_also_where_they_repeat(form: str, values: int, tmp_path: Path) -> None:
    days = pd.date_range("2020-01-01", periods=values, freq="D").strftime(form)
    cells = [days[row % values] for row in range(ROWS)]
    path = written(tmp_path / "mine.csv", ["day", "b"], cells, numbers())
    with pytest.raises(ValueError, match="column 'day' of dates"):
        load(path)
    assert (load(path, kinds={"day": "category"}).columns or ())[0].count == values


def test_words_stay_categories(tmp_path: Path) -> None:
    """Codes, ranges, doses and versions are no numbers in another notation."""
    for number, cells in enumerate((["1-2", "3-4"], ["10 mg", "20 mg"], ["1.2.3", "1.3.0"])):
        path = written(tmp_path / f"{number}.csv", ["a", "b"], cells * (ROWS // 2), numbers())
        assert (quiet(path).columns or ())[0].values == tuple(cells)


# ------------------------------------------------------------------ the first line


@pytest.mark.parametrize("first", [True, False])
def test_a_row_in_place_of_names_is_refused(first: bool, tmp_path: Path) -> None:
    """Files without names that have words, or an empty cell in the first row: no row is lost silently."""
    species = ["setosa", "virginica"] * (ROWS // 2)
    a, b = [0.1, *numbers()[1:]], numbers(1)
    columns = (a, b, species) if first else (["", *a[1:]], [0.2, *b[1:]], numbers(2))
    with pytest.raises(ValueError, match=r"whose first line, .* is like the rows below"):
        load(written(tmp_path / "mine.csv", [], *columns))


@pytest.mark.parametrize(
    "names", [["", "0", "1"], ["sample", "400", "402"], ["place", "0.1", "0.2"], ["a", "b", "c"]]
)
def test_names_that_are_numbers_are_names_beside_words(names: list[str], tmp_path: Path) -> None:
    """Index and numbered columns of pandas, wavelengths, and numbers among those of their column."""
    places = ["k", "l", "m"] * (ROWS // 3)
    path = written(tmp_path / "mine.csv", names, places, numbers(), numbers(1))
    data = quiet(path)
    assert [each.name for each in data.columns or ()] == [names[0] or "column 1", *names[1:]]
    assert sum(map(len, data.parts().values())) == ROWS


@pytest.mark.parametrize("names", [["0", "1", "2"], ["1", "2", "3"], ["400", "402.5", "405"]])
def test_a_first_line_of_numbers_that_look_like_names_is_warned_of(
    names: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path / "mine.csv", names, numbers(), numbers(1), numbers(2))
    with pytest.warns(UserWarning, match=r"whose first line, .* was read as a row"):
        load(path)


def test_rows_without_names_are_read_quietly(tmp_path: Path) -> None:
    for seed in range(20):
        path = written(tmp_path / "mine.csv", [], *(numbers(3 * seed + i) for i in range(3)))
        assert sum(map(len, quiet(path).parts().values())) == ROWS


# ------------------------------------------------------------------ what is probably not meant


@pytest.mark.parametrize("start", [0, 1])
def test_the_number_of_the_row_is_warned_of(start: int, tmp_path: Path) -> None:
    """The index that pandas writes, and identities that count."""
    table = pd.DataFrame({"x": numbers()}, index=range(start, start + ROWS))
    table.to_csv(tmp_path / "mine.csv")
    with pytest.warns(UserWarning, match="column 'column 1', which numbers the rows"):
        data = load(tmp_path / "mine.csv")
    assert [each.name for each in data.columns or ()] == ["column 1", "x"]
    quiet(tmp_path / "mine.csv", drop="column 1")
    quiet(tmp_path / "mine.csv", kinds={"column 1": "integer"})
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "shuffled.csv")
    quiet(tmp_path / "shuffled.csv")


@pytest.mark.parametrize("mark", ["NA", "n/a", "nan", "NULL", "?"])
def test_marks_for_missing_cells_among_words_are_warned_of(mark: str, tmp_path: Path) -> None:
    cells = ["Ulm", "Bonn", mark] * (ROWS // 3)
    path = written(tmp_path / "mine.csv", ["city", "x"], cells, numbers())
    with pytest.warns(UserWarning, match="column 'city' with 20 cells such as '"):
        data = load(path)
    assert mark in ((data.columns or ())[0].values or ())
    quiet(path, kinds={"city": "category"})


@pytest.mark.parametrize("kinds", ["real", ["real"], "a=real", 3])
def test_kinds_that_name_no_columns_are_refused(kinds: Any) -> None:
    with pytest.raises(ValueError, match=r"got kinds=.*pass kinds=\{'age': 'real'\}"):
        load(pd.DataFrame({"a": numbers(), "b": numbers(1)}), kinds=kinds)


@pytest.mark.parametrize(
    "text", ["%d.%m.%Y", "%A", "%m/%d/%Y", "%Y-%m-{day}", "%H:%M", "{count} days"]
)
def test_times_of_text_that_letters_put_in_another_order_are_refused(text: str) -> None:
    days = pd.date_range("2020-01-25", periods=ROWS, freq="D")
    time = [day.strftime(text.format(day=day.day, count=place)) for place, day in enumerate(days)]
    table = pd.DataFrame({"x": numbers(), "t": time})
    with pytest.raises(ValueError, match="times of text such as"):
        load(table, time="t")
    data = load(table.assign(t=days.strftime("%Y-%m-%d")), time="t")
    assert data.rows is not None
    assert data.rows["test"].tolist() == list(range(48, 60))


def test_categories_of_numbers_are_the_same_in_a_frame_and_in_a_file(tmp_path: Path) -> None:
    """Categoricals of pandas hold text, cells of a file hold numbers."""
    grades = [10, 2, 1, 2] * (ROWS // 4)
    frame = pd.DataFrame({"x": numbers(), "g": pd.Categorical(grades, [10, 2, 1], ordered=True)})
    frame.to_csv(tmp_path / "mine.csv", index=False)
    of_frame, of_file = load(frame), load(tmp_path / "mine.csv")
    for spec, codes in ((of_frame, [0, 1, 2, 1]), (of_file, [2, 1, 0, 1])):
        for x in (frame, tmp_path / "mine.csv"):
            found = load(x, spec=spec, test=0, validation=0)
            assert found.rows is not None
            assert found.train[found.rows["train"].argsort(), 1].tolist() == codes * (ROWS // 4)


def test_an_ordered_categorical_keeps_its_order_in_a_parquet_file(tmp_path: Path) -> None:
    sizes = pd.Categorical(["mid", "low", "high"] * 20, ["low", "mid", "high"], ordered=True)
    frame = pd.DataFrame({"x": numbers(), "size": sizes})
    frame.to_parquet(tmp_path / "mine.parquet")
    columns = load(tmp_path / "mine.parquet").columns or ()
    assert columns == load(frame).columns
    assert columns[1].values == ("low", "mid", "high")


# ------------------------------------------------------------------ arrays and folders


def test_masked_entries_are_not_read_as_values() -> None:
    x = np.ma.masked_greater(np.random.default_rng(0).normal(size=(30, 2)), 1.0)
    x[:, 0].mask = False
    with pytest.raises(
        ValueError, match=rf"masked array x with {int(x.mask.sum())} masked entries"
    ):
        load(x)
    seen = ~np.ma.getmaskarray(x)
    assert load(x.filled(0), observed=seen, validation=0, test=0).observed is not None
    assert load(np.ma.masked_array(x.data)).spec.shape == (2,)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4"])
def test_numbers_of_either_byte_order_are_the_same(kind: str) -> None:
    x = np.arange(12).reshape(4, 3).astype(kind)
    for other in (x.astype(f"<{kind}"), x.astype(f">{kind}")):
        found = as_tensor(other)
        assert torch.equal(found, as_tensor(x))
        assert found.dtype is as_tensor(x).dtype


@pytest.mark.parametrize("parts", [("train", "test"), ("Train", "TEST")])
def test_a_folder_takes_labels_of_text_and_parts_in_capitals(
    parts: tuple[str, str], tmp_path: Path
) -> None:
    for row in range(20):
        place = tmp_path / parts[row % 2] / f"{row:02}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), row, np.uint8)).save(place)
    data = load(tmp_path)
    assert (len(data.test), data.labels) == (10, None)
    names = [("cat", "dog")[row % 3 % 2] for row in range(0, 20, 2)]
    named = load(tmp_path / parts[0], labels=names)
    assert named.classes == ("cat", "dog")
    assert named.labels is not None
    for split, part in named.parts().items():
        for image, label in zip(part, named.labels[split], strict=True):
            assert named.classes[int(label)] == names[int(image[0, 0, 0]) // 2]
