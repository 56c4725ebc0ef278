"""What all figures share: one quiet style, no global state, files written at once."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#3b6fb6", "#d1495b", "#2a9d8f", "#e09f3e", "#7b5ea7", "#5c677d")
"""One color a series, told apart in gray as well."""
INK = "#22272e"


def figure(width: float, height: float) -> Figure:
    """An empty figure, inches; constrained, so that labels never overlap."""
    made = Figure(figsize=(width, height), layout="constrained", dpi=150)
    FigureCanvasAgg(made)
    return made


def quiet(axes: Axes) -> Axes:
    """Only the two axes that carry numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    return axes


def save(made: Figure, path: Path) -> Path:
    """Write a figure; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path)
    return path
