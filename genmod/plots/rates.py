"""Where a model spends its nats: the rate of each level, and of each step of a diffusion."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import require
from genmod.plots.style import COLORS, INK, figure, quiet


def level_rates(rates: Mapping[str, Mapping[str, tuple[float, float]]]) -> Figure:
    """Nats paid for each level of latents: a row a model, cut into its levels.

    Args:
        rates: for each model, the mean and standard error of each rate, by name. Means below zero
            (a sampled log-ratio may have one) are drawn to the left of zero.
    """
    require(len(rates) > 0, "no models", "at least one", "pass the rates of a report")
    made = figure(6.8, 0.9 + 0.55 * len(rates))
    axes = quiet(made.add_subplot())
    widest = max(sum(abs(mean) for mean, _ in levels.values()) for levels in rates.values())
    for row, levels in enumerate(rates.values()):
        right = left = 0.0
        thin = []
        for color, (name, (mean, error)) in zip(COLORS, sorted(levels.items()), strict=False):
            start = right if mean >= 0 else left + mean
            axes.barh(row, abs(mean), left=start, color=color, height=0.62)
            if abs(mean) < 0.09 * widest:  # too thin to be written in
                thin.append(f"{name} {mean:.1f} ± {error:.1f}")
            else:
                axes.text(
                    start + abs(mean) / 2, row, f"{name}\n{mean:.1f} ± {error:.1f}",
                    ha="center", va="center", fontsize=7, color="white", linespacing=1.2,
                )  # fmt: skip
            right, left = (right + mean, left) if mean >= 0 else (right, left + mean)
        axes.annotate(
            "\n".join(thin), (right, row), (4, 0), textcoords="offset points",
            va="center", fontsize=7, color=INK,
        )  # fmt: skip
    axes.set_yticks(range(len(rates)), list(rates), fontsize=9)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_xlabel("nats per sample paid for the latents", fontsize=9)
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
