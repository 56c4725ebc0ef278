"""Figures of a run: colors stay colors, tables are drawn column by column, rows keep their labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from torch import Tensor

from genmod import VAE, Autoencoder, Diffusion
from genmod.data import Dataset, conditional, load
from genmod.model import LatentModel
from genmod.nn import Labels
from genmod.runs import figures
from genmod.runs.figures import draw_samples
from genmod.spec import Column


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be written."""
    found: list[Figure] = []
    monkeypatch.setattr(figures, "save_figure", lambda made, path: found.append(made))
    return found


def rows(train: Tensor, validation: Tensor, bins: int | None = None) -> Dataset:
    """A data set without a test part, its training rows labelled 0, the others 1."""
    labels = {
        "train": torch.zeros(len(train), dtype=torch.long),
        "validation": torch.ones(len(validation), dtype=torch.long),
        "test": torch.zeros(0, dtype=torch.long),
    }
    return Dataset("rows", train, validation, train[:0], bins, labels)


def test_rgb_images_are_drawn_in_their_colors(drawn: list[Figure], tmp_path: Path) -> None:
    """Red images: the first row of the figure is red in every pixel of an image."""
    red = torch.zeros(20, 3, 8, 8, dtype=torch.long)
    red[:, 0] = 15
    data = rows(red, red[:0], 16)
    assert draw_samples(tmp_path / "x.png", VAE(data, latents=2, width=8), data, "VAE")
    picture = np.asarray(drawn[0].axes[0].images[0].get_array())
    assert picture.shape == (10, 12 * 9 + 1, 3)
    assert (picture[1:9, 1:9] == [1.0, 0.0, 0.0]).all()
    assert (picture[0] == 1.0).all(), "the lines between images are white"


@pytest.fixture
def table(tmp_path: Path) -> Dataset:
    """A table with real columns, a count, a category, and holes."""
    generator = np.random.default_rng(0)
    lines = ["height,visits,color,weight"]
    for _ in range(120):
        height = "" if generator.random() < 0.1 else f"{generator.normal(170, 8):.4f}"
        color, weight = generator.choice(["red", "green"]), generator.normal(70, 9)
        lines.append(f"{height},{generator.poisson(3)},{color},{weight:.4f}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return load(path, kinds={"visits": "count"})


def test_a_table_is_drawn_column_by_column(
    table: Dataset, drawn: list[Figure], tmp_path: Path
) -> None:
    """The shares of the data add up to one in each column; missing entries do not count."""
    columns = table.spec.columns
    assert columns is not None
    assert isinstance(columns[0], Column)
    assert draw_samples(tmp_path / "x.png", VAE(table, latents=2, width=8), table, "VAE")
    axes = drawn[0].axes
    assert [each.get_xlabel() for each in axes] == [column.name for column in columns]
    assert {text.get_text() for text in axes[2].get_xticklabels()} == {"red", "green"}
    for each in axes:
        outline = each.patches[0]
        assert isinstance(outline, StepPatch)
        assert outline.get_data()[0].sum() == pytest.approx(1.0)
    shown = table.train[table.observed["train"][:, 0], 0] if table.observed else table.train[:, 0]
    assert axes[0].get_xlim()[0] < float(shown.min()) < float(shown.max()) < axes[0].get_xlim()[1]
    assert float(shown.min()) > 100, "a missing height would be drawn at 0"


@pytest.mark.parametrize("bins", [None, 5])
def test_vectors_are_drawn_like_tables(
    bins: int | None, drawn: list[Figure], tmp_path: Path
) -> None:
    x = torch.randn(40, 3) if bins is None else torch.randint(0, bins, (40, 3))
    data = rows(x, x[:0], bins)
    for model in (VAE(data, latents=2, width=8), Autoencoder(data, latents=2, width=8)):
        assert draw_samples(tmp_path / "x.png", model, data, "model")
    assert [len(made.axes) for made in drawn] == [3, 3]
    names = [text.get_text() for made in drawn for text in made.axes[0].get_legend().texts]  # type: ignore[union-attr]
    assert names == ["data", "samples", "data", "reconstructions"]


def test_a_small_validation_part_does_not_lend_its_labels(
    drawn: list[Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and labels come from the same part."""
    data = conditional(rows(torch.randn(600, 2), torch.randn(5, 2)))
    model = Diffusion(data, condition=Labels(2), width=8)
    seen: list[Tensor] = []

    def sample(n: int, context: Tensor, **settings: object) -> Tensor:
        seen.append(context)
        return torch.zeros(n, 2)

    monkeypatch.setattr(model, "sample", sample)
    assert draw_samples(tmp_path / "x.png", model, data, "diffusion")
    assert len(seen[0]) == 500
    assert not seen[0].any()


def test_other_events_have_no_figure(tmp_path: Path) -> None:
    x = torch.randn(20, 2, 3)
    data = replace(rows(x, x[:0]), labels=None)
    model: LatentModel = VAE(data, latents=2, width=8)
    assert not draw_samples(tmp_path / "x.png", model, data, "VAE")
    assert not list(tmp_path.iterdir())
