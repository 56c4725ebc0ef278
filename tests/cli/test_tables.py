"""A file of one's own from the shell: a CSV with missing entries trains, is scored, filled and sampled."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from genmod.cli import app

NAMES = ("size", "visits", "city", "grade", "year")


def table(path: Path, rows: int = 150) -> list[list[str]]:
    """Five kinds of columns, a tenth of the cells empty; returns the cells."""
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 2, rows)
    columns: list[Sequence[object]] = [
        np.round(draw.normal(100 + 30 * kind, 5), 4).tolist(),
        draw.poisson(2 + 6 * kind).tolist(),
        [("Ulm", "Bonn", "Trier")[i] for i in (kind + draw.integers(0, 2, rows)) % 3],
        [("low", "mid", "high")[i] for i in kind + draw.integers(0, 2, rows)],
        draw.integers(1950, 2020, rows).tolist(),
    ]
    cells = [[str(cell) for cell in row] for row in zip(*columns, strict=True)]
    for row in cells:
        for place in range(1, len(row)):
            row[place] = (
                "" if draw.random() < 0.1 and any(row[:place] + row[place + 1 :]) else row[place]
            )
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([NAMES, *cells])
    return cells


def genmod(*words: object) -> str:
    """A command that works."""
    found = CliRunner().invoke(app, [str(word) for word in words], prog_name="genmod")
    assert found.exit_code == 0, found.output + found.stderr
    return found.stdout


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the table, whose grade is an ordinal."""
    folder = tmp_path_factory.mktemp("table")
    table(folder / "mine.csv")
    kinds = "{grade: [low, mid, high], visits: count}"
    genmod(
        "train", folder / "mine.csv", "--model", "vae", "--latents", 2, "--width", 16, "--steps", 10,
        "--kinds", kinds, "--no-progress", "--out", folder / "run",
    )  # fmt: skip
    return folder / "run"


def test_the_table_is_what_it_is_taken_for(run: Path) -> None:
    printed = genmod(
        "data", run.parent / "mine.csv", "--kinds", "{grade: [low, mid, high], visits: count}"
    )
    for name, kind in zip(NAMES, ("real", "count", "category", "ordinal", "integer"), strict=True):
        (line,) = [line for line in printed.splitlines() if line.split()[:1] == [name]]
        assert kind in line
    assert "missing" in printed


def test_each_row_of_the_file_has_a_score_in_its_order(run: Path, tmp_path: Path) -> None:
    genmod("score", run, run.parent / "mine.csv", "--out", tmp_path / "all.csv")
    scores = read(tmp_path / "all.csv")
    assert [row["row"] for row in scores] == [str(n) for n in range(150)]
    # The first ten rows alone have the scores that they have among all.
    lines = (run.parent / "mine.csv").read_text().splitlines(keepends=True)
    (tmp_path / "few.csv").write_text("".join(lines[:11]))
    genmod("score", run, tmp_path / "few.csv", "--out", tmp_path / "few-scores.csv")
    few = [float(row["nats"]) for row in read(tmp_path / "few-scores.csv")]
    assert few == pytest.approx([float(row["nats"]) for row in scores[:10]], rel=1e-4)


def test_filled_tables_keep_what_was_observed_and_have_no_empty_cell(
    run: Path, tmp_path: Path
) -> None:
    cells = table(tmp_path / "again.csv")
    genmod("impute", run, run.parent / "mine.csv", "-n", 2, "--out", tmp_path / "filled.csv")
    filled = read(tmp_path / "filled.csv")
    assert [row["copy"] for row in filled] == ["0"] * 150 + ["1"] * 150
    changed = 0
    for number, row in enumerate(filled):
        for name, cell in zip(NAMES, cells[number % 150], strict=True):
            if cell:
                same = (
                    float(row[name]) == float(cell)
                    if name not in ("city", "grade")
                    else row[name] == cell
                )
                assert same, (number, name)
            else:
                changed += filled[number % 150][name] != filled[number % 150 + 150][name]
                assert row[name] != ""
    assert changed > 0
    assert {row["city"] for row in filled} == {"Ulm", "Bonn", "Trier"}
    assert {row["grade"] for row in filled} == {"low", "mid", "high"}


