"""Every example runs to its end, stamps its numbers, and writes the figures it names."""

from __future__ import annotations

import os
import re
import runpy
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest

import genmod.data
from genmod.data import Dataset
from genmod.data.downloads import ROOT
from genmod.data.images import digits, mnist

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
BESIDE = Path(__file__).parents[2] / "shared" / "data"
"""Beside the repository: where its developers keep MNIST."""
ROWS = {"train": 100, "validation": 8, "test": 8}
"""Digits that an example is run on: more to train on than pixels, for the Gaussian baseline."""
LARGE = ROWS | {"train": 800}
"""The same for MNIST."""
LOOKED_AT = {"test": 65}
"""The fewest that a Fréchet distance takes."""

LEFT_OUT = {"instability", "video"}
"""Without MNIST."""
JUDGED = ("samplers", "objectives", "schedules", "predictions")
"""By how many samples their looks are judged is an option."""
SLOW = {"objectives", "schedules", "predictions", "prompted"}
"""Of several seconds: the first three train and judge several models as ``samplers`` does one."""
SLOW_ON_MNIST = {
    *SLOW, "samplers", "compare", "depth", "inverse", "tsweep", "hvae", "latent_diffusion",
}  # fmt: skip
FEWER = {
    "depth": ["--most", "4"],
    "instability": ["--seeds", "2"],
    "inverse": ["--draws", "2"],
    "latents": ["--replicates", "39"],
    **{name: ["--samples", "65"] for name in JUDGED},
}
"""Options that make an example short."""


def marked(slow: set[str], left_out: set[str] | None = None) -> pytest.MarkDecorator:
    """The examples, some of them as slow tests."""
    paths = [path for path in EXAMPLES if path.stem not in (left_out or set())]
    marks = {True: [pytest.mark.slow], False: []}
    cases = [pytest.param(path, marks=marks[path.stem in slow], id=path.stem) for path in paths]
    return pytest.mark.parametrize("path", cases)


def test_there_is_an_example_for_every_family() -> None:
    names = {path.stem for path in EXAMPLES}
    families = {"autoencoder", "vae", "hvae", "diffusion", "latent_diffusion", "prompted", "video"}
    experiments = {"compare", "depth", "instability", "schedules", "objectives", "predictions"}
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
@marked(SLOW)
def test_an_example_runs(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two steps of training, on some of the digits."""
    data = few(digits(), ROWS | LOOKED_AT if path.stem in JUDGED else ROWS)
    monkeypatch.setattr(genmod.data, "load", lambda name: data)
    run(path, tmp_path, ["--steps", "2", *FEWER.get(path.stem, [])], monkeypatch, capsys)


@pytest.fixture(scope="module")
def whole() -> Dataset:
    """The real MNIST."""
    root = Path(os.environ.get(ROOT) or BESIDE)
    try:
        return mnist(root, download=False)
    except ValueError as error:
        pytest.skip(str(error))


def few(data: Dataset, rows: Mapping[str, int]) -> Dataset:
    """The first images of each part."""
    parts = {split: data.parts()[split][:count] for split, count in rows.items()}
    assert data.labels is not None
    labels = {split: data.labels[split][:count] for split, count in rows.items()}
    train, validation, test = (parts[split] for split in ("train", "validation", "test"))
    return replace(data, train=train, validation=validation, test=test, labels=labels)


@pytest.mark.data
@pytest.mark.usefixtures("as_users_run")
@marked(SLOW_ON_MNIST, LEFT_OUT)
def test_an_example_runs_on_mnist(
    path: Path,
    whole: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One step of training, so that convolutions, U-Net and latents with places are gone through."""
    data = few(whole, LARGE | LOOKED_AT if path.stem in JUDGED else LARGE)
    monkeypatch.setattr(genmod.data, "load", lambda name: data)
    options = ["--data", "mnist", "--steps", "1", *FEWER.get(path.stem, [])]
    run(path, tmp_path, options, monkeypatch, capsys)


@marked(set())
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= (130 if path.stem == "instability" else 100)
