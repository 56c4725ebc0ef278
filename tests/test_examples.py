"""Every example runs to its end, says what its numbers are, and leaves the figures it names."""

from __future__ import annotations

import os
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest

import genmod.data
from genmod.data import Dataset, mnist
from genmod.data.downloads import ROOT

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
BESIDE = Path(__file__).parents[2] / "shared" / "data"
"""Beside the repository: where its developers keep MNIST."""
ROWS = {"train": 800, "validation": 8, "test": 8}
"""Images of MNIST that an example is run on: more to train on than pixels, for the Gaussian baseline."""

LEFT_OUT = {
    *("instability", "video", "samplers", "inverse", "prompted"),
    *("objectives", "schedules", "predictions"),
}
"""Without MNIST, or with Fréchet distances, which take more images than this, or of a minute and more."""
JUDGED = ("samplers", "objectives", "schedules", "predictions")
"""By how many samples their looks are judged is an option."""
ON_MNIST = [path for path in EXAMPLES if path.stem not in LEFT_OUT]

every_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def test_there_is_an_example_for_every_family() -> None:
    names = {path.stem for path in EXAMPLES}
    families = {"autoencoder", "vae", "hvae", "diffusion", "latent_diffusion", "prompted", "video"}
    experiments = {"compare", "instability", "schedules", "objectives", "predictions"}
    assert families | experiments | {"samplers", "tsweep", "inverse"} <= names


def run(
    path: Path,
    folder: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An example in a folder of its own; each figure is where the script's header says, not blank."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [path.name, *options])
    header = runpy.run_path(str(path), run_name="__main__")["__doc__"]
    printed = capsys.readouterr().out
    figures = re.findall(r"runs/\S+\.png", header)
    assert figures, "the header of an example says where its figure is"
    for figure in figures:
        assert figure in printed
        picture = matplotlib.image.imread(folder / figure)
        assert picture.std() > 0
    assert "nats" in printed
    assert re.search(r"\b(exact|bound|estimate|none)\b", printed), "a number without a stamp"


@pytest.mark.usefixtures("as_users_run")
@every_example
def test_an_example_runs(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two steps of training, on the digits."""
    fewer = {"instability": ["--seeds", "2"]} | {key: ["--samples", "65"] for key in JUDGED}
    run(path, tmp_path, ["--steps", "2", *fewer.get(path.stem, [])], monkeypatch, capsys)


@pytest.fixture(scope="module")
def few() -> Dataset:
    """A few images of the real MNIST."""
    root = Path(os.environ.get(ROOT) or BESIDE)
    try:
        data = mnist(root, download=False)
    except ValueError as error:
        pytest.skip(str(error))
    parts = {split: data.parts()[split][:count] for split, count in ROWS.items()}
    assert data.labels is not None
    labels = {split: data.labels[split][:count] for split, count in ROWS.items()}
    train, validation, test = (parts[split] for split in ("train", "validation", "test"))
    return replace(data, train=train, validation=validation, test=test, labels=labels)


@pytest.mark.data
@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("path", ON_MNIST, ids=lambda path: path.stem)
def test_an_example_runs_on_mnist(
    path: Path,
    few: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One step of training, so that convolutions, U-Net and latents with places are gone through."""
    monkeypatch.setattr(genmod.data, "mnist", lambda: few)
    run(path, tmp_path, ["--data", "mnist", "--steps", "1"], monkeypatch, capsys)


@every_example
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= (130 if path.stem == "instability" else 100)