def test_copies_keep_all_digits_and_every_column_whatever_its_name(tmp_path: Path) -> None:
    """A table with a column "copy", and numbers of more digits than single precision has."""
    draw = np.random.default_rng(0)
    names = ("copy", "row", "x", "copy_")
    cells = [[repr(each) for each in row] for row in draw.normal(5e4, 9e3, (40, 4)).tolist()]
    cells[3][2] = cells[5][0] = ""
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *cells])
    words = ("--latents", 1, "--width", 8, "--steps", 2, "--no-progress", "--no-evaluate")
    genmod("train", tmp_path / "mine.csv", "--model", "vae", *words, "--out", tmp_path / "run")
    for n in (1, 2):
        out = tmp_path / f"filled{n}.csv"
        genmod("impute", tmp_path / "run", tmp_path / "mine.csv", "-n", n, "--out", out)
        filled = read(out)
        assert tuple(filled[0]) == (() if n == 1 else ("copy__",)) + names
        assert len(filled) == 40 * n
        for number, row in enumerate(filled):
            assert n == 1 or row["copy__"] == str(number // 40)
            for name, cell in zip(names, cells[number % 40], strict=True):
                assert row[name] == cell or (cell == "" and float(row[name]) > 0)


@pytest.mark.parametrize("sep", [",", ";", "\t"])
def test_copies_keep_the_columns_that_the_model_lacks_and_the_text_of_every_cell(
    sep: str, run: Path, tmp_path: Path
) -> None:
    """In place, in order, unchanged: zeros in front, blanks, marks and quotes in them too."""
    with (run.parent / "mine.csv").open(newline="") as file:
        lines = list(csv.reader(file))[1:21]
    rows = []
    for number, line in enumerate(lines):
        size, visits, city, grade, year = line
        size = f" {size}0" if size else ""  # another spelling of the same number
        rows.append([f"0{number}", year, "NA", visits, size, f'a "{number}", b', grade, city])
    head = ["id", "year", "empty", "visits", "size", "note", "grade", "city"]
    with (tmp_path / "more.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=sep).writerows([head, *rows])
    genmod("impute", run, tmp_path / "more.csv", "-n", 2, "--out", tmp_path / "filled.csv")
    filled = read(tmp_path / "filled.csv")
    assert tuple(filled[0]) == ("copy", *head)
    assert len(filled) == 40
    changed = 0
    for number, row in enumerate(filled):
        for name, cell in zip(head, rows[number % 20], strict=True):
            empty = cell.strip() == "" and name != "empty"
            changed += empty
            assert row[name] == cell if not empty else row[name] != ""
    assert changed > 0


def test_a_run_is_sampled_without_its_data(run: Path, tmp_path: Path) -> None:
    """A folder that was handed on: the model alone draws, and data are needed for none of it."""
    shutil.copytree(run, tmp_path / "given")
    config = tmp_path / "given" / "config.yaml"
    config.write_text(config.read_text().replace(str(run.parent), str(tmp_path / "gone")))
    genmod("sample", tmp_path / "given", "-n", 3, "--out", tmp_path / "there.csv")
    genmod("sample", run, "-n", 3, "--out", tmp_path / "here.csv")
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    found = CliRunner().invoke(app, ["score", str(tmp_path / "given")])
    assert found.exit_code == 2
    assert "name the data to use" in found.stderr


def test_samples_are_a_table_of_the_same_columns(run: Path) -> None:
    genmod("sample", run, "-n", 20)
    rows = read(run / "sampled.csv")
    assert len(rows) == 20
    assert tuple(rows[0]) == NAMES
    assert {row["grade"] for row in rows} <= {"low", "mid", "high"}
    assert all(int(row["visits"]) >= 0 for row in rows)


def test_rows_with_empty_cells_are_encoded_without_them(run: Path, tmp_path: Path) -> None:
    """Reconstructions have no empty cell, and the first and last row of a path are reconstructions."""
    cells, made = table(tmp_path / "again.csv"), tmp_path / "made.csv"
    assert any("" in row for row in cells[:6])
    genmod("reconstruct", run, run.parent / "mine.csv", "-n", 6, "--out", made)
    given, decoded = read(made)[:6], read(made)[6:]
    for row, expected in zip(given, cells, strict=False):
        assert [bool(row[name]) for name in NAMES] == [bool(cell) for cell in expected]
        assert all(row[name] == cell for name, cell in zip(NAMES[2:4], expected[2:4], strict=True))
    assert all(row[name] for row in decoded for name in NAMES)
    ways = tmp_path / "ways.csv"
    genmod("interpolate", run, run.parent / "mine.csv", "-n", 3, "--count", 4, "--out", ways)
    ends = [row for number, row in enumerate(read(ways)) if number % 4 in (0, 3)]
    for end, row in zip(ends, decoded, strict=True):
        assert (end["city"], end["grade"]) == (row["city"], row["grade"])
        assert float(end["size"]) == pytest.approx(float(row["size"]), rel=1e-5)
    # What stands beside the run: its own test part, and numbers with NaN in place of empty cells.
    genmod("reconstruct", run, "-n", 6, "--out", tmp_path / "made.npy")
    genmod("interpolate", run, "-n", 3)
    numbers = np.load(tmp_path / "made.npy", allow_pickle=False)
    assert np.isnan(numbers[:6]).any()
    assert np.isfinite(numbers[6:]).all()


def test_what_cannot_be_filled_or_read_is_one_sentence(run: Path, tmp_path: Path) -> None:
    (tmp_path / "whole.csv").write_text(",".join(NAMES) + "\n100.0,3,Ulm,low,1999\n" * 3)
    (tmp_path / "other.csv").write_text("size,visits\n1.0,2\n")
    for words, why in (
        (["impute", run, tmp_path / "whole.csv"], "without a missing entry"),
        (["score", run, tmp_path / "other.csv"], "expected"),
    ):
        found = CliRunner().invoke(app, [str(word) for word in words])
        assert found.exit_code == 2
        assert why in found.stderr
        assert found.stderr.count("\n") == 1


UNUSABLE = {
    "category": (",,Rom,,", "city='Rom', which is none of the 3 values"),
    "ordinal": (",,,top,", "grade='top', which is none of the 3 values"),
    "integer": (",,,,3000", "year=3000, outside the whole numbers"),
    "fraction": (",,,,1999.5", "year=1999.5, outside the whole numbers"),
    "count": (",-1,,,", "visits=-1, outside the whole numbers from 0 on"),
    "text": ("wide,,,,", "size='wide', which is no finite number"),
    "empty": (",,,,", "no observed entry"),
    "marks": ("NA,?,,,-", "no observed entry"),
}
"""Rows that a model of the table cannot have."""


def test_rows_that_cannot_be_scored_have_a_note_and_all_others_their_scores(
    run: Path, tmp_path: Path
) -> None:
    """Where such a row stands changes no other score; ``--strict`` refuses the file."""
    names, *lines = (run.parent / "mine.csv").read_text().splitlines()[:9]
    (tmp_path / "fine.csv").write_text("\n".join([names, *lines]) + "\n")
    genmod("score", run, tmp_path / "fine.csv", "--out", tmp_path / "fine-scores.csv")
    fine = [row["nats"] for row in read(tmp_path / "fine-scores.csv")]
    assert all(map(float, fine))
    for line, why in UNUSABLE.values():
        for place in (0, 4):
            mixed = [*lines[:place], line, *lines[place + 1 :]]
            (tmp_path / "mixed.csv").write_text("\n".join([names, *mixed]) + "\n")
            words = ["score", str(run), str(tmp_path / "mixed.csv")]
            found = CliRunner().invoke(app, words)
            assert found.exit_code == 0
            rows = list(csv.DictReader(found.stdout.splitlines()))
            assert [row["row"] for row in rows] == [str(n) for n in range(8)]
            assert (rows[place]["nats"], rows[place]["stamp"]) == ("", "")
            assert why in rows[place]["note"]
            for number, row in enumerate(rows):
                if number != place:
                    assert (row["nats"], row["note"]) == (fine[number], "")
            assert f"1 of 8 rows have no score (row {place}: " in found.stderr
            strict = CliRunner().invoke(app, [*words, "--strict"])
            assert strict.exit_code == 2
            assert "expected" in strict.stderr
    every = [line for line, _ in UNUSABLE.values()]
    (tmp_path / "none.csv").write_text("\n".join([names, *every]) + "\n")
    found = CliRunner().invoke(app, ["score", str(run), str(tmp_path / "none.csv")])
    assert found.exit_code == 2
    assert "without a row that the model can have (row 0: city='Rom'" in found.stderr
    (tmp_path / "some.csv").write_text("\n".join([names, *every, *lines]) + "\n")
    genmod("score", run, tmp_path / "some.csv", "--out", tmp_path / "some-scores.csv")
    notes = [row["note"] for row in read(tmp_path / "some-scores.csv")]
    assert [bool(note) for note in notes] == [True] * 8 + [False] * 8


def test_labels_of_another_file_have_the_codes_of_the_run(tmp_path: Path) -> None:
    """Text becomes codes in alphabetical order: a file with one class of three has a code of its own."""
    draw = np.random.default_rng(0)
    rows = [
        [f"{draw.normal(center, 0.5):.4f}", name]
        for _ in range(40)
        for center, name in ((-9, "alder"), (0, "birch"), (9, "cedar"))
    ]

    def written(name: str, some: Sequence[Sequence[str]]) -> Path:
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([("x", "tree"), *some])
        return tmp_path / name

    words = ("--latents", 1, "--width", 8, "--steps", 20, "--no-progress", "--no-evaluate")
    genmod(
        "train", written("mine.csv", rows), "--model", "vae", "--labels", "tree", "--condition",
        "Labels(3)", *words, "--out", tmp_path / "run",
    )  # fmt: skip
    genmod("score", tmp_path / "run", tmp_path / "mine.csv", "--out", tmp_path / "all.csv")
    first = [float(row["nats"]) for row in read(tmp_path / "all.csv")]
    # The same rows in the same places, and other classes in place of alders.
    kept = [row if row[1] != "alder" else [row[0], "cedar"] for row in rows]
    genmod("score", tmp_path / "run", written("few.csv", kept), "--out", tmp_path / "out.csv")
    second = [float(row["nats"]) for row in read(tmp_path / "out.csv")]
    for (_, name), one, other in zip(rows, first, second, strict=True):
        assert name == "alder" or one == pytest.approx(other, rel=1e-5)
    found = CliRunner().invoke(
        app, ["score", str(tmp_path / "run"), str(written("new.csv", [*kept, ["0.5", "elm"]]))]
    )
    assert found.exit_code == 2
    assert "got labels 'elm', which the run was not trained on; expected one of" in found.stderr
