"""Rate and distortion: how much of a code length encodes imperceptible details."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import invalid
from genmod.evaluation.profile import Profile, Refinement
from genmod.plots.style import INK, LABEL, NOTE, figure, label_axes, palette, plain

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
        ends: for each model, the result of :func:`genmod.evaluation.refinement`; a straight line without
            it.
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
    label_axes(
        axes, "rate, bits/dim", r"distortion: error of $\hat x(z_t)$, gray levels (0 to 255)"
    )
    axes.set_ylim(bottom=0)
    if len(profiles) > 1:
        axes.legend(fontsize=NOTE + 0.5, framealpha=0.9, edgecolor="white")
    return made


def grays(number: float) -> str:
    """Format a number of gray levels.

    >>> grays(1.0), grays(255 / 16), grays(127.5)
    ('1 gray level', '16 gray levels', '128 gray levels')
    """
    shown = f"{number:.0f}" if number >= 10 else f"{number:.2g}"
    return f"{shown} gray level{'' if number == 1 else 's'}"


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
