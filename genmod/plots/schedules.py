r"""Noise schedules in the terms of DDPM, and the weights that the bound and objectives give.

DDPM's :math:`\bar\alpha_t` is :math:`\alpha_t^2` of a variance-preserving schedule. Its step
``i`` of ``T`` lies at ``t = (i - 1) / (T - 1)`` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from genmod.checks import check_at_least, invalid
from genmod.objectives.explanation import Explanation
from genmod.plots.style import COLORS, INK, NOTE, figure, label_axes, palette, plain
from genmod.schedules import Schedule
from genmod.signatures import checked

PLAIN = (INK, "#b08968", "#56a3d9")
"""Colors of the standard schedules; no model has them."""

HIGHEST_SNR = 10.0
"""The end of the linear axis of the SNR, which reaches thousands at the clean end."""


def schedules(
    by_name: Mapping[str, Schedule],
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    r"""Noise schedules: :math:`\bar\alpha_t`, the SNR and the log-SNR against time, a panel each.

    Args:
        by_name: schedules by name.
        colors: colors by name; a schedule with a color of its own is drawn dashed.
        title: the title of the figure.
        caption: the text below the figure.

    >>> from genmod import plots
    >>> from genmod.schedules import Cosine
    >>> [axes.get_xlabel() for axes in plots.schedules({"cosine": Cosine()}).axes][0]
    't  (0 clean, 1 noise)'
    """
    if len(by_name) == 0:
        raise invalid("no schedules", "at least one", "pass {'cosine': Cosine()}")
    own = colors or {}
    colors, styles = (
        _default_colors(by_name) | dict(own),
        _styles(by_name) | dict.fromkeys(own, "--"),
    )
    made = figure(11.2, 3.9 + 0.6 * bool(caption), title, caption)
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    panels = [plain(made.add_subplot(1, 3, index + 1)) for index in range(3)]
    for name, schedule in by_name.items():
        with torch.no_grad():
            log_snr = schedule.log_snr(t)
        curves = log_snr.sigmoid(), log_snr.exp(), log_snr
        for axes, curve in zip(panels, curves, strict=True):
            axes.plot(t, curve, color=colors[name], lw=2.4, ls=styles[name], label=name)
    panels[1].set_ylim(0, HIGHEST_SNR)
    panels[2].axhline(0, color=INK, lw=0.8, ls=":")
    names = (
        r"$\bar\alpha_t$, share of data in the variance",
        r"$\mathrm{SNR}(t) = \bar\alpha_t\,/\,(1-\bar\alpha_t)$"
        f", cut at {HIGHEST_SNR:.0f}",
        r"$\log\,\mathrm{SNR}(t)$",
    )
    for axes, name in zip(panels, names, strict=True):
        label_axes(axes, "t  (0 clean, 1 noise)", name)
        axes.set_xlim(0, 1)
    panels[2].legend(frameon=False, fontsize=NOTE)
    return made


def _default_colors(by_name: Mapping[str, Schedule]) -> dict[str, str]:
    """A default color for each schedule."""
    return dict(zip(by_name, cycle(PLAIN), strict=False))


def _styles(by_name: Mapping[str, Schedule]) -> dict[str, str]:
    """A different line style each time the default colors repeat; dashes are for colors of one's own."""
    lines = (style for style in cycle(("-", ":", "-.")) for _ in PLAIN)
    return dict(zip(by_name, lines, strict=False))


def step_weights(schedule: Schedule, latents: int) -> tuple[Tensor, Tensor]:
    r"""The weight :math:`\lambda_t` of :math:`\|\varepsilon-\hat\varepsilon\|^2` in DDPM's bound.

    .. math:: \lambda_t = \frac{\beta_t^2}{2 \sigma_t^2 (1 - \beta_t)(1 - \bar\alpha_t)}
        = \tfrac{1}{2}\,\text{gap}_t
        = \tfrac{1}{2} \left(\frac{\mathrm{SNR}_s}{\mathrm{SNR}_t} - 1\right)

    for the step from ``t`` to ``s < t``. The reverse variance :math:`\sigma_t^2` is that of the posterior.

    Args:
        schedule: the schedule.
        latents: ``T``, the number of latents; there are ``T - 1`` steps.

    Returns:
        The time of each step, and its weight, ``(T - 1,)`` each.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 12.
    """
    check_at_least(latents, 2, "latents", "one latent has no step")
    t = torch.linspace(0, 1, latents, dtype=torch.float64)
    with torch.no_grad():
        log_snr = schedule.log_snr(t)
    return t[1:], 0.5 * torch.expm1(log_snr[:-1] - log_snr[1:])


