"""Latent spaces, seen along the two directions in which codes vary most."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from genmod.plots.style import INK, figure, quiet


def principal(codes: Tensor) -> Tensor:
    """The first two principal components of codes ``(N, d)``, in the codes' own units, ``(N, 2)``."""
    flat = codes.flatten(1).double()
    centered = flat - flat.mean(0)
    _, _, directions = torch.linalg.svd(centered, full_matrices=False)
    seen = centered @ directions[:2].T
    return torch.nn.functional.pad(seen, (0, 2 - seen.shape[1]))


def latent_spaces(codes: Mapping[str, Tensor], labels: Tensor) -> Figure:
    """A scatter of codes for each model, colored by label; a circle marks two standard deviations.

    Args:
        codes: codes ``(N, d)`` by title.
        labels: one whole number a row, ``(N,)``.
    """
    made = figure(3.7 * len(codes) + 0.6, 3.7)
    wheel = colormaps["tab10"]
    last = None
    for index, (title, points) in enumerate(codes.items()):
        axes = quiet(made.add_subplot(1, len(codes), index + 1))
        seen = principal(points)
        last = axes.scatter(
            seen[:, 0], seen[:, 1], c=labels, cmap=wheel, s=7, vmin=-0.5, vmax=9.5, linewidths=0
        )
        turn = torch.linspace(0, 2 * torch.pi, 200)
        axes.plot(2 * turn.cos(), 2 * turn.sin(), color=INK, lw=0.8, ls=":")
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(title, fontsize=9, color=INK)
    if last is not None:
        bar = made.colorbar(last, ax=made.axes, ticks=range(10), shrink=0.8)
        bar.ax.tick_params(labelsize=8)
    return made
