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
    variance_preserving: bool


class Bridge(NamedTuple):
    r"""The law of :math:`z_s` given :math:`z_t` and ``x``, for ``s < t``; each field is ``(B,)``.

    .. math:: q(z_s | z_t, x) = \mathcal{N}(\text{state}\, z_t + \text{data}\, x,\ \exp(\text{log_std})^2)
    """

    state: Tensor
    data: Tensor
    log_std: Tensor
    ratio: Tensor
    """``log(sigma_t / sigma_s)``: the log-std of the forward step above the posterior's."""

    @classmethod
    def between(cls, near: Point, far: Point) -> Bridge:
        r"""The law between two times.

        With :math:`c = 1 - \mathrm{SNR}_t / \mathrm{SNR}_s` its mean is
        :math:`\frac{\alpha_t \sigma_s^2}{\alpha_s \sigma_t^2} z_t + \alpha_s c\, x` and its variance
        :math:`\sigma_s^2 c`.

        Reference: Kingma et al. (2021), appendix A.2, eqs. 25-27.
        """
        kept = -torch.expm1(far.log_snr - near.log_snr)
        return cls(
            state=(far.alpha / near.alpha) * (near.sigma / far.sigma).square(),
            data=near.alpha * kept,
            log_std=near.sigma.log() + 0.5 * kept.log(),
            ratio=(far.sigma / near.sigma).log(),
        )


class Schedule(nn.Module, ABC):
    """A strictly decreasing log-SNR on [0, 1], finite at both ends."""

    variance_preserving = True
    """Whether alpha^2 + sigma^2 is one; a schedule with scales of its own says ``False``."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at each time."""

    def slope(self, t: Tensor) -> Tensor:
        """The derivative of :meth:`log_snr` at each time (negative), by automatic differentiation."""
        with torch.inference_mode(False), torch.enable_grad():
            # A clone: a tensor made in inference mode has no gradient for good.
            time = t.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.log_snr(time).sum(), time, create_graph=True)
        return slope if torch.is_grad_enabled() else slope.detach()

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\alpha_t, \sigma_t)`; variance preserving: their squares sum to one."""
        return self._scales(self.log_snr(t))

    def at(self, t: Tensor) -> Point:
        """All of the schedule at once."""
        log_snr = self.log_snr(t)
        return Point(t, log_snr, *self._scales(log_snr), self.variance_preserving)

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()

    def bridge(self, s: Tensor, t: Tensor) -> Bridge:
        r"""The law of :math:`z_s` given :math:`z_t` and ``x``."""
        return Bridge.between(self.at(s), self.at(t))

    def log_snr_range(self) -> tuple[float, float]:
        """The log-SNR at the clean end (t = 0) and at the noisy end (t = 1)."""
        with torch.no_grad():
            clean, noisy = self.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return clean, noisy

    def scales_at_zero(self) -> tuple[float, float]:
        r""":math:`\alpha_0` and :math:`\sigma_0`: how the state beside the data is made of it."""
        device = next((part.device for part in (*self.parameters(), *self.buffers())), None)
        with torch.no_grad():
            alpha, sigma = self.scales(torch.zeros(1, dtype=torch.float64, device=device))
        return float(alpha), float(sigma)

    def alpha_bars(self, steps: int) -> Tensor:
        r"""The lecture's :math:`\bar\alpha_1, \dots, \bar\alpha_T`, ``(T,)``, when cut into ``steps``.

        Those of the process scaled to keep variance, which is :math:`\mathrm{sigmoid}(\lambda)` for
        every kind of scales. However many steps there are, each is a point on the one curve.
        """
        return self._nodes(steps).sigmoid()

    def betas(self, steps: int) -> Tensor:
        r"""The lecture's :math:`\beta_1, \dots, \beta_T`, ``(T,)``, when cut into ``steps``.

        .. math:: \beta_i = 1 - \bar\alpha_i / \bar\alpha_{i-1}, \qquad \bar\alpha_0 = 1

        Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 19.

        >>> from genmod.schedules import Cosine
        >>> Cosine().betas(3)
        tensor([1.6745e-06, 4.5974e-01, 9.8761e-01], dtype=torch.float64)
        """
        kept = nn.functional.logsigmoid(self._nodes(steps))
        return -torch.expm1(torch.cat([kept[:1], kept.diff()]))

    @torch.no_grad()
    def _nodes(self, steps: int) -> Tensor:
        """The log-SNR of each of ``steps`` latents."""
        require(steps >= 1, f"steps={steps}", "steps >= 1", "steps counts the latents")
        return self.log_snr(torch.linspace(0, 1, steps, dtype=torch.float64))

    @torch.no_grad()
    def time(self, log_snr: Tensor) -> Tensor:
        """The time at which the schedule has each log-SNR: the inverse of :meth:`log_snr`.

        Log-SNRs beyond an end give that end.
        """
        clean, noisy = self.log_snr_range()
        inside = self._time(log_snr.clamp(noisy, clean)).clamp(0, 1)
        inside = torch.where(log_snr <= noisy, torch.ones_like(inside), inside)
        return torch.where(log_snr >= clean, torch.zeros_like(inside), inside)

    def _time(self, log_snr: Tensor) -> Tensor:
        """The inverse between the ends: by bisection to the last bit, where no subclass says it."""
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(64):
            middle = (low + high) / 2
            above = self.log_snr(middle) > log_snr
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return (low + high) / 2

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
            not self.variance_preserving
            or bool(((alpha.square() + sigma.square() - 1).abs() < 1e-9).all()),
            f"{type(self).__name__}, whose scales' squares do not add up to one",
            "a variance-preserving schedule",
            "set variance_preserving = False in the class that overrides _scales",
        )

    def extra_repr(self) -> str:
        """The ends, as printed."""
        clean, noisy = self.log_snr_range()
        return f"log_snr {clean:.4g} .. {noisy:.4g}"
