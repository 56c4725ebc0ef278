"""Figures show the numbers they are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from genmod import plots
from genmod.plots.images import grid
from genmod.plots.latents import principal


def drawn(figure: Figure, tmp_path: Path) -> Path:
    file = plots.save(figure, tmp_path / "made" / "figure.png")
    assert file.stat().st_size > 1000
    return file


def test_a_grid_holds_every_image_in_reading_order() -> None:
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 2, 3)
    picture = grid(images, columns=2)
    assert picture.shape == (10, 9)
    corners = picture[1::3, 1::4]
    assert torch.equal(corners.flatten(), torch.arange(6.0).double().to(corners.dtype))
    assert picture[0].isnan().all()


def test_samples_and_reconstructions(tmp_path: Path) -> None:
    images = torch.rand(12, 1, 8, 8)
    figure = plots.samples({"data": images, "model\nof noise": images}, 1.0)
    assert [axes.get_title() for axes in figure.axes] == ["data", "model\nof noise"]
    drawn(figure, tmp_path)
    rows = plots.reconstructions(images, {"a": images, "b": images}, 1.0)
    assert [axes.get_ylabel() for axes in rows.axes] == ["input", "a", "b"]
    drawn(rows, tmp_path)


def test_only_gray_images_make_a_grid() -> None:
    with pytest.raises(ValueError, match="expected"):
        grid(torch.rand(4, 3, 8, 8), 2)


def test_principal_directions_are_those_of_most_variance() -> None:
    torch.manual_seed(0)
    codes = torch.randn(500, 4, dtype=torch.float64) * torch.tensor([1.0, 5.0, 3.0, 0.1])
    seen = principal(codes)
    spread = torch.linalg.eigvalsh(codes.T.cov()).flip(0)
    torch.testing.assert_close(seen.var(0), spread[:2])


def test_one_dimensional_codes_can_be_drawn() -> None:
    assert principal(torch.randn(5, 1)).shape == (5, 2)


def test_a_latent_space_has_a_point_a_code(tmp_path: Path) -> None:
    codes = torch.randn(30, 4)
    figure = plots.latent_spaces({"one": codes, "two": codes}, torch.arange(30) % 10)
    points = [c for axes in figure.axes for c in axes.collections if isinstance(c, PathCollection)]
    assert [np.shape(c.get_offsets()) for c in points] == [(30, 2), (30, 2)]
    drawn(figure, tmp_path)


def test_levels_are_as_long_as_their_nats(tmp_path: Path) -> None:
    """A negative rate, a sampled log-ratio, lies left of zero."""
    figure = plots.level_rates(
        {"flat": {"prior": (3.0, 0.1)}, "deep": {"z1": (-1.0, 0.1), "z2": (2.0, 0.2)}}
    )
    bars = [
        (bar.get_x(), bar.get_width())
        for bar in figure.axes[0].patches
        if isinstance(bar, Rectangle)
    ]
    assert bars == [(0.0, 3.0), (-1.0, 1.0), (0.0, 2.0)]
    drawn(figure, tmp_path)


def test_a_profile_integrates_to_the_nats_it_shows(tmp_path: Path) -> None:
    log_snr, nats = torch.linspace(4, -6, 50), torch.rand(50)
    figure = plots.step_profile({"model": (torch.linspace(0, 1, 50), log_snr, nats)})
    line = figure.axes[0].lines[0]
    density = torch.as_tensor(line.get_ydata())
    torch.testing.assert_close((density * (log_snr[:-1] - log_snr[1:])).sum(), nats[1:].sum())
    drawn(figure, tmp_path)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="no profiles"):
        plots.step_profile({})
    with pytest.raises(ValueError, match="no models"):
        plots.level_rates({})
