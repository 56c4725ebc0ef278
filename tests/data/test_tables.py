"""Tables: kinds that are guessed and overruled, missing cells, units, labels, and what is refused."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmod.columns import Column, ColumnKind
from genmod.data import Dataset, GivenRows, load, rows_or_dataset
from genmod.data.cells import MOST_COLUMNS
from genmod.data.readers import from_frame, read_csv

REFUSED = r"^got [^\n]*; expected [^\n]*; [^\n]*$"
"""One sentence in the project's grammar."""


def people(rows: int = 200) -> pd.DataFrame:
    """A table with a column of each kind, and holes."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "height": rng.normal(170, 9, rows).round(4),
            "age": rng.integers(18, 90, rows),
            "visits": rng.poisson(rng.gamma(0.3, 10, rows)),
            "city": rng.choice(["Bonn", "Köln", "Ulm"], rows),
            "size": pd.Categorical(
                rng.choice(["S", "M", "L"], rows), ["S", "M", "L"], ordered=True
            ),
            "smoker": rng.random(rows) < 0.3,
            "patient": [f"p{i // 4}" for i in range(rows)],
        }
    )
    table.loc[3, "height"] = np.nan
    table.loc[7, "city"] = None
    return table


@pytest.fixture
def data() -> Dataset:
    """People, without their names."""
    return load(people(), drop=["patient"])


KINDS = ["real", "integer", "count", "category", "ordinal", "category"]


def test_kinds_are_guessed_and_printed(data: Dataset) -> None:
    assert data.columns is not None
    assert [column.kind for column in data.columns] == KINDS
    assert data.columns[3].values == ("Bonn", "Köln", "Ulm")
    assert data.columns[4].values == ("S", "M", "L")
    lines = repr(data).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[:2] for line in lines[-6:]] == [
        [column.name, kind] for column, kind in zip(data.columns, KINDS, strict=True)
    ]
    assert lines[-6].endswith("1 missing")


def test_values_stay_in_their_own_units_and_codes_stand_for_values(data: Dataset) -> None:
    """Every cell is found again: through the row's number, the column's name and its values."""
    table = people()
    assert data.rows is not None
    assert data.columns is not None
    for split, part in data.parts().items():
        mask = data.mask(split)
        assert mask is not None
        for row, x, seen in zip(data.rows[split].tolist(), part, mask, strict=True):
            for column, value, there in zip(data.columns, x.tolist(), seen.tolist(), strict=True):
                cell: Any = table.at[row, column.name]
                if not there:
                    assert value == 0
                    assert pd.isna(cell)
                elif column.values is None:
                    assert value == pytest.approx(float(cell))
                else:
                    assert column.values[int(value)] == cell


def test_missing_cells_are_not_observed(data: Dataset) -> None:
    assert data.observed is not None
    assert data.spec.missing
    assert sum(int((~mask).sum()) for mask in data.observed.values()) == 2
    whole = load(people().dropna(), drop=["patient"])
    assert whole.observed is None
    assert not whole.spec.missing


def test_real_columns_carry_the_units_of_the_training_rows(data: Dataset) -> None:
    """Mean and standard deviation of observed training entries, computed another way."""
    assert data.columns is not None
    assert data.rows is not None
    train = people().loc[data.rows["train"].tolist(), "height"]
    assert data.columns[0].mean == pytest.approx(train.mean(), rel=1e-6)
    assert data.columns[0].std == pytest.approx(train.std(ddof=0), rel=1e-6)
    plain = load(people(), drop=["patient"], standardize=False)
    assert plain.columns is not None
    assert (plain.columns[0].mean, plain.columns[0].std) == (0.0, 1.0)
    assert torch.equal(plain.train, data.train)


def test_every_source_gives_the_same_data(tmp_path: Path) -> None:
    """CSV, Parquet, pandas, polars and Arrow; an order is lost in CSV and told again."""
    table = people()
    table.to_csv(tmp_path / "people.csv", index=False)
    table.to_csv(tmp_path / "people.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "people.parquet")
    sources: list[Any] = [
        table,
        pl.from_pandas(table),
        pa.Table.from_pandas(table),
        tmp_path / "people.csv",
        str(tmp_path / "people.tsv"),
        tmp_path / "people.parquet",
    ]
    kinds: dict[str, Any] = {"size": ["S", "M", "L"]}
    found = [load(source, kinds=kinds, drop=["patient"], name="people") for source in sources]
    for each in found[1:]:
        assert torch.equal(each.train, found[0].train)
        assert each.observed is not None
        assert found[0].observed is not None
        assert torch.equal(each.observed["test"], found[0].observed["test"])
        assert [str(c) for c in each.columns or ()] == [str(c) for c in found[0].columns or ()]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([0.5, 1.5, 2.0], "real"),
        ([1.0, 2.0, np.nan], "category"),
        (range(11), "integer"),
        (range(-20, 20), "integer"),
        ([0] * 50 + [*range(1, 12), 60], "count"),
        ([1900 + i for i in range(99)], "integer"),
        ([10**6 * i for i in range(99)], "real"),
        ([True, False, None], "category"),
        (["a", "b"] * 3, "category"),
        (["a", "b", "b", "c", "c"], "category"),
        (["1", "2", "1", "x"], "category"),
    ],
)
def test_the_rules_of_the_guess(cells: Any, kind: str) -> None:
    rows = list(cells) * (1 if len(list(cells)) > 30 else 6)
    data = load(pd.DataFrame({"x": rows, "y": np.arange(len(rows)) + 0.5}))
    assert data.columns is not None
    assert data.columns[0].kind == kind


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)),
            st.one_of(st.none(), st.integers(-5000, 5000)),
            st.one_of(st.none(), st.sampled_from(["a", "b, c", 'd"e', "f\ng", "ü"])),
        ),
        min_size=4,
        max_size=30,
    )
)
def test_a_csv_gives_back_what_pandas_wrote(tmp_path_factory: Any, rows: list[Any]) -> None:
    """Quotes, commas and line breaks in cells, empty cells; every number to the last bit."""
    table = pd.DataFrame(rows, columns=["real", "whole", "text"])
    table["whole"] = table["whole"].astype("Int64")
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    table.to_csv(path, index=False)
    for read, made in zip(read_csv(path), from_frame(table), strict=True):
        assert read.name == made.name
        if read.observed.any():
            assert np.array_equal(read.cells, made.cells)
        assert np.array_equal(read.observed, made.observed)


def test_a_csv_without_names_and_with_marks_for_missing_cells(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("1.5;2\n2.5;NA\n;nan\n\n3.5;3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="without an observed entry, the first at row 2"):
        load(path)
    first, second = read_csv(path)
    assert (first.name, second.name) == ("column 1", "column 2")
    assert first.observed.tolist() == [True, True, False, True]
    assert second.observed.tolist() == [True, False, False, True]


def test_what_only_python_reads_as_a_number_is_text(tmp_path: Path) -> None:
    """Years and quarters such as 2020_1: Python takes the underscore for a separator of digits."""
    path = tmp_path / "quarters.csv"
    lines = [f"2020_{1 + row % 2};{row}.5\n" for row in range(10)]
    path.write_text("quarter;x\n" + "".join(lines), encoding="utf-8")
    quarter, _ = read_csv(path)
    assert quarter.cells.tolist() == ["2020_1", "2020_2"] * 5
    assert (load(path).columns or ())[0].values == ("2020_1", "2020_2")


def test_delimiters_in_quoted_names_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "quoted.csv"
    path.write_text('"height, cm, m";"weight, kg"\n1.5;2.5\n', encoding="utf-8")
    assert [column.name for column in read_csv(path)] == ["height, cm, m", "weight, kg"]


def test_kinds_are_overruled(data: Dataset) -> None:
    kinds: dict[str, Any] = {
        "age": "real",
        "visits": ColumnKind.INTEGER,
        "city": ["Ulm", "Bonn", "Köln"],
    }
    found = load(people(), drop="patient", kinds=kinds)
    assert [column.kind for column in found.columns or ()] == [
        "real", "real", "integer", "ordinal", "ordinal", "category",
    ]  # fmt: skip
    assert (found.columns or ())[3].values == ("Ulm", "Bonn", "Köln")
    named = load(people(), kinds={"patient": "category"})
    assert (named.columns or ())[-1].count == 50


def test_labels_come_from_a_column_or_from_outside() -> None:
    table = people().dropna()
    data = load(table, labels="city", drop=["patient"])
    assert data.classes == ("Bonn", "Köln", "Ulm")
    assert "city" not in [column.name for column in data.columns or ()]
    assert data.labels is not None
    assert data.rows is not None
    for split, marks in data.labels.items():
        wanted = table["city"].to_numpy()[data.rows[split].numpy()]
        assert [data.classes[int(mark)] for mark in marks] == wanted.tolist()
    other = load(table, labels=table["city"], drop=["patient", "city"])
    assert torch.equal(other.labels["train"], data.labels["train"])  # type: ignore[index]
    assert load(table, labels="age", drop=["patient"]).labels["test"].dtype is torch.int64  # type: ignore[index]


def test_groups_and_times_are_columns_of_the_split_alone() -> None:
    table = people().assign(when=pd.date_range("2020-01-01", periods=200)[::-1])
    data = load(table, groups="patient", drop=["when"])
    assert data.rows is not None
    names = [set(table["patient"].iloc[rows.tolist()]) for rows in data.rows.values()]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert data.split == {
        "kind": "groups",
        "validation": 0.1,
        "test": 0.2,
        "seed": 0,
        "columns": ["patient"],
    }
    assert "patient" not in [column.name for column in data.columns or ()]
    timed = load(table, time="when", drop=["patient"])
    assert timed.rows is not None
    assert sorted(timed.rows["test"].tolist()) == list(range(40))
    assert sorted(timed.rows["validation"].tolist()) == list(range(40, 56))


def test_other_tables_are_read_by_the_columns_of_a_data_set(data: Dataset) -> None:
    """Codes and units are those of the first table; the order of columns does not matter."""
    table = people(60).query("city != 'Ulm'")[["city", "age", "visits", "height", "smoker", "size"]]
    other = load(table, spec=data)
    assert other.columns == data.columns
    city = [column.name for column in data.columns or ()].index("city")
    assert other.rows is not None
    seen = (
        table["city"].iloc[other.rows["train"].tolist()].map({"Bonn": 0.0, "Köln": 1.0}).fillna(0)
    )
    assert other.train[:, city].tolist() == seen.tolist()
    rows = rows_or_dataset(table, data.spec)
    assert isinstance(rows, GivenRows)
    assert len(rows.x) == len(table)
    with pytest.raises(ValueError, match=r"column 'city' with 1 unknown values, such as \['Rom'\]"):
        load(table.replace({"city": {"Bonn": "Rom"}}), spec=data)
    with pytest.raises(ValueError, match=r"a table without the column \['age'\]"):
        load(table.drop(columns="age"), spec=data)
    with pytest.raises(ValueError, match=r"a table for data of \(3,\), real numbers"):
        rows_or_dataset(table, load(torch.randn(20, 3)).spec)


def frame(**columns: Any) -> pd.DataFrame:
    """A table of 40 rows: two good columns and others."""
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=40), "y": rng.normal(size=40), **columns})


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (frame(t=[f"t{i}" for i in range(40)]), {}, r"'t' of text of 40 values.*drop=\['t'\]"),
        (frame(t=["1", "2"] * 19 + ["x", "y"]), {"kinds": {"t": "real"}}, "'t' of text as real"),
        (frame(t=[*map(str, range(38)), "a", "b"]), {}, r"'t' of numbers and 2 values that are none"),
        (frame(t=pd.date_range("2020-01-01", periods=40)), {}, "column 't' of dates"),
        (frame(c=1.5), {}, r"column 'c' with one value only, 1.5;.*drop=\['c'\]"),
        (frame(c=np.nan), {}, r"column 'c' without a value"),
        (frame(c=[np.inf] + [1.0] * 39), {}, "column 'c' with 1 infinite values"),
        (frame(c=[[1]] * 40), {}, "column 'c' with a cell of type list"),
        (frame(c=1e9 + np.random.default_rng(0).random(40)), {}, "'c' around 1e[+]09.*subtract"),
        (frame(c=[0.5, 1] * 20), {"kinds": {"c": "count"}}, r"'c' as count with values.*'real'"),
        (frame(c=[-1, 2] * 20), {"kinds": {"c": "count"}}, "whole numbers from 0 on"),
        (frame(c=["a", "b"] * 20), {"kinds": {"c": "ordinal"}}, "the order of its values"),
        (frame(c=["a", "b"] * 20), {"kinds": {"c": ["a"]}}, "1 unknown values, such as"),
        (frame(), {"kinds": {"z": "real"}}, "kinds for a column 'z'; expected one of 'x', 'y'"),
        (frame(), {"kinds": {"x": "reel"}}, "did you mean 'real'"),
        (frame(), {"drop": ["X1"]}, "drop for a column 'X1'"),
        (frame(), {"drop": ["x", "y"]}, "a table without columns"),
        (frame(), {"labels": "city"}, "labels for a column 'city'"),
        (frame(), {"labels": np.zeros(3)}, r"labels of shape \(3,\).*each of the 40 rows"),
        (frame(), {"groups": np.zeros(3)}, r"groups of shape \(3,\)"),
        (frame(g=[None] + [1.0] * 39), {"groups": "g"}, "a column with 1 missing cells"),
        (frame(g=["a"] * 40), {"groups": "g"}, "1 groups, which"),
        (frame(), {"groups": range(40), "time": range(40)}, "groups and time"),
        (frame(), {"bins": 3}, "bins for the table"),
        (frame(), {"size": 8}, "size for the table"),
        (frame().iloc[:3], {}, "bring more rows"),
        (frame().iloc[:0], {}, "a frame without rows"),
        (frame(x=[np.nan] + [1.0] * 39, y=[np.nan] + [2.0] * 39), {}, "one value only"),
        (pd.concat([frame(), frame()], axis=1), {}, "got a"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_in_a_sentence(
    table: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=REFUSED) as error:
        load(table, **options)
    assert pytest.raises(ValueError, match=message).matches(error.value)


def test_a_row_without_any_entry_is_named() -> None:
    table = frame()
    table.loc[5, :] = np.nan
    with pytest.raises(
        ValueError, match=r"1 rows of the table without an observed entry, .* row 5"
    ):
        load(table)
    assert load(table.dropna()).observed is None


def test_a_lazy_frame_is_collected_first() -> None:
    with pytest.raises(ValueError, match=r"a lazy frame.*call .collect\(\) first"):
        load(pl.from_pandas(frame()).lazy())


class Evil:
    """An object whose pickle would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (sys.exit, (9,))


