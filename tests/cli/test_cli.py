"""The command line: a fast start, output files, errors of one line."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from genmod.cli import app, training
from genmod.cli.settings import SUITE as MODELS
from genmod.compare import Comparison, compare
from genmod.compare.suites import DIGITS, IMAGES
from genmod.data import Dataset, load
from genmod.version import __version__
from tests.compare.cases import TINY, few
from tests.compare.cases import no_figures as no_figures

RUNNER = CliRunner()


def test_help_never_loads_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from genmod.cli import app\n"
        "result = CliRunner().invoke(app, ['compare', '--help'])\n"
        "assert result.exit_code == 0 and 'effort' in result.output, result.output\n"
        "assert 'fashion' in result.output\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_version() -> None:
    assert RUNNER.invoke(app, ["--version"]).output.strip() == __version__


def test_a_bad_setting_gives_a_one_line_error(tmp_path: Path) -> None:
    for option, value in (("--effort", "0"), ("--minutes", "0"), ("--jobs", "0")):
        result = RUNNER.invoke(app, ["compare", "--out", str(tmp_path), option, value])
        assert result.exit_code == 2
        assert option[2:] in result.output
        assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("name", "why"),
    [("digit", "did you mean 'digits'"), ("nowhere.npy", "does not exist")],
)
def test_missing_data_give_a_one_line_error(name: str, why: str, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["compare", "--data", name, "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert why in result.stderr
    assert "Traceback" not in result.output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command asks of ``compare``, which then stops."""
    found: list[dict[str, Any]] = []

    def stop(folder: Path, data: Dataset, **settings: object) -> Comparison:
        found.append({"folder": folder, "data": data, **settings})
        raise ValueError("enough")

    monkeypatch.setattr(training, "compare", stop)
    return found


def test_options_reach_compare(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    """By name; with the seed of the run, as bits if wanted."""
    np.save(tmp_path / "rows.npy", np.arange(200).reshape(50, 4))
    command = (
        f"compare --data {tmp_path / 'rows.npy'} --bins 200 --seed 4 --binarize --quick --fresh "
        f"--no-progress --out {tmp_path} --models vae --models diffusion --minutes 2.5 --jobs 3"
    )
    assert RUNNER.invoke(app, command.split()).exit_code == 2
    data = asked[0].pop("data")
    assert data.identity() == load(tmp_path / "rows.npy", bins=200, seed=4).identity()
    assert asked[0] == {
        "folder": tmp_path,
        "binarize": True,
        "models": ["vae", "diffusion"],
        "quick": True,
        "seed": 4,
        "effort": 1.0,
        "minutes": 2.5,
        "jobs": 3,
        "fresh": True,
        "progress": False,
    }


def test_the_defaults_are_those_of_compare(asked: list[dict[str, Any]]) -> None:
    """From Python it does what the command does."""
    RUNNER.invoke(app, ["compare"])
    for name, parameter in inspect.signature(compare).parameters.items():
        if name not in ("data", "suite", "jobs", "on_report", "folder"):
            expected = None if name == "models" else parameter.default
            assert asked[0][name] == expected, name
    assert asked[0]["folder"] == Path(inspect.signature(compare).parameters["folder"].default)
    assert asked[0]["data"].identity() == load("digits").identity()


def test_models_are_listed_in_the_help_by_names_without_commas() -> None:
    assert list(MODELS) == [candidate.slug for candidate in DIGITS]
    assert list(MODELS) == [candidate.slug for candidate in IMAGES]
    help_text = RUNNER.invoke(app, ["compare", "--help"], env={"COLUMNS": "200"}).output
    assert all(name in help_text for name in MODELS)


@pytest.mark.usefixtures("no_figures")
def test_compare_prints_a_table_and_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(folder: Path, data: Dataset, **settings: object) -> Comparison:
        return compare(folder, few(), suite=TINY[:2], effort=0.1, progress=False)

    monkeypatch.setattr(training, "compare", small)
    result = RUNNER.invoke(app, ["compare", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for name in ("per-pixel histogram", "autoencoder", "VAE", "report.md", "report.json"):
        assert name in result.output
    assert max(map(len, result.output.split("wrote")[0].splitlines())) <= 80


@pytest.mark.usefixtures("no_figures")
def test_file_errors_are_one_line_and_keep_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in place of the folder or above it, torn files, a full disk."""

    def small(folder: Path, data: Dataset, **settings: object) -> Comparison:
        return compare(folder, few(), suite=TINY[:1], effort=0.1, progress=False)

    def refused(folder: Path) -> str:
        result = RUNNER.invoke(app, ["compare", "--out", str(folder)])
        assert result.exit_code == 2, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.stderr.startswith("got ")
        assert result.stderr.count("\n") == 1
        return result.stderr

    monkeypatch.setattr(training, "compare", small)
    file = tmp_path / "file"
    file.touch()
    assert f"got the file {file}; expected a folder" in refused(file)
    assert "expected a folder" in refused(file / "below")
    kept = tmp_path / "kept"
    assert RUNNER.invoke(app, ["compare", "--out", str(kept)]).exit_code == 0
    for torn in ("models/autoencoder.safetensors", "records/autoencoder.json", "run.json"):
        content = (kept / torn).read_bytes()
        (kept / torn).write_bytes(content[:50])
        assert torn in refused(kept)
        (kept / torn).write_bytes(content)
    assert RUNNER.invoke(app, ["compare", "--out", str(kept)]).exit_code == 0
    before = (kept / "report.md").read_text()

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "No space left on device" in refused(kept)
    assert (kept / "report.md").read_text() == before


def test_ctrl_c_prints_how_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, data: Dataset, **settings: object) -> Comparison:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "compare", interrupted)
    result = RUNNER.invoke(app, ["compare", "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert "the same command continues" in result.output


def test_there_is_a_job_for_every_core_and_at_least_two(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for cores in (None, 1, 2, 8):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        RUNNER.invoke(app, ["compare"])
    assert [each["jobs"] for each in asked] == [2, 2, 2, 8]
