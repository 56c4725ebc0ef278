"""The suite for images, end to end at next to no effort: every model, every figure, every term."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from genmod.compare import compare
from genmod.compare.figures import FIGURES
from genmod.compare.suites import IMAGES, suite_for
from genmod.data import Dataset, binarized
from genmod.data.rows import dataset
from tests.compare.test_compare import totals

ROWS = 960
"""Some more than an image has pixels, as the Gaussian baseline wants."""


def strokes() -> Dataset:
    """Gray strokes on an empty ground, upright or flat: two labels. Of 64 values, whose means are quick."""
    along, across = torch.randint(4, 24, (2, ROWS))
    places = torch.arange(28.0)
    line = (-((places - across[:, None]) / 1.5).square()).exp()
    length = ((places - along[:, None]).abs() < 9).float()
    images = 63 * line[:, :, None] * length[:, None, :]
    flat = torch.arange(ROWS) % 2
    images = torch.where(flat[:, None, None] == 1, images, images.mT)
    x = (images * (0.5 + 0.5 * torch.rand(ROWS, 1, 1))).round().long()
    return dataset(x[:, None], name="strokes", bins=64, labels=flat, validation=0.02, test=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gray", "bits"])
def test_the_suite_for_images_is_compared_from_end_to_end(tmp_path: Path, kind: str) -> None:
    """All candidates and figures are there, values are sums of terms, and bits know their entropy."""
    data = strokes() if kind == "gray" else binarized(strokes())
    assert suite_for(data) is IMAGES
    candidates = [
        replace(candidate, importance_samples=min(candidate.importance_samples, 2))
        for candidate in IMAGES
    ]
    made = compare(tmp_path, data, suite=candidates, effort=5e-4, progress=False)
    assert [report.name for report in made.reports[2:]] == [candidate.name for candidate in IMAGES]
    assert all(report.samples == len(data.test) for report in made.reports)
    expected = {f"{name}.png" for name, _ in FIGURES.values()}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == expected
    assert all(file.stat().st_size > 1000 for file in made.files)
    content = json.loads((tmp_path / "report.json").read_text())
    totals(content)
    page = (tmp_path / "report.md").read_text()
    assert all(f"## {title}" in page for title in FIGURES)
    floors = {written["entropy_floor"] for written in content["models"]}
    assert floors == {data.entropy_floor}
    assert ("| entropy, nats |" in page) == (kind == "bits")
    if kind == "bits":
        assert data.entropy_floor is not None
        assert page.count(f"| {data.entropy_floor:.2f} |") == len(made.reports)
        for report in made.reports:
            assert report.structural is None or report.structural.mean > 0
