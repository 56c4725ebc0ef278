"""The command: answers at once, says what it did, fails with a sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genmod.cli import comparing
from genmod.cli.app import app
from genmod.cli.choices import Data
from genmod.compare import Comparison, compare
from genmod.data import Dataset
from genmod.evaluation import Report
from genmod.version import __version__
from tests.compare.cases import TINY, few
from tests.compare.cases import no_figures as no_figures

RUNNER = CliRunner()


def test_help_never_loads_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from genmod.cli.app import app\n"
        "result = CliRunner().invoke(app, ['compare', '--help'])\n"
        "assert result.exit_code == 0 and 'effort' in result.output, result.output\n"
        "assert 'fashion' in result.output\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_version() -> None:
    assert RUNNER.invoke(app, ["--version"]).output.strip() == __version__


def test_a_bad_setting_is_said_in_a_sentence(tmp_path: Path) -> None:
    for option, value in (("--effort", "0"), ("--minutes", "0"), ("--jobs", "0")):
        result = RUNNER.invoke(app, ["compare", "--out", str(tmp_path), option, value])
        assert result.exit_code == 2
        assert option[2:] in result.output
        assert "Traceback" not in result.output


def test_data_that_are_not_there_are_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(root: Path | None, seed: int) -> Dataset:
        raise ValueError(f"got no files in {root}")

    monkeypatch.setattr(comparing, "mnist", missing)
    asked = ["compare", "--data", "mnist", "--root", str(tmp_path), "--out", str(tmp_path)]
    result = RUNNER.invoke(app, asked)
    assert result.exit_code == 2
    assert "got no files in" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("data", list(Data))
@pytest.mark.parametrize("binarize", [False, True])
def test_the_data_asked_for_are_the_data_compared(
    data: Data, binarize: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name; with the seed of the run, at the root that was named, as bits if wanted."""
    asked: dict[str, tuple[Path | None, int]] = {}

    def source(name: str) -> None:
        def load(root: Path | None, seed: int) -> Dataset:
            asked[name] = root, seed
            return few()

        monkeypatch.setattr(comparing, name, load)

    for name in ("mnist", "fashion_mnist"):
        source(name)
    monkeypatch.setattr(
        comparing, "digits", lambda seed: asked.update(digits=(None, seed)) or few()
    )
    got: list[Dataset] = []

    def quick(folder: Path, found: Dataset, **settings: object) -> Comparison:
        got.append(found)
        raise ValueError("enough")

    monkeypatch.setattr(comparing, "compare", quick)
    options = ["--binarize"] if binarize else []
    command = ["compare", "--data", data.value, "--root", str(tmp_path), "--seed", "4", *options]
    assert RUNNER.invoke(app, command).exit_code == 2
    root = None if data is Data.DIGITS else tmp_path
    assert asked == {data.value.replace("-", "_"): (root, 4)}
    assert got[0].name == ("binarized few digits" if binarize else "few digits")


@pytest.mark.usefixtures("no_figures")
def test_compare_prints_a_table_and_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(
        folder: Path,
        data: Dataset,
        *,
        models: Sequence[str] | None,
        seed: int,
        effort: float,
        minutes: float | None,
        jobs: int,
        fresh: bool,
        progress: bool,
        said: Callable[[Report], None],
    ) -> Comparison:
        assert (models, seed, effort, minutes) == (["autoencoder", "VAE"], 0, 0.5, 2.5)
        assert jobs == 1
        assert fresh
        assert not progress
        return compare(
            folder, few(), family=TINY, models=models, effort=0.1, progress=False, said=said
        )

    monkeypatch.setattr(comparing, "compare", quick)
    command = (
        f"compare --out {tmp_path} --effort 0.5 --minutes 2.5 --jobs 1 --fresh --no-progress "
        "--models autoencoder --models VAE"
    )
    result = RUNNER.invoke(app, command.split())
    assert result.exit_code == 0, result.output
    for name in ("per-pixel histogram", "autoencoder", "VAE", "report.md", "report.json"):
        assert name in result.output
    assert "latent diffusion" not in result.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--data digits", None),
        ("--data mnist", 7.0),
        ("--data fashion-mnist", 7.0),
        ("--data mnist --minutes 0.5", 0.5),
    ],
)
def test_images_have_a_budget_unless_one_is_named(
    options: str, expected: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their families would else take hours on a slow machine."""
    asked: list[object] = []

    def stop(folder: Path, data: Dataset, **settings: object) -> Comparison:
        asked.append(settings["minutes"])
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "load", lambda request: few())
    monkeypatch.setattr(comparing, "compare", stop)
    RUNNER.invoke(app, f"compare --out {tmp_path} {options}".split())
    assert asked == [expected]


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, data: Dataset, **settings: object) -> Comparison:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "compare", interrupted)
    result = RUNNER.invoke(app, ["compare", "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert "the same command goes on" in result.output


def test_there_is_a_job_for_every_core_and_at_least_two(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def quick(folder: Path, data: Dataset, **settings: object) -> Comparison:
        asked.append(settings["jobs"])
        raise ValueError("enough")

    monkeypatch.setattr(comparing, "compare", quick)
    for cores in (None, 1, 2, 8):
        monkeypatch.setattr(comparing.os, "cpu_count", lambda cores=cores: cores)
        RUNNER.invoke(app, ["compare"])
    assert asked == [2, 2, 2, 8]
