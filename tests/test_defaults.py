"""One-line models work as they come: ``benchmarks/defaults.py``, in small, and on the digits."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from genmod.data.images import digits

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = pytest.mark.usefixtures("as_users_run")


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark, imported as running it does: with its own folder on the path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("defaults")
    for name in ("defaults", "common"):
        sys.modules.pop(name, None)


def test_a_model_that_has_not_learned_fails_by_name(
    defaults: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "defaults.json"
    with pytest.raises(SystemExit, match=r"not above the histogram by 3.0 errors: VAE on digits"):
        defaults.main(["--only", "VAE", "--steps", "1", "--rows", "20", "--out", str(out)])
    assert "bits/dim" in capsys.readouterr().out
    lines = json.loads(out.read_text(encoding="utf-8"))["lines"]
    assert [line["model"] for line in lines] == ["VAE"]
    assert all(line["histogram"] < line["bits"] and line["z"] < 0 for line in lines)


def test_every_free_schedule_and_every_cut_table_has_a_line(defaults: ModuleType) -> None:
    names = [name for name, _ in defaults.models(digits())]
    for steps in ("T = 100", "continuous"):
        assert all(f"Diffusion, {label}, {steps}" in names for label in defaults.FREE)
    assert all(f"Diffusion, {label} cut, T = 100" in names for label in defaults.TABLES)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["VAE", "LatentDiffusion", "LinearLogSNR", "Laplace"])
def test_one_line_models_beat_the_histogram_on_the_digits(defaults: ModuleType, model: str) -> None:
    """By 3 paired standard errors after 1,000 steps. Laplace was the worst schedule measured."""
    defaults.main(["--only", model])
