r"""Noise schedules: log-SNR against time, the one thing a diffusion's encoder decides.

Symbols: :math:`z_t = \alpha_t x + \sigma_t \varepsilon`, :math:`\lambda_t = \log(\alpha_t^2 / \sigma_t^2)`
(``log_snr``), ``t`` in [0, 1] from clean (0) to noise (1), ``s < t``. Every schedule is strictly
decreasing and finite at both ends, so no level is ever free or infinitely dear. All is computed in
float64 where the device has it: at a million steps, float32 does not resolve neighboring levels.

The lecture's :math:`\bar\alpha_t` is :math:`\alpha_t^2` here.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), sections 3.1 and 3.2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genmod.checks import require


def time_dtype(device: torch.device) -> torch.dtype:
    """The type of times: float64, except where the device has none (Apple's MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


class Point(NamedTuple):
    """A schedule at one time a row; each field is ``(B,)``."""

    t: Tensor
    log_snr: Tensor
    alpha: Tensor
    sigma: Tensor
    preserving: bool


class Bridge(NamedTuple):
    r"""The law of :math:`z_s` given :math:`z_t` and ``x``, for ``s < t``; each field is ``(B,)``.

    .. math:: q(z_s | z_t, x) = \mathcal{N}(\text{state}\, z_t + \text{data}\, x,\ \exp(\text{log_std})^2)
    """

    state: Tensor
    data: Tensor
    log_std: Tensor
    ratio: Tensor
    """``log(sigma_t / sigma_s)``: the log-std of the forward step above the posterior's."""


class Schedule(nn.Module, ABC):
    """A strictly decreasing log-SNR on [0, 1], finite at both ends."""

    preserving = True
    """Whether alpha^2 + sigma^2 is one; a schedule with scales of its own says ``False``."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at each time."""

    def slope(self, t: Tensor) -> Tensor:
        """The derivative of :meth:`log_snr` at each time (negative), by automatic differentiation."""
        with torch.enable_grad():
            time = t.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.log_snr(time).sum(), time, create_graph=True)
        return slope if torch.is_grad_enabled() else slope.detach()

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\alpha_t, \sigma_t)`; variance preserving: their squares sum to one."""
        return self._scales(self.log_snr(t))

    def at(self, t: Tensor) -> Point:
        """All of the schedule at once."""
        log_snr = self.log_snr(t)
        return Point(t, log_snr, *self._scales(log_snr), self.preserving)

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()

    def bridge(self, s: Tensor, t: Tensor) -> Bridge:
        r"""The law of :math:`z_s` given :math:`z_t` and ``x``.

        With :math:`c = 1 - \mathrm{SNR}_t / \mathrm{SNR}_s` its mean is
        :math:`\frac{\alpha_t \sigma_s^2}{\alpha_s \sigma_t^2} z_t + \alpha_s c\, x` and its variance
        :math:`\sigma_s^2 c`.

        Reference: Kingma et al. (2021), appendix A.2, eqs. 25-27.
        """
        near, far = self.at(s), self.at(t)
        kept = -torch.expm1(far.log_snr - near.log_snr)
        state = (far.alpha / near.alpha) * (near.sigma / far.sigma).square()
        return Bridge(
            state=state,
            data=near.alpha * kept,
            log_std=near.sigma.log() + 0.5 * kept.log(),
            ratio=(far.sigma / near.sigma).log(),
        )

    def ends(self) -> tuple[float, float]:
        """The log-SNR at the clean end (t = 0) and at the noisy end (t = 1)."""
        clean, noisy = self.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return clean, noisy

    @torch.no_grad()
    def time(self, log_snr: Tensor) -> Tensor:
        """The time at which the schedule has each log-SNR: the inverse of :meth:`log_snr`.

        By bisection to the last bit; schedules whose inverse has a closed form say it. Log-SNRs beyond an
        end give that end.
        """
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(64):
            middle = (low + high) / 2
            above = self.log_snr(middle) > log_snr
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        clean, noisy = self.ends()
        inside = torch.where(log_snr <= noisy, torch.ones_like(high), (low + high) / 2)
        return torch.where(log_snr >= clean, torch.zeros_like(low), inside)

    def check(self) -> None:
        """Require the schedule to be one.

        Raises:
            ValueError: its log-SNR is infinite somewhere, or does not decrease.
        """
        with torch.no_grad():
            log_snr = self.log_snr(torch.linspace(0, 1, 1001, dtype=torch.float64))
            alpha, sigma = self._scales(log_snr)
        require(
            bool(log_snr.isfinite().all()),
            f"{type(self).__name__} with log-SNR {log_snr[0]:g} at t=0 and {log_snr[-1]:g} at t=1",
            "a finite log-SNR on all of [0, 1]",
            "clip its ends (an infinite log-SNR makes a level free or infinitely dear)",
        )
        worst = int(log_snr.diff().argmax())
        require(
            bool((log_snr.diff() < 0).all()),
            f"{type(self).__name__} whose log-SNR rises or rests near t={worst / 1000:.3f}",
            "a strictly decreasing log-SNR",
            "t runs from clean (0) to noise (1): reverse time, or remove the flat part",
        )
        require(
            not self.preserving or bool(((alpha.square() + sigma.square() - 1).abs() < 1e-9).all()),
            f"{type(self).__name__}, whose scales' squares do not add up to one",
            "a variance-preserving schedule",
            "set preserving = False in the class that overrides _scales",
        )

    def extra_repr(self) -> str:
        """The ends, as printed."""
        clean, noisy = self.ends()
        return f"log_snr {clean:.4g} .. {noisy:.4g}"
