"""Pictures: grids of samples, and inputs beside their reconstructions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import require
from genmod.plots.style import INK, figure


def grid(images: Tensor, columns: int) -> Tensor:
    """Images ``(N, 1, H, W)`` as one picture, row by row, with a pixel between them.

    >>> grid(torch.ones(4, 1, 8, 8), columns=2).shape
    torch.Size([19, 19])
    """
    require(
        images.ndim == 4 and images.shape[1] == 1,
        f"images of shape {tuple(images.shape)}",
        "(N, 1, H, W)",
        "draw vectors with plots.latent_spaces, or reshape them",
    )
    count, _, height, width = images.shape
    rows = -(-count // columns)
    canvas = torch.full((rows * (height + 1) + 1, columns * (width + 1) + 1), torch.nan)
    for index, image in enumerate(images[:, 0].double()):
        top, left = (index // columns) * (height + 1) + 1, (index % columns) * (width + 1) + 1
        canvas[top : top + height, left : left + width] = image
    return canvas


def samples(pictures: Mapping[str, Tensor], highest: float, columns: int = 6) -> Figure:
    """A grid of images for each name, side by side.

    Args:
        pictures: images ``(N, 1, H, W)`` by title; a title may have several lines.
        highest: the value drawn black; 0 is drawn white.
        columns: images a row of each grid.
    """
    across = min(4, len(pictures))
    down = -(-len(pictures) // across)
    made = figure(2.6 * across, 2.9 * down)
    for index, (title, images) in enumerate(pictures.items()):
        axes = made.add_subplot(down, across, index + 1)
        draw(axes, grid(images, columns), highest)
        axes.set_title(title, fontsize=9, color=INK)
    return made


def reconstructions(originals: Tensor, pictures: Mapping[str, Tensor], highest: float) -> Figure:
    """A row of inputs, and under it a row for each model.

    Args:
        originals: images ``(N, 1, H, W)``.
        pictures: what each model makes of them, by name.
        highest: the value drawn black.
    """
    rows = {"input": originals, **pictures}
    made = figure(0.55 * len(originals) + 1.6, 0.6 * len(rows) + 0.2)
    for index, (name, images) in enumerate(rows.items()):
        axes = made.add_subplot(len(rows), 1, index + 1)
        draw(axes, grid(images, len(images)), highest)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, color=INK)
    return made


def draw(axes: Axes, picture: Tensor, highest: float) -> None:
    """A picture without axes, ink on white."""
    axes.imshow(picture.numpy(), cmap="gray_r", vmin=0, vmax=highest, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
