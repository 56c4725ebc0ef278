"""Figures of latents and of predictive checks show the numbers they are given, and their labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection

from genmod import plots
from genmod.evaluation import latent_map, predictive_check, traverse
from genmod.models import VAE
from genmod.plots.style import COLORS


def test_a_traversal_is_labeled_with_units_nats_and_values() -> None:
    """Of images a strip for each unit; of vectors a heat map of the changes, one scale for all."""
    torch.manual_seed(0)
    pictures = traverse(VAE((1, 8, 8), 17, latents=2, width=8), torch.randint(17, (9, 1, 8, 8)))
    figure = plots.traversal(pictures)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        label.replace(", ", "\n") for label in pictures.labels
    ]
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks == [f"{value:.1f}" for value in pictures.values[0].tolist()]
    found = traverse(VAE(3, latents=2, width=8), torch.randn(9, 3), count=5)
    figure = plots.traversal(found, title="A table")
    assert found.changes is not None
    for place, axes in enumerate(figure.axes[:2]):
        shown = torch.as_tensor(np.asarray(axes.images[0].get_array()))
        torch.testing.assert_close(shown, found.changes[place].T)
        assert axes.get_title() == found.labels[place].replace(", ", "\n")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["x0", "x1", "x2"]


def test_a_map_has_its_points_its_shares_and_its_colors() -> None:
    torch.manual_seed(0)
    model, x = VAE(3, latents=4, width=8), torch.randn(30, 3)
    classes = latent_map(model, x, color=["b", "a", "c"] * 10)
    numbers = latent_map(model, x, color=[math.nan, *range(29)])
    figure = plots.latent_spaces(
        {"classes": classes, "numbers": numbers, "none": latent_map(model, x)}
    )
    first, second, third = (axes for axes in figure.axes if axes.get_title())
    assert (first.get_xlabel(), first.get_ylabel()) == classes.labels
    legend = first.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    counts = [
        sum(
            np.shape(each.get_offsets())[0]
            for each in axes.collections
            if isinstance(each, PathCollection)
        )
        for axes in (first, second, third)
    ]
    assert counts == [30, 30, 30]
    route = plots.Route(torch.randn(3, 4), torch.rand(3, 1, 8, 8))
    drawn = plots.latent_spaces({"way": classes}, routes={"way": route})
    along = torch.as_tensor(np.stack(drawn.axes[0].lines[-1].get_data(), 1))
    expected = route.codes.double() @ classes.directions
    torch.testing.assert_close(along.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_check_shows_the_data_among_the_replicates() -> None:
    """The least likely first; red where it is a misfit."""
    torch.manual_seed(0)
    found = predictive_check(VAE(2, latents=1, width=8), 5 + torch.randn(40, 2), replicates=39)
    figure = plots.predictive_check(found)
    order = found.order()
    for place, axes in zip(order, figure.axes, strict=False):
        at = float(np.asarray(axes.lines[0].get_xdata())[0])
        assert at == pytest.approx(float(found.observed[place]))
        red = axes.lines[0].get_color() == COLORS[1]
        assert red == (found.names[place] in found.misfits)
    assert any(axes.lines[0].get_color() == COLORS[1] for axes in figure.axes)