@checked
def loss_weights(
    by_name: Mapping[str, Schedule], latents: int = 1000, *, title: str = "", caption: str = ""
) -> Figure:
    r"""The weight :math:`\lambda_t` of each step in the bound, beside :math:`L_{\text{simple}}`'s weight 1.

    Args:
        by_name: schedules by name.
        latents: ``T``, the number of latents of each.
        title: the title of the figure.
        caption: the text below the figure.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 12 and 14.
    """
    if len(by_name) == 0:
        raise invalid("no schedules", "at least one", "pass {'cosine': Cosine()}")
    made = figure(8.6, 4.6 + 0.6 * bool(caption), title, caption)
    axes = plain(made.add_subplot())
    colors = _default_colors(by_name)
    for name, schedule in by_name.items():
        t, weight = step_weights(schedule, latents)
        axes.plot(t, weight, color=colors[name], lw=2.2, label=f"$L$, {name}")
    axes.axhline(1, color=COLORS[0], lw=2.4, ls="--", label=r"$L_\mathrm{simple}$: 1 at every t")
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    label_axes(
        axes, "t  (0 clean, 1 noise)", r"weight $\lambda_t$ of $\|\epsilon-\hat\epsilon\|^2$"
    )
    axes.legend(frameon=False, fontsize=NOTE + 0.5, loc="center", bbox_to_anchor=(0.5, 0.42))
    _formula(axes)
    return made


def _formula(axes: Axes) -> None:
    axes.text(
        0.5, 0.76,
        r"$\lambda_t=\frac{\beta_t^2}{2\sigma_t^2(1-\beta_t)(1-\bar\alpha_t)}"
        r"=\frac{1}{2}\left(\frac{\mathrm{SNR}_{t-1}}{\mathrm{SNR}_t}-1\right)$",
        transform=axes.transAxes, ha="center", va="top", fontsize=15, color=INK,
    )  # fmt: skip


def level_weights(
    explained: Mapping[str, Explanation],
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    r"""The weight :math:`w(\lambda)` that an objective gives each log-SNR, scaled to an area of one.

    A solid line is a weight that never rises with the log-SNR: its objective is a bound on the likelihood
    of noised data. Other weights are dashed. For weights against time see
    :func:`~genmod.plots.loss_weights`.

    Args:
        explained: results of :func:`genmod.objectives.explain` by name.
        colors: the color of each name.
        title: the title of the figure.
        caption: the text below the figure.

    Reference: Kingma, Gao, "Understanding diffusion objectives as the ELBO with simple data augmentation"
    (2023), theorem 1.
    """
    if len(explained) == 0:
        raise invalid("no objectives", "at least one", "pass {'bound': explain(...)}")
    colors = palette(explained) | dict(colors or {})
    made = figure(8.6, 4.6 + 0.6 * bool(caption), title, caption)
    axes = plain(made.add_subplot())
    for name, found in explained.items():
        axes.plot(
            found.log_snr, _of_one_area(name, found), color=colors[name], lw=2.2,
            ls="-" if found.monotone else (0, (4, 2)), label=name,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.axvline(0, color=INK, lw=0.8, ls=":")
    label_axes(axes, "log-SNR  (noise on the left, data on the right)", "weight (area one)")
    axes.legend(frameon=False, fontsize=NOTE + 0.5)
    return made


def _of_one_area(name: str, found: Explanation) -> Tensor:
    area = float(torch.trapezoid(found.weight, found.log_snr))
    if not area > 0:
        raise invalid(
            f"{name} with weight 0 at every log-SNR",
            "a positive weight at some",
            "explain a warm-up after its first step",
        )
    return found.weight / area
