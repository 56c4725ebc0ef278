r"""Calibration: the error of a denoiser, measured at all noise levels, gives the variance of ``x``.

Symbols: :math:`\lambda` the log-SNR, ``D`` the dimensions of ``x``, and the relative error

.. math:: u(\lambda) = \frac{1}{D}\, \mathbb{E}\|\varepsilon - \hat\varepsilon\|^2
    = \frac{e^\lambda}{D}\, \mathbb{E}\|x - \hat x\|^2

It is near one at the clean end, and tends to zero as ``z`` becomes noise. For the optimal denoiser it is
:math:`1 - \mathbb{E}\|\hat\varepsilon\|^2 / D`, the moment that the first paper estimates. For any other
denoiser the best variance follows from the error itself.

Reference: Bao, Li, Zhu, Zhang, "Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance in
Diffusion Probabilistic Models" (2022), theorem 1 and eq. 8; Bao, Li, Sun, Zhu, Zhang, "Estimating the
Optimal Covariance with Imperfect Mean in Diffusion Probabilistic Models" (2022), theorem 3, for
denoisers that are not optimal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmod import random
from genmod.arrays import Rows, as_tensor
from genmod.checks import check_at_least, invalid
from genmod.denoisers.base import Denoised, Denoiser
from genmod.denoisers.targets import scales_of
from genmod.nn.modules import evaluation_mode
from genmod.schedules import Schedule
from genmod.signatures import checked
from genmod.tensors import PerSample, Real, expand_like

_ROWS = 1024
"""Rows that go through the network together."""


class Calibrated(Denoiser):
    r"""A denoiser that also returns the variance of ``x``, :math:`e^{-\lambda} u(\lambda)` for every entry.

    :func:`calibrate` builds it. The table is interpolated log-linearly, and constant beyond its ends.

    Args:
        denoiser: the denoiser.
        log_snr: the table's log-SNRs, rising, ``(L,)``, at least two.
        error: the relative error ``u`` at each of them, ``(L,)``.

    Raises:
        ValueError: log-SNRs that do not rise, or errors that are not numbers at least 0.
    """

    log_snr: Tensor
    log_error: Tensor

    def __init__(self, denoiser: Denoiser, log_snr: Tensor, error: Tensor) -> None:
        super().__init__()
        if log_snr.ndim != 1 or len(log_snr) < 2 or not (log_snr.diff() > 0).all():
            raise invalid(
                f"log-SNRs of shape {tuple(log_snr.shape)} that do not rise",
                "at least two, rising",
                "use calibrate, which makes the table",
            )
        if error.shape != log_snr.shape or not ((error >= 0) & error.isfinite()).all():
            raise invalid(
                f"errors of shape {tuple(error.shape)} for {len(log_snr)} log-SNRs, or some below "
                "0 or broken",
                "a finite error at least 0 for each",
                "use calibrate, on a denoiser without NaN",
            )
        self.denoiser = denoiser
        self.register_buffer("log_snr", log_snr)
        # The clamp: an error of exactly zero, as for data of one point, has no logarithm.
        self.register_buffer("log_error", error.clamp(min=torch.finfo(error.dtype).tiny).log())

    def error(self, log_snr: PerSample) -> PerSample:
        """The relative error ``u`` at each log-SNR."""
        level = log_snr.to(self.log_snr.dtype).clamp(self.log_snr[0], self.log_snr[-1])
        right = torch.searchsorted(self.log_snr, level).clamp(1, len(self.log_snr) - 1)
        low, high = self.log_snr[right - 1], self.log_snr[right]
        place = (level - low) / (high - low)
        return torch.lerp(self.log_error[right - 1], self.log_error[right], place).exp()

    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        denoised = self.denoiser(z, log_snr, context)
        variance = self.error(log_snr) * (-log_snr).exp()
        return denoised._replace(variance=expand_like(variance, z).expand_as(z))

    def check(self, schedule: Schedule) -> None:
        self.denoiser.check(schedule)

    def extra_repr(self) -> str:
        return f"levels={len(self.log_snr)}"


@checked
def calibrate(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Rows,
    levels: int = 64,
    context: Tensor | None = None,
) -> Calibrated:
    """Measure a denoiser's error at every noise level, in evaluation mode and without gradients.

    :class:`genmod.diffusion.Analytic` computes the best reverse variance from the result, for any number
    of steps. On the data of the measurement, no other variance that is the same for all samples and
    entries gives a better bound.

    Args:
        denoiser: a trained denoiser.
        schedule: gives the range of log-SNRs.
        x: real data, ``(N, *event)``; for integer data ``model.encoder.real(x)``. Each row goes through
            the network once for each level; a thousand rows are enough.
        levels: the number of log-SNRs, evenly from end to end.
        context: what the denoiser is conditioned on, one row a sample.

    Raises:
        ValueError: no data, data that are not real, another number of contexts, or fewer than two levels.

    >>> from genmod.denoisers import GaussianDenoiser
    >>> from genmod.schedules import LinearLogSNR
    >>> standard = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    >>> found = calibrate(standard, LinearLogSNR(8.0, -8.0), torch.randn(20_000, 2), levels=33)
    >>> [round(u, 1) for u in found.error(torch.tensor([-20.0, 0.0, 20.0])).tolist()]
    [0.0, 0.5, 1.0]
    """
    x = as_tensor(x)
    if len(x) == 0 or not x.is_floating_point():
        raise invalid(
            f"{len(x)} rows of type {x.dtype}",
            "at least one row of real numbers",
            "a thousand are enough; integers become real by model.encoder.real(x)",
        )
    if context is not None and len(context) != len(x):
        raise invalid(
            f"{len(context)} rows of context for {len(x)} of data",
            "one for each",
            "pass the context of these samples",
        )
    check_at_least(levels, 2, "levels", "64 is the default")
    # The network computes in its own type; data of another one are cast to it.
    own = next((p for p in denoiser.parameters() if p.is_floating_point()), x)
    x = x.to(own.dtype)
    clean, noisy = schedule.log_snr_range()
    log_snr = torch.linspace(noisy, clean, levels, dtype=torch.float64)
    with evaluation_mode(denoiser):
        error = [_error(denoiser, x, float(level), context) for level in log_snr]
    return Calibrated(denoiser, log_snr.to(x), torch.stack(error).to(x))


def _error(denoiser: Denoiser, x: Tensor, level: float, context: Tensor | None) -> Tensor:
    """The mean of the squared error of the noise, per dimension, at one log-SNR."""
    total = x.new_zeros(())
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS]
        given = None if context is None else context[start : start + _ROWS]
        log_snr = rows.new_full((len(rows),), level)
        alpha, sigma = scales_of(log_snr, rows)
        z = alpha * rows + sigma * random.normal(tuple(rows.shape), rows.dtype, rows.device)
        off = rows - denoiser(z, log_snr, given).x_hat
        total = total + (log_snr[0].exp() * off.square()).sum()
    return total / x.numel()
