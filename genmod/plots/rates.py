"""Rates: of each level of a hierarchy, of each noise level of a diffusion, and against the distortion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import invalid
from genmod.evaluation.profile import Profile, Refinement
from genmod.plots.style import INK, LABEL, NOTE, figure, grays, label_axes, palette, plain

Levels: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""``(t, log_snr, mean nats)`` of every step of a chain, each ``(L,)``, as in ``Scores.levels``."""


def level_rates(
    rates: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """The rate of each level of latents, in nats: one stacked bar per model.

    Args:
        rates: for each model, the mean and the standard error of each rate, by name. A sampled log-ratio
            can have a negative mean; it is drawn to the left of zero.
        colors: the color of each model.
        title: the title of the figure.
        caption: the text below the figure.

    >>> from genmod import plots
    >>> rates = {"VAE": {"prior": (17.2, 0.1)}, "HVAE": {"z1": (14.0, 0.1), "z2": (4.1, 0.1)}}
    >>> plots.level_rates(rates).axes[0].get_xlabel()
    'rate of the latents, nats per sample'
    """
    if len(rates) == 0:
        raise invalid("no models", "at least one", "pass the rates of a report")
    colors = palette(rates) | dict(colors or {})
    made = figure(9.6, 1.3 + 0.75 * len(rates) + 0.5 * bool(caption), title, caption)
    axes = plain(made.add_subplot())
    widest = max(sum(abs(mean) for mean, _ in levels.values()) for levels in rates.values())
    for row, (model, levels) in enumerate(rates.items()):
        _bar(axes, row, dict(sorted(levels.items())), colors[model], widest)
    axes.set_yticks(range(len(rates)), list(rates), fontsize=LABEL)
    axes.set_ylim(len(rates) - 0.35, -0.65)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_xlim(right=1.12 * axes.get_xlim()[1])  # room for labels that do not fit into a bar
    label_axes(axes, "rate of the latents, nats per sample", "")
    return made


def _bar(
    axes: Axes, row: int, levels: Mapping[str, tuple[float, float]], color: str, widest: float
) -> None:
    """The bar of a model: a piece for each level, each paler than the one before."""
    right = left = 0.0
    thin = []
    for index, (name, (mean, error)) in enumerate(levels.items()):
        start = right if mean >= 0 else left + mean
        kept = (1.0, 0.6, 0.38, 0.24)[min(index, 3)]
        paler = [1 - kept * (1 - part) for part in to_rgb(color)]
        value = f"{mean:z.1f} ± {error:.1f}"
        axes.barh(
            row, abs(mean), left=start, color=paler, height=0.66, edgecolor="white", linewidth=1.0
        )
        if abs(mean) < 0.11 * widest:  # too thin for a label inside
            thin.append(f"{name} {value}")
        else:
            axes.text(
                start + abs(mean) / 2, row, f"{name}\n{value}", ha="center", va="center",
                fontsize=NOTE, linespacing=1.15, color="white" if index == 0 else INK,
            )  # fmt: skip
        right, left = (right + mean, left) if mean >= 0 else (right, left + mean)
    axes.annotate(
        "\n".join(thin), (right, row), (4, 0), textcoords="offset points",
        va="center", fontsize=NOTE, color=INK,
    )  # fmt: skip


def step_profile(
    profiles: Mapping[str, Profile | Levels],
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """The bound of a diffusion by noise level: nats per unit of log-SNR, against log-SNR.

    The area under a curve is the nats of all denoising steps. An axis above shows, for each schedule, the
    time at which it passes a log-SNR; there is none for more than two schedules.

    Args:
        profiles: for each model, the result of :func:`genmod.evaluation.profile`, drawn with a band of two
            standard errors; or ``(t, log_snr, mean nats)`` of every step, each ``(L,)``, as in
            ``report.scores.levels``.
        colors: the color of each model.
        title: the title of the figure.
        caption: the text below the figure.
    """
    if len(profiles) == 0:
        raise invalid("no profiles", "at least one model", "pass evaluation.profile(model, data)")
    colors = palette(profiles) | dict(colors or {})
    clocks = _clocks(profiles)
    clocks = clocks if len(clocks) <= 2 else []
    made = figure(8.6, 4.4 + 0.45 * len(clocks) + 0.5 * bool(caption), title, caption)
    axes = plain(made.add_subplot())
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
    label_axes(axes, "log-SNR  (noise on the left, data on the right)", "nats per unit of log-SNR")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=LABEL)
    for place, names in enumerate(clocks):
        color = colors[names[0]] if len(names) == 1 < len(profiles) else INK
        finest = max((profiles[name] for name in names), key=lambda found: len(_timed(found)[0]))
        _clock(axes, finest, 1.02 + 0.15 * place, names if len(clocks) > 1 else [], color)
    return made


def _timed(found: Profile | Levels) -> tuple[Tensor, Tensor]:
    """Times and the log-SNRs there."""
    t, log_snr = (found.t, found.log_snr) if isinstance(found, Profile) else found[:2]
    return t.double(), log_snr.double()


def _clocks(profiles: Mapping[str, Profile | Levels]) -> list[list[str]]:
    """The names, grouped by schedule. The profiles of a group may have other times."""
    groups: list[list[str]] = []
    for name, found in profiles.items():
        alike = next((group for group in groups if _alike(found, profiles[group[0]])), None)
        if alike is None:
            groups.append([name])
        else:
            alike.append(name)
    return groups


def _alike(a: Profile | Levels, b: Profile | Levels) -> bool:
    """Whether two profiles have one schedule: at the times of the coarser, the finer has its log-SNRs."""
    coarse, fine = sorted((_timed(a), _timed(b)), key=lambda timed: len(timed[0]))
    times, log_snr, t, known = (part.cpu().numpy() for part in (*coarse, *fine))
    return bool(np.allclose(np.interp(times, t, known), log_snr, rtol=0.0, atol=0.1))


def _clock(
    axes: Axes, found: Profile | Levels, height: float, names: list[str], color: str
) -> None:
    """An axis above with times, each at the log-SNR that the schedule has there."""
    t, log_snr = (part.numpy() for part in _timed(found))
    above = axes.secondary_xaxis(height)
    # Measured levels begin at the first step, not at t = 0; the log-SNR at other times is not known.
    known = [time for time in (0.0, 0.25, 0.5, 0.75, 1.0) if t[0] <= time <= t[-1]]
    above.set_xticks(np.interp(known, t, log_snr).tolist(), [f"{time:g}" for time in known])
    above.tick_params(labelsize=NOTE, colors=color)
    above.spines["top"].set_color(color)
    above.set_xlabel(", ".join(["t", *names]), fontsize=NOTE, color=color)


GRAY = 127.5
"""Gray levels, 0 to 255, per unit of the scale [-1, 1] on which integers are noised."""


def rate_at(profile: Profile, distortion: float, end: Refinement | None = None) -> float | None:
    """The rate in bits/dim at which the error first falls to a distortion, linearly interpolated.

    Args:
        profile: of a diffusion of integers.
        distortion: the error in gray levels, 0 to 255.
        end: the decoder's refinement; without it, the error cannot fall below that of ``x_hat``.

    Returns:
        Bits per dimension, or ``None`` if the error never falls so low.
    """
    rate, error = curve(profile)
    if end is not None:
        more = inside(profile, end)
        rate, error = torch.cat([rate, more[0]]), torch.cat([error, more[1]])
    below = (error <= distortion).nonzero().flatten()
    if not len(below):
        return None
    first = int(below[0])
    if first == 0:
        return float(rate[0])
    part = (error[first - 1] - distortion) / (error[first - 1] - error[first])
    return float(torch.lerp(rate[first - 1], rate[first], part))


def curve(profile: Profile) -> tuple[Tensor, Tensor]:
    """The rate in bits/dim, and the error of ``x_hat`` in gray levels, from noise to data.

    There is one entry per interval; its rate is that at the middle.
    """
    ends = profile.bits_per_dim(profile.rate)
    return ((ends[1:] + ends[:-1]) / 2).flip(0), (GRAY * profile.rmse).flip(0)


def inside(profile: Profile, end: Refinement) -> tuple[Tensor, Tensor]:
    """The same for the decoder's values, sent from coarse to fine until ``x`` is exact."""
    return profile.bits_per_dim(profile.rate[0] + end.nats), GRAY * end.rmse.double()


def rate_distortion(
    profiles: Mapping[str, Profile],
    threshold: float = 1.0,
    *,
    ends: Mapping[str, Refinement] | None = None,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    r"""The rate-distortion curve of a diffusion: the error of its estimate after so many bits.

    The *rate* is the code length of the states from noise down to :math:`z_t`. The *distortion* is the root
    mean square error of :math:`\hat x(z_t)`. Bits after the point where the error falls below the threshold
    encode details too small to be seen.

    Args:
        profiles: for each model, the result of :func:`genmod.evaluation.profile` on integer data.
        threshold: the error in gray levels, 0 to 255, below which it counts as imperceptible.
        ends: for each model, the result of :func:`genmod.evaluation.refinement`; else a straight line.
        colors: the color of each model.
        title: the title of the figure.
        caption: the text below the figure.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), figure 5.
    """
    if len(profiles) == 0:
        raise invalid("no profiles", "at least one diffusion", "use evaluation.profile")
    colors = palette(profiles) | dict(colors or {})
    made = figure(8.6, 4.6 + 0.6 * bool(caption), title, caption)
    axes = plain(made.add_subplot())
    for place, (name, found) in enumerate(profiles.items()):
        end = (ends or {}).get(name)
        _rate_distortion(axes, name, (found, end), colors[name], threshold, 0.6 - 0.2 * place)
    error = r"distortion: error of $\hat x(z_t)$, gray levels (0 to 255)"
    label_axes(axes, "rate, bits/dim", error)
    axes.set_ylim(bottom=0)
    if len(profiles) > 1:
        axes.legend(fontsize=NOTE + 0.5, framealpha=0.9, edgecolor="white")
    return made


def _rate_distortion(
    axes: Axes,
    name: str,
    measured: tuple[Profile, Refinement | None],
    color: str,
    threshold: float,
    height: float,
) -> None:
    """Draw one model: its curve, its decoder, and a band for the bits of imperceptible details."""
    found, end = measured
    rate, error = curve(found)
    chain, last = float(found.bits_per_dim(found.rate[:1])[0]), float(error[-1])
    axes.plot([*rate.tolist(), chain], [*error.tolist(), last], color=color, lw=2.4, label=name)
    if end is None:
        whole = float(found.bits_per_dim(found.rate[0] + found.remaining[0]))
        rates, errors = [chain, whole], [last, 0.0]
    else:
        rates, errors = (part.tolist() for part in inside(found, end))
        whole = rates[-1]
        rates, errors = [chain, *rates], [last, *errors]
    axes.plot(rates, errors, color=color, lw=1.8, ls="--")
    if end is not None:
        axes.plot(rates[1:-1], errors[1:-1], color=color, ls="", marker="o", ms=3.5)
    axes.plot([whole], [0], color=color, marker="o", ms=7, clip_on=False, zorder=5)
    if whole - chain > 0.15 * whole:  # else too short for a label
        axes.annotate(
            f"decoder: {whole - chain:.2f} bits/dim", ((chain + whole) / 2, last / 2), (6, 6),
            textcoords="offset points", fontsize=NOTE + 0.5, color=color,
        )  # fmt: skip
    at = rate_at(found, threshold, end)
    if at is not None:
        axes.axvspan(at, whole, color=color, alpha=0.13, linewidth=0)
        share = 100 * (whole - at) / whole
        note = f"{share:.0f} % of the bits\nencode details\nbelow {grays(threshold)}"
        wide = whole - at > 0.35 * whole  # else the label stands beside the band
        axes.text(
            (at + whole) / 2 if wide else at - 0.02 * whole, height, note,
            transform=axes.get_xaxis_transform(), ha="center" if wide else "right", va="center",
            fontsize=LABEL, color=INK,
        )  # fmt: skip
