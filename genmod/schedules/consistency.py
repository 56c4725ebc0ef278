r"""What a schedule must be: two ends in order, and one log-SNR behind its three functions.

**Ends.** Detail larger than the noise at the clean end is modeled by the denoiser, smaller detail by the
decoder :math:`p(x | z_0)`. For integers the decoder needs fewer nats once the noise is a few values wide.

**Consistency.** A schedule can define :math:`\lambda_t`, :math:`(\alpha_t, \sigma_t)` and
:math:`d\lambda / dt` independently, and a bound uses all three. Where they disagree, the result is no
bound: scales that belong to another log-SNR gave one 7 nats above the exact log-likelihood.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genmod.checks import invalid

if TYPE_CHECKING:
    from genmod.schedules.base import Schedule

NOMINAL = 13.3
"""The clean end before a model sets it, and for real data: that of VDM's learned schedule."""


def clean_end(bins: int | None) -> float:
    r"""The log-SNR at which a diffusion of data with ``bins`` values should end.

    :math:`\log n - 1`, at least 1; 2.5 for bits, 13.3 for real numbers. Chosen on validation data after
    1,000 steps of training (``benchmarks/defaults.py``); longer runs gain from a cleaner end.

    >>> [round(clean_end(n), 1) for n in (2, 17, 256)], clean_end(None)
    ([2.5, 1.8, 4.5], 13.3)
    """
    if bins is None:
        return NOMINAL
    if bins == 2:
        return 2.5
    return max(1.0, math.log(bins) - 1)


def checked_ends(clean: float, noisy: float) -> tuple[float, float]:
    """The two ends, refused unless they are finite and ``clean > noisy``.

    Raises:
        ValueError: ``clean <= noisy``, or an infinite end.
    """
    if not (math.isfinite(clean) and math.isfinite(noisy) and clean > noisy):
        raise invalid(
            f"ends clean={clean:g}, noisy={noisy:g}",
            "a finite log-SNR at each end, clean > noisy",
            "clean is the log-SNR at t = 0, the larger one: 13.3 and -5 for example",
        )
    return clean, noisy


def check_schedule(schedule: Schedule, t: Tensor) -> None:
    """Require a decreasing, finite ``log_snr``, and ``scales`` that belong to it.

    Args:
        schedule: the schedule.
        t: even times from 0 to 1, in the precision and on the device to check on.

    Raises:
        ValueError: see :meth:`genmod.schedules.Schedule.check`.
    """
    name = type(schedule).__name__
    with torch.no_grad():
        log_snr = schedule.log_snr(t)
        _check_log_snr(name, log_snr, t)
        point, scales = schedule.at(t), schedule.scales(t)
    for alpha, sigma in ((point.alpha, point.sigma), scales):
        _check_scales(name, log_snr, alpha, sigma, t)
    if schedule.variance_preserving:
        excess = (point.alpha.square() + point.sigma.square() - 1).abs().max()
        if not float(excess) < 1e-6:
            raise invalid(
                f"{name} with alpha^2 + sigma^2 off from 1 by {float(excess):.2g}",
                "a sum of 1, because its variance_preserving is True",
                "set variance_preserving = False in the class that overrides scales",
            )


def _check_log_snr(name: str, log_snr: Tensor, t: Tensor) -> None:
    if not isinstance(log_snr, Tensor) or log_snr.shape != t.shape:
        is_tensor = isinstance(log_snr, Tensor)
        found = f"shape {tuple(log_snr.shape)}" if is_tensor else f"a {type(log_snr).__name__}"
        raise invalid(
            f"{name}, whose log_snr gives {found} for {len(t)} times",
            f"shape {tuple(t.shape)}",
            "return one log-SNR for each time",
        )
    if not log_snr.isfinite().all():
        raise invalid(
            f"{name} with log-SNR {log_snr[0]:g} at t=0 and {log_snr[-1]:g} at t=1",
            "a finite log-SNR on all of [0, 1]",
            "clip its ends: at an infinite log-SNR the KL is zero or infinite",
        )
    worst = int(log_snr.diff().argmax())
    if not (log_snr.diff() < 0).all():
        raise invalid(
            f"{name} whose log-SNR rises or is constant near t={worst / (len(t) - 1):.3f}",
            "a strictly decreasing log-SNR",
            "t runs from clean (0) to noise (1): reverse time, or remove the flat part",
        )


def _check_scales(name: str, log_snr: Tensor, alpha: Tensor, sigma: Tensor, t: Tensor) -> None:
    r"""Require :math:`2 \log(\alpha / \sigma)` to be the log-SNR."""
    found = 2 * (alpha.log() - sigma.log())
    # Plain formulas lose digits at the clean end: 1 - alpha^2 is 1.7e-6 at a log-SNR of 13.3.
    narrowest = min((log_snr.dtype, found.dtype), key=lambda dtype: -torch.finfo(dtype).eps)
    slack = 1e-4 if narrowest is torch.float64 else 1e-2
    error = (found - log_snr).abs().nan_to_num(nan=torch.inf) / (1 + log_snr.abs())
    worst = int(error.argmax())
    if not float(error[worst]) < slack:
        raise invalid(
            f"{name} with scales of log-SNR {float(found[worst]):.6g} at t={float(t[worst]):.3f}, "
            f"where log_snr gives {float(log_snr[worst]):.6g}",
            "alpha, sigma > 0 with log(alpha^2 / sigma^2) = log_snr",
            "compute scales from log_snr, in float64",
        )


def check_slope(schedule: Schedule, t: Tensor) -> None:
    """Require the slope to lie between the difference quotients to the left and to the right.

    Between, because a table has a kink at each of its entries.

    Args:
        schedule: the schedule.
        t: even times from 0 to 1.

    Raises:
        ValueError: the slope is not the derivative of the log-SNR.
    """
    inside = t[5:-5:10] + 3e-4 / torch.pi
    with torch.no_grad():
        middle = schedule.log_snr(inside)
        step = 1e-6 if middle.dtype is torch.float64 and t.dtype is torch.float64 else 1e-3
        left = (middle - schedule.log_snr(inside - step)) / step
        right = (schedule.log_snr(inside + step) - middle) / step
    with torch.no_grad():
        slope = schedule.slope(inside)
    low, high = torch.minimum(left, right), torch.maximum(left, right)
    slack = (1e-3 if step < 1e-4 else 5e-2) * (high.abs().maximum(low.abs()) + 1)
    wrong = ~((slope >= low - slack) & (slope <= high + slack))
    first = int(wrong.to(torch.int8).argmax())
    if slope.shape != inside.shape or bool(wrong.any()):
        raise invalid(
            f"{type(schedule).__name__} with slope {float(slope.flatten()[first]):.6g} at "
            f"t={float(inside[first]):.3f}, where log_snr has {float(right[first]):.6g}",
            "the derivative of log_snr",
            "correct slope, or leave it out: the base class differentiates log_snr",
        )
