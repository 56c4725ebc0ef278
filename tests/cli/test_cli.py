"""The command: answers at once, says what it did, fails with a sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genmod.cli.app import app
from genmod.version import __version__

RUNNER = CliRunner()


def test_help_never_loads_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from genmod.cli.app import app\n"
        "result = CliRunner().invoke(app, ['compare', '--help'])\n"
        "assert result.exit_code == 0 and 'effort' in result.output, result.output\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_version() -> None:
    assert RUNNER.invoke(app, ["--version"]).output.strip() == __version__


def test_a_bad_setting_is_said_in_a_sentence(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["compare", "--out", str(tmp_path), "--effort", "0"])
    assert result.exit_code == 2
    assert "effort" in result.output
    assert "Traceback" not in result.output


def test_compare_prints_a_table_and_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genmod.cli import comparing
    from genmod.compare import FAMILY, Comparison, compare
    from genmod.evaluation import Report
    from tests.compare.test_compare import cut

    def quick(
        out: Path, *, seed: int, effort: float, progress: bool, said: Callable[[Report], None]
    ) -> Comparison:
        assert (seed, effort, progress) == (0, 0.001, False)
        return compare(out, cut(), family=FAMILY[:2], effort=effort, progress=progress, said=said)

    monkeypatch.setattr(comparing, "compare", quick)
    result = RUNNER.invoke(
        app, ["compare", "--out", str(tmp_path), "--effort", "0.001", "--no-progress"]
    )
    assert result.exit_code == 0, result.output
    for name in ("per-pixel histogram", "autoencoder", "VAE", "report.md", "samples.png"):
        assert name in result.output
