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

from genmod.checks import require
from genmod.objectives import Explanation
from genmod.plots.style import COLORS, INK, LABEL, NOTE, PALE, figure, named, palette, quiet
from genmod.schedules import Schedule

PLAIN = (INK, "#b08968", PALE)
"""Colors that no model has, for the standard schedules."""

HIGHEST_SNR = 10.0
"""Where the linear axis of the SNR ends: at the clean end it is in the thousands."""


def schedules(
    shown: Mapping[str, Schedule],
    *,
    colors: Mapping[str, str] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    r""":math:`\bar\alpha_t`, the SNR and the log-SNR of each schedule against time.

    Args:
        shown: schedules by name.
        colors: the color of each name; those named here are drawn dashed, over the others.
        title: of the figure, above.
        caption: of the figure, below.
    """
    require(len(shown) > 0, "no schedules", "at least one", "pass {'cosine': Cosine()}")
    own = colors or {}
    colors, styles = _plain(shown) | dict(own), _styles(shown) | dict.fromkeys(own, "--")
    made = figure(11.2, 3.9 + 0.6 * bool(caption), title, caption)
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    panels = [quiet(made.add_subplot(1, 3, index + 1)) for index in range(3)]
    for name, schedule in shown.items():
        with torch.no_grad():
            log_snr = schedule.log_snr(t)
        curves = log_snr.sigmoid(), log_snr.exp(), log_snr
        for axes, curve in zip(panels, curves, strict=True):
            axes.plot(t, curve, color=colors[name], lw=2.4, ls=styles[name], label=name)
    panels[1].set_ylim(0, HIGHEST_SNR)
    panels[2].axhline(0, color=INK, lw=0.8, ls=":")
    names = (
        r"$\bar\alpha_t$",
        r"$\mathrm{SNR}(t) = \bar\alpha_t\,/\,(1-\bar\alpha_t)$",
        r"$\log\,\mathrm{SNR}(t)$",
    )
    for axes, name in zip(panels, names, strict=True):
        named(axes, "t  (0 clean, 1 noise)", "")
        axes.set_title(name, fontsize=LABEL + 1, color=INK)
        axes.set_xlim(0, 1)
    panels[2].legend(frameon=False, fontsize=NOTE)
    return made


def _plain(shown: Mapping[str, Schedule]) -> dict[str, str]:
    """A plain color each."""
    return dict(zip(shown, cycle(PLAIN), strict=False))


def _styles(shown: Mapping[str, Schedule]) -> dict[str, str]:
    """Another kind of line each time that the colors begin again; dashes are for named colors."""
    lines = (style for style in cycle(("-", ":", "-.")) for _ in PLAIN)
    return dict(zip(shown, lines, strict=False))


def step_weights(schedule: Schedule, latents: int) -> tuple[Tensor, Tensor]:
    r"""DDPM's weight :math:`\lambda_t`: the bound's weight of :math:`\|\varepsilon-\hat\varepsilon\|^2`.

    .. math:: \lambda_t = \frac{\beta_t^2}{2 \sigma_t^2 (1 - \beta_t)(1 - \bar\alpha_t)}
        = \tfrac{1}{2}\,\text{gap}_t
        = \tfrac{1}{2} \left(\frac{\mathrm{SNR}_s}{\mathrm{SNR}_t} - 1\right)

    for the step from ``t`` down to ``s``, with the posterior's variance for :math:`\sigma_t^2`.

    Args:
        schedule: the schedule.
        latents: ``T``; there is one step fewer.

    Returns:
        The time of each step, and its weight, ``(T - 1,)`` each.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 12.
    """
    require(latents >= 2, f"latents={latents}", "at least 2", "one latent has no step")
    t = torch.linspace(0, 1, latents, dtype=torch.float64)
    with torch.no_grad():
        log_snr = schedule.log_snr(t)
    return t[1:], 0.5 * torch.expm1(log_snr[:-1] - log_snr[1:])


def loss_weights(
    shown: Mapping[str, Schedule], latents: int = 1000, *, title: str = "", caption: str = ""
) -> Figure:
    r"""The weight of each step in the bound; :math:`L_{\text{simple}}` gives all of them weight 1.

    Args:
        shown: schedules by name.
        latents: ``T``, the same for each.
        title: of the figure, above.
        caption: of the figure, below.
    """
    require(len(shown) > 0, "no schedules", "at least one", "pass {'cosine': Cosine()}")
    made = figure(8.6, 4.6 + 0.6 * bool(caption), title, caption)
    axes = quiet(made.add_subplot())
    colors = _plain(shown)
    for name, schedule in shown.items():
        t, weight = step_weights(schedule, latents)
        axes.plot(t, weight, color=colors[name], lw=2.2, label=f"$L$, {name}")
    axes.axhline(1, color=COLORS[0], lw=2.4, ls="--", label=r"$L_\mathrm{simple}$: 1 at every t")
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    named(axes, "t  (0 clean, 1 noise)", r"weight $\lambda_t$ of $\|\epsilon-\hat\epsilon\|^2$")
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