def hostile() -> dict[str, bytes]:
    """Files that are not what they are called, by name."""
    wide = ",".join(f"c{i}" for i in range(10**6)).encode()
    return {
        "pickle.csv": pickle.dumps(Evil(), protocol=0) + b"\0",
        "pickle2.csv": pickle.dumps(Evil()),
        "pickle.parquet": pickle.dumps(Evil()),
        "wide.csv": wide + b"\n" + b",".join([b"1"] * 10**6) + b"\n",
        "torn.csv": b"a,b\n1,2\n3",
        "ragged.csv": b"a,b\n1,2\n3,4,5\n",
        "quote.csv": b'a,b\n1,2\n"3,4\n',
        "latin.csv": "a,b\nä,1\n".encode("latin-1"),
        "binary.csv": bytes(range(256)) * 20,
        "empty.csv": b"",
        "header.csv": b"a,b\n",
        "twice.csv": b"a,a\n1,2\n",
        "cell.csv": b"a,b\n" + b"1" * 200_000 + b",2\n",
        "torn.parquet": b"PAR1" + b"\0" * 40,
        "empty.parquet": b"",
    }


@pytest.mark.parametrize("name", hostile())
def test_hostile_files_are_named_and_run_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(hostile()[name])
    with pytest.raises(ValueError, match=REFUSED) as error:
        load(path)
    assert name in str(error.value)
    if name == "wide.csv":
        assert f"1,000,000 columns; expected at most {MOST_COLUMNS:,}" in str(error.value)
    if name == "ragged.csv":
        assert "3 cells in line 3" in str(error.value)


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'genmod-torch\[parquet\]'"):
        load(tmp_path / "x.parquet")


def test_identities_tell_columns_masks_and_splits_apart(data: Dataset) -> None:
    assert data.identity() == load(people(), drop=["patient"]).identity()
    for other in (
        load(people(), drop=["patient"], standardize=False),
        load(people(), drop=["patient"], kinds={"age": "real"}),
        load(people(), drop=["patient"], seed=1),
        load(people().fillna({"height": 0.0}), drop=["patient"]),
    ):
        assert other.identity() != data.identity()


def test_a_table_of_a_hundred_thousand_rows_keeps_every_number(tmp_path: Path) -> None:
    """Speed is measured in the guide; here the values are checked at size."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(20_000, 4))
    path = tmp_path / "large.csv"
    np.savetxt(path, numbers, delimiter=",", header="a,b,c,d", comments="", fmt="%.17g")
    assert np.array_equal(np.stack([raw.cells for raw in read_csv(path)], 1), numbers)


def test_columns_describe_themselves() -> None:
    data = load(frame(c=["a", "b"] * 20))
    assert (data.columns or ())[2] == Column("c", "category", ("a", "b"))
    cut = data.cut("test", 2)
    assert cut.columns == data.columns
    assert cut.rows is not None
    assert len(cut.rows["test"]) == 2
