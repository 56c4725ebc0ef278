"""The weight that objectives give to each noise level of the bound."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import require
from genmod.objectives import Explanation
from genmod.plots.style import INK, NOTE, figure, named, palette, quiet


def level_weights(
    explained: Mapping[str, Explanation],
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    r"""The weight :math:`w(\lambda)` of the bound's integrand against the log-SNR, each of one area.

    A weight that never rises with the log-SNR, so that the objective bounds a likelihood of noised data,
    is drawn solid; one that does, dashed. For the weight of a step in time, see
    :func:`~genmod.plots.loss_weights`.

    Args:
        explained: by name, from :func:`genmod.objectives.explain`.
        colors: the color of each name.
        title: of the figure, above.
        caption: of the figure, below.
    """
    require(len(explained) > 0, "no objectives", "at least one", "pass {'bound': explain(...)}")
    colors = palette(explained) | dict(colors or {})
    made = figure(8.6, 4.6 + 0.6 * bool(caption), title, caption)
    axes = quiet(made.add_subplot())
    for name, found in explained.items():
        axes.plot(
            found.log_snr, _of_one_area(name, found), color=colors[name], lw=2.2,
            ls="-" if found.monotone else (0, (4, 2)), label=name,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.axvline(0, color=INK, lw=0.8, ls=":")
    named(axes, "log-SNR  (noise on the left, data on the right)", "weight, of area one")
    axes.legend(frameon=False, fontsize=NOTE + 0.5)
    return made


def _of_one_area(name: str, found: Explanation) -> Tensor:
    area = float(torch.trapezoid(found.weight, found.log_snr))
    require(area > 0, f"{name} without weights", "some", "a warm-up has them after its first step")
    return found.weight / area
