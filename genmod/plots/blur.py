"""Blur, measured: how much fine detail the images of each model have, beside the data's own."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import require
from genmod.plots.style import INK, LABEL, NOTE, figure, named, palette, quiet


def sharpness(
    bars: Mapping[str, Mapping[str, tuple[float, float]]],
    spectra: Mapping[str, tuple[Tensor, Tensor]],
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Power relative to the data's: in all (bars), and at each frequency (curves).

    Args:
        bars: for each model, a relative detail and its standard error, by the kind of image
            ("samples", "reconstructions"); the first kind is drawn dark.
        spectra: for each model, spatial frequencies and the power there relative to the data's.
        colors: the color of each model.
        title: of the figure, above.
        caption: of the figure, below.
    """
    require(len(bars) > 0, "no models", "at least one", "measure their samples first")
    colors = palette(bars) | dict(colors or {})
    made = figure(11.2, 1.9 + max(2.4, 0.62 * len(bars)) + 0.5 * bool(caption), title, caption)
    left, right = (quiet(made.add_subplot(1, 2, index + 1)) for index in range(2))
    for row, (name, kinds) in enumerate(bars.items()):
        high = 0.76 / len(kinds)
        for index, (kind, (mean, error)) in enumerate(kinds.items()):
            place = row + (index - (len(kinds) - 1) / 2) * high
            left.barh(
                place, mean, height=high, xerr=error, color=colors[name],
                alpha=(1.0, 0.45)[min(index, 1)], ecolor=INK, error_kw={"lw": 1.2},
            )  # fmt: skip
            left.annotate(
                f"{mean:.2f}  {kind}", (mean + error, place), (4, 0), textcoords="offset points",
                va="center", fontsize=NOTE, color=INK,
                bbox={"fc": "white", "ec": "none", "pad": 1.5},
            )  # fmt: skip
    left.set_yticks(range(len(bars)), list(bars), fontsize=LABEL)
    left.invert_yaxis()
    left.axvline(1, color=INK, lw=1.4, ls="--")
    left.set_xlim(right=1.45 * left.get_xlim()[1])
    named(left, "fine detail, data = 1", "")
    for name, (frequency, power) in spectra.items():
        right.plot(frequency, power, color=colors[name], lw=2.0, label=name)
    right.axhline(1, color=INK, lw=1.4, ls="--", label="data")
    right.set_ylim(0, 1.4 * right.get_ylim()[1])  # room for the names
    named(right, "spatial frequency, cycles per pixel", "power of samples, data = 1")
    right.legend(frameon=False, fontsize=NOTE, ncols=2, loc="upper right")
    return made
