"""Rate and distortion: how much of a code length encodes imperceptible details."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from genmod.checks import require
from genmod.evaluation import Profile, Refinement
from genmod.plots.style import INK, LABEL, NOTE, figure, named, palette, quiet

GRAY = 127.5
"""Gray levels, 0 to 255, in a unit of the scale [-1, 1] on which integers are noised."""


def rate_at(profile: Profile, distortion: float, end: Refinement | None = None) -> float | None:
    """The bits/dim of a code at which its error first falls to a distortion (in gray levels).

    ``None`` if it never does, or only inside a decoder whose refinement is not given. Interpolated
    linearly between points.
    """
    rate, error = curve(profile)
    if end is not None:
        rate, error = (
            torch.cat(pair) for pair in zip((rate, error), inside(profile, end), strict=True)
        )
    below = (error <= distortion).nonzero().flatten()
    if not len(below):
        return None
    first = int(below[0])
    if first == 0:
        return float(rate[0])
    part = (error[first - 1] - distortion) / (error[first - 1] - error[first])
    return float(torch.lerp(rate[first - 1], rate[first], part))


def curve(profile: Profile) -> tuple[Tensor, Tensor]:
    """The rate from noise to each state in bits/dim, and the error of ``x_hat`` there in gray levels.

    One entry an interval, from noise to data; the rate is the one half-way through the interval.
    """
    paid = profile.bits_per_dim(profile.rate)
    return ((paid[1:] + paid[:-1]) / 2).flip(0), (GRAY * profile.rmse).flip(0)


def inside(profile: Profile, end: Refinement) -> tuple[Tensor, Tensor]:
    """The same inside the decoder, refined from coarse to fine, until ``x`` is exact."""
    return profile.bits_per_dim(profile.rate[0] + end.nats), GRAY * end.rmse.double()


def rate_distortion(
    profiles: Mapping[str, Profile],
    visible: float = 1.0,
    *,
    ends: Mapping[str, Refinement] | None = None,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Distortion against rate, and both against log-SNR.

    Args:
        profiles: by model, of integer data.
        visible: the error, in gray levels of 255, below which a difference counts as imperceptible.
        ends: by model, the decoder's last step from coarse to fine; without, a straight line.
        colors: the color of each model.
        title: of the figure, above.
        caption: of the figure, below.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), figure 5.
    """
    require(len(profiles) > 0, "no profiles", "at least one diffusion", "use evaluation.profile")
    colors = palette(profiles) | dict(colors or {})
    made = figure(11.2, 4.6 + 0.6 * bool(caption), title, caption)
    spec = made.add_gridspec(2, 2, width_ratios=[1.15, 1])
    left = quiet(made.add_subplot(spec[:, 0]))
    upper = quiet(made.add_subplot(spec[0, 1]))
    lower = quiet(made.add_subplot(spec[1, 1], sharex=upper))
    for place, (name, found) in enumerate(profiles.items()):
        end = (ends or {}).get(name)
        _rate_distortion(left, name, (found, end), colors[name], visible, 0.6 - 0.2 * place)
        upper.plot(found.middle, GRAY * found.rmse, color=colors[name], lw=2.2)
        lower.plot(found.log_snr, found.bits_per_dim(found.rate), color=colors[name], lw=2.2)
    upper.axhline(visible, color=INK, lw=1.0, ls=":")
    upper.annotate(
        grays(visible), (0.01, visible), xycoords=upper.get_yaxis_transform(),
        xytext=(0, 3), textcoords="offset points", fontsize=NOTE, color=INK,
    )  # fmt: skip
    upper.set_yscale("log")
    upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # a chain may not span a decade
    upper.yaxis.set_major_formatter("{x:g}")
    upper.yaxis.set_minor_formatter(NullFormatter())
    upper.tick_params(labelbottom=False)
    named(left, "bits/dim paid so far", r"error of $\hat x(z_t)$, gray levels of 255")
    named(upper, "", "error")
    named(lower, "log-SNR  (noise on the left, data on the right)", "bits/dim paid")
    left.set_ylim(bottom=0)
    if len(profiles) > 1:
        left.legend(fontsize=NOTE + 0.5, framealpha=0.9, edgecolor="white")
    return made


def grays(visible: float) -> str:
    """A number of gray levels in words.

    >>> grays(1.0), grays(255 / 16), grays(127.5)
    ('1 gray level', '16 gray levels', '128 gray levels')
    """
    number = f"{visible:.0f}" if visible >= 10 else f"{visible:.2g}"
    return f"{number} gray level{'' if visible == 1 else 's'}"


def _rate_distortion(
    axes: Axes,
    name: str,
    measured: tuple[Profile, Refinement | None],
    color: str,
    visible: float,
    height: float,
) -> None:
    """One model: its curve, the decoder's last step, and the bits of imperceptible details."""
    found, end = measured
    rate, error = curve(found)
    paid, last = float(found.bits_per_dim(found.rate[:1])[0]), float(error[-1])
    axes.plot([*rate.tolist(), paid], [*error.tolist(), last], color=color, lw=2.4, label=name)
    if end is None:
        whole = float(found.bits_per_dim(found.rate[0] + found.remaining[0]))
        rates, errors = [paid, whole], [last, 0.0]
    else:
        rates, errors = (part.tolist() for part in inside(found, end))
        whole = rates[-1]
        rates, errors = [paid, *rates], [last, *errors]
    axes.plot(rates, errors, color=color, lw=1.8, ls="--")
    if end is not None:
        axes.plot(rates[1:-1], errors[1:-1], color=color, ls="", marker="o", ms=3.5)
    axes.plot([whole], [0], color=color, marker="o", ms=7, clip_on=False, zorder=5)
    if whole - paid > 0.15 * whole:  # else too short to be written at
        axes.annotate(
            f"decoder: {whole - paid:.2f} bits/dim", ((paid + whole) / 2, last / 2), (6, 6),
            textcoords="offset points", fontsize=NOTE + 0.5, color=color,
        )  # fmt: skip
    at = rate_at(found, visible, end)
    if at is not None:
        axes.axvspan(at, whole, color=color, alpha=0.13, linewidth=0)
        share = 100 * (whole - at) / whole
        note = f"{share:.0f} % of the bits\npay for details\nbelow {grays(visible)}"
        wide = whole - at > 0.35 * whole  # else the words stand beside the band
        axes.text(
            (at + whole) / 2 if wide else at - 0.02 * whole, height, note,
            transform=axes.get_xaxis_transform(), ha="center" if wide else "right", va="center",
            fontsize=LABEL, color=INK,
        )  # fmt: skip
