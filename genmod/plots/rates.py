"""Where a model spends its nats: the rate of each level, and of each step of a diffusion."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import require
from genmod.plots.style import COLORS, INK, figure, quiet


def level_rates(rates: Mapping[str, Mapping[str, tuple[float, float]]]) -> Figure:
    """Nats paid for each group of latents: a bar a group, a panel a model, one scale for all.

    Args:
        rates: for each model, the mean and standard error of each rate, by name.
    """
    made = figure(2.1 * len(rates) + 0.4, 2.8)
    first = None
    for index, (title, groups) in enumerate(rates.items()):
        axes = quiet(made.add_subplot(1, len(rates), index + 1, sharey=first))
        names = sorted(groups)
        means = [groups[name][0] for name in names]
        axes.bar(
            names, means, yerr=[groups[n][1] for n in names], color=COLORS[index % 6], width=0.6
        )
        for place, mean in enumerate(means):
            axes.annotate(
                f"{mean:.1f}", (place, max(mean, 0)), (0, 3), textcoords="offset points",
                ha="center", fontsize=8, color=INK,
            )  # fmt: skip
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_title(title, fontsize=9, color=INK)
        if first is None:
            axes.set_ylabel("nats per sample", fontsize=9)
            first = axes
    return made


def step_profile(profiles: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Figure:
    """Nats per unit of log-SNR against log-SNR: what each noise level of a diffusion costs.

    Args:
        profiles: for each model, ``(t, log_snr, mean nats)`` of every step, each ``(L,)``.
    """
    require(len(profiles) > 0, "no profiles", "at least one model", "score with draws=None")
    made = figure(5.2, 3.0)
    axes = quiet(made.add_subplot())
    for color, (title, (_, log_snr, nats)) in zip(COLORS, profiles.items(), strict=False):
        middle = (log_snr[1:] + log_snr[:-1]) / 2
        density = nats[1:] / (log_snr[:-1] - log_snr[1:])
        axes.plot(middle, density, color=color, lw=1.4, label=title)
    axes.set_xlabel("log-SNR (noise on the left, data on the right)", fontsize=9)
    axes.set_ylabel("nats per unit of log-SNR", fontsize=9)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return made
