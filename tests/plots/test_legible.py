"""Texts of figures stand apart from each other, and from the lines that they would hide."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from genmod import plots


def boxes(figure: Figure, texts: Sequence[Text]) -> list[Bbox]:
    """Where texts stand, in pixels."""
    figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts]


@pytest.mark.parametrize("mean", [0.3, 0.97, 1.6])
def test_no_number_of_a_bar_crosses_the_line_of_the_data(mean: float) -> None:
    bars = {"VAE": {"samples": (mean, 0.1), "reconstructions": (0.7, 0.1)}}
    figure = plots.sharpness(bars)
    axes = figure.axes[0]
    found = boxes(figure, [text for text in axes.texts if "samples" in text.get_text()])
    assert all(box.x0 > axes.transData.transform((max(1.0, mean + 0.1), 0))[0] for box in found)
    assert all(box.x1 <= axes.get_window_extent().x1 for box in found)


def test_the_names_of_a_latent_space_do_not_touch() -> None:
    """Those of classes, whose medians coincide, and the two ends of a path through them."""
    torch.manual_seed(0)
    labels = torch.arange(400) % 4
    codes = torch.randn(400, 2)
    codes[labels == 3] += torch.tensor([1.75, 0.0])  # around the end of the path
    route = plots.Route(torch.tensor([[-1.5, 0.0], [0.0, 0.0], [1.5, 0.0]]), torch.rand(3, 1, 8, 8))
    figure = plots.latent_spaces({"VAE": codes}, labels, {"VAE": route})
    found = boxes(figure, [text for text in figure.axes[0].texts if len(text.get_text()) == 1])
    assert len(found) == 6
    for index, box in enumerate(found):
        assert not any(box.overlaps(other) for other in found[:index])
    path = figure.axes[0].transData.transform([(x / 10, 0.0) for x in range(-15, 16)])
    assert not any(box.contains(x, y) for box in found for x, y in path)
