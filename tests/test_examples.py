"""Every example runs to its end, says what its numbers are, and leaves the figures it names."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import matplotlib.image
import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_there_is_an_example_for_every_family() -> None:
    names = {path.stem for path in EXAMPLES}
    assert {"autoencoder", "vae", "hvae", "diffusion", "latent_diffusion", "compare"} <= names


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three steps of training; each figure is where the script's header says, and is not blank."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [path.name, "--steps", "3"])
    header = runpy.run_path(str(path), run_name="__main__")["__doc__"]
    printed = capsys.readouterr().out
    figures = re.findall(r"runs/\S+\.png", header)
    assert figures, "the header of an example says where its figure is"
    for figure in figures:
        assert figure in printed
        picture = matplotlib.image.imread(tmp_path / figure)
        assert picture.std() > 0
    assert "nats" in printed
    assert re.search(r"\b(exact|bound|estimate|none)\b", printed), "a number without a stamp"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 80
