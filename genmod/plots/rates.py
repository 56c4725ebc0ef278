"""The rate of each level of a model, and the cost of each noise level of a diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import require
from genmod.evaluation import Profile
from genmod.plots.style import INK, LABEL, NOTE, figure, named, palette, quiet

Levels: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""``(t, log_snr, mean nats)`` of every step of a chain, each ``(L,)``: what ``Scores`` keeps."""

TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Times that are marked above a profile."""


def level_rates(
    rates: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """The rate of each level of latents in nats: a row a model, cut into its levels.

    Args:
        rates: for each model, the mean and standard error of each rate, by name. Means below zero
            (a sampled log-ratio may have one) are drawn to the left of zero.
        colors: the color of each model.
        title: of the figure, above.
        caption: of the figure, below.
    """
    require(len(rates) > 0, "no models", "at least one", "pass the rates of a report")
    colors = palette(rates) | dict(colors or {})
    made = figure(9.6, 1.3 + 0.75 * len(rates) + 0.5 * bool(caption), title, caption)
    axes = quiet(made.add_subplot())
    widest = max(sum(abs(mean) for mean, _ in levels.values()) for levels in rates.values())
    for row, (model, levels) in enumerate(rates.items()):
        _bar(axes, row, dict(sorted(levels.items())), colors[model], widest)
    axes.set_yticks(range(len(rates)), list(rates), fontsize=LABEL)
    axes.set_ylim(len(rates) - 0.35, -0.65)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_xlim(right=1.12 * axes.get_xlim()[1])  # room for what did not fit into a bar
    named(axes, "nats per sample paid for the latents", "")
    return made


def _bar(
    axes: Axes, row: int, levels: Mapping[str, tuple[float, float]], color: str, widest: float
) -> None:
    """One model: a piece a level, paler from level to level."""
    right = left = 0.0
    thin = []
    for index, (name, (mean, error)) in enumerate(levels.items()):
        start = right if mean >= 0 else left + mean
        value = f"{mean:z.1f} ± {error:.1f}"
        axes.barh(
            row, abs(mean), left=start, color=_paler(color, index), height=0.66,
            edgecolor="white", linewidth=1.0,
        )  # fmt: skip
        if abs(mean) < 0.11 * widest:  # too thin to be written in
            thin.append(f"{name} {value}")
        else:
            axes.text(
                start + abs(mean) / 2, row, f"{name}\n{value}",
                ha="center", va="center", fontsize=NOTE, linespacing=1.15,
                color="white" if index == 0 else INK,
            )  # fmt: skip
        right, left = (right + mean, left) if mean >= 0 else (right, left + mean)
    axes.annotate(
        "\n".join(thin), (right, row), (4, 0), textcoords="offset points",
        va="center", fontsize=NOTE, color=INK,
    )  # fmt: skip


def _paler(color: str, index: int) -> tuple[float, float, float]:
    """A color on its way to white: a shade for each level."""
    kept = (1.0, 0.6, 0.38, 0.24)[min(index, 3)]
    red, green, blue = to_rgb(color)
    return 1 - kept * (1 - red), 1 - kept * (1 - green), 1 - kept * (1 - blue)


def step_profile(
    profiles: Mapping[str, Profile | Levels],
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Nats per unit of log-SNR against log-SNR: what each noise level of a diffusion costs.

    Above, the time at which each schedule passes a log-SNR: one axis a schedule.

    Args:
        profiles: by model, a measured profile, whose band is two standard errors to either side; or
            ``(t, log_snr, mean nats)`` of every step, each ``(L,)``, as ``Scores.levels`` has it.
        colors: the color of each model.
        title: of the figure, above.
        caption: of the figure, below.
    """
    require(len(profiles) > 0, "no profiles", "at least one model", "score with draws=None")
    colors = palette(profiles) | dict(colors or {})
    clocks = _clocks(profiles)
    made = figure(8.6, 4.4 + 0.45 * len(clocks) + 0.5 * bool(caption), title, caption)
    axes = quiet(made.add_subplot())
    for name, found in profiles.items():
        if isinstance(found, Profile):
            middle, density = found.middle, found.density
            band = 2 * found.density_error
            axes.fill_between(
                middle, density - band, density + band, color=colors[name], alpha=0.25, linewidth=0
            )
        else:
            _, log_snr, nats = found
            middle = (log_snr[1:] + log_snr[:-1]) / 2
            density = nats[1:] / (log_snr[:-1] - log_snr[1:])
        axes.plot(middle, density, color=colors[name], lw=2.0, label=name)
    named(axes, "log-SNR  (noise on the left, data on the right)", "nats per unit of log-SNR")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=LABEL)
    for place, names in enumerate(clocks):
        color = colors[names[0]] if len(names) == 1 < len(profiles) else INK
        _clock(
            axes, profiles[names[0]], 1.02 + 0.15 * place, names if len(clocks) > 1 else [], color
        )
    return made


def _timed(found: Profile | Levels) -> tuple[Tensor, Tensor]:
    """Times and the log-SNRs there."""
    t, log_snr = (found.t, found.log_snr) if isinstance(found, Profile) else found[:2]
    return t.double(), log_snr.double()


def _clocks(profiles: Mapping[str, Profile | Levels]) -> list[list[str]]:
    """Names in groups of one schedule."""
    groups: list[list[str]] = []
    for name, found in profiles.items():
        for group in groups:
            pairs = zip(_timed(found), _timed(profiles[group[0]]), strict=True)
            if all(a.shape == b.shape and a.allclose(b) for a, b in pairs):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _clock(
    axes: Axes, found: Profile | Levels, height: float, names: list[str], color: str
) -> None:
    """An axis of times above the others, each where the schedule has its log-SNR."""
    t, log_snr = (part.numpy() for part in _timed(found))
    above = axes.secondary_xaxis(height)
    # Levels begin at the first step, not at 0: beyond what was measured the curve is not known.
    known = [time for time in TIMES if t[0] <= time <= t[-1]]
    above.set_xticks(np.interp(known, t, log_snr).tolist(), [f"{time:g}" for time in known])
    above.tick_params(labelsize=NOTE, colors=color)
    above.spines["top"].set_color(color)
    above.set_xlabel(", ".join(["t", *names]), fontsize=NOTE, color=color)
