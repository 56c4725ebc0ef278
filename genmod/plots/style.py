"""The style of all figures: colors, sizes, plain axes; no global state.

Sizes are for a lecture hall: a figure is about 10 inches wide, and no text is smaller than 9 points.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = ("#3b6fb6", "#d1495b", "#2a9d8f", "#e09f3e", "#7b5ea7", "#5c677d", "#9c6644", "#4f772d")
"""One color per series; they differ in gray as well."""
INK = "#22272e"
PALE = "#8b949e"
TITLE, LABEL, NOTE = 14, 11.5, 9.5
"""Font sizes in points: of a title, of the labels of axes and images, and of the smallest text."""


def figure(
    width: float, height: float, title: str = "", caption: str = "", *, free: bool = False
) -> Figure:
    """An empty figure with a title above and a caption below.

    Args:
        width: inches.
        height: inches.
        title: bold text at the upper left.
        caption: small text below, wrapped to the width.
        free: whether the caller places the axes. By default matplotlib's constrained layout does, so that
            labels do not overlap.
    """
    made = Figure(figsize=(width, height), layout=None if free else "constrained", dpi=150)
    FigureCanvasAgg(made)
    left = 0.1 / width
    # The constrained layout makes room for a title or a caption only if their height is left to it.
    if title:
        place = {"y": 1 - 0.08 / height, "va": "top"} if free else {}
        made.suptitle(title, x=left, ha="left", fontsize=TITLE, color=INK, weight="bold", **place)
    if caption:
        place = {"y": 0.08 / height, "va": "bottom"} if free else {}
        text = "\n".join(wrap(caption, width))
        made.supxlabel(text, x=left, ha="left", fontsize=NOTE, color=INK, **place)
    return made


def wrap(text: str, width: float) -> list[str]:
    """Break text in the smallest font into lines that fit a width in inches.

    A formula counts by the letters that it shows.

    >>> wrap("one two", 0.5)
    ['one', 'two']
    """
    fits = (width - 0.2) * 72 / (0.53 * NOTE)  # a letter is a bit over half as wide as it is high
    lines: list[str] = []
    for word in text.split():
        if lines and letters(lines[-1]) + 1 + letters(word) <= fits:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def letters(text: str) -> int:
    r"""The number of letters that a line shows: a TeX command is one letter, braces are none.

    >>> letters(r"$\hat x_{t}$")
    3
    """
    return len(re.sub(r"[{}$_^]|\\mathrm|\\,", "", re.sub(r"\\(?!mathrm)[A-Za-z]+ ?", "x", text)))


def plain(axes: Axes) -> Axes:
    """Remove the upper and the right border, and set the font of the ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=NOTE, colors=INK)
    return axes


def label_axes(axes: Axes, x: str, y: str) -> Axes:
    """Label the two axes."""
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    return axes


def palette(names: Iterable[str]) -> dict[str, str]:
    """A color for each name, to give a model the same color in every figure.

    >>> palette(["a", "b"])["b"] == COLORS[1]
    True
    """
    return dict(zip(names, cycle(COLORS), strict=False))


def grays(number: float) -> str:
    """Format a number of gray levels.

    >>> grays(1.0), grays(255 / 16), grays(127.5)
    ('1 gray level', '16 gray levels', '128 gray levels')
    """
    shown = f"{number:.0f}" if number >= 10 else f"{number:.2g}"
    return f"{shown} gray level{'' if number == 1 else 's'}"


def save(made: Figure, path: Path) -> Path:
    """Write a figure to a file; missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path)
    return path
