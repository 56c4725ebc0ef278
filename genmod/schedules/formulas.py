r"""Schedules with a formula: the straight line, EDM's noise levels, the cosine and the sigmoid.

Each is a ``Curve``: it runs from a clean log-SNR at t = 0 to a noisy one at t = 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genmod.checks import check_at_least, invalid
from genmod.schedules.curve import Curve


class LinearLogSNR(Curve):
    r"""The linear schedule of VDM: the log-SNR falls linearly in ``t``.

    .. math:: \lambda_t = (1 - t)\, \text{clean} + t\, \text{noisy}, \qquad
        \alpha_t^2 = \mathrm{sigmoid}(\lambda_t), \quad \sigma_t^2 = \mathrm{sigmoid}(-\lambda_t)

    Args:
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), appendix I.2.

    >>> schedule = LinearLogSNR(clean=4.0, noisy=-4.0)
    >>> schedule.log_snr(torch.tensor([0.0, 0.5, 1.0]))
    tensor([ 4.,  0., -4.])
    >>> alpha, sigma = schedule.scales(torch.tensor([0.5]))
    >>> alpha, sigma
    (tensor([0.7071]), tensor([0.7071]))
    """

    def __init__(self, clean: float | None = None, noisy: float = -5.0) -> None:
        super().__init__(clean, noisy)
        self.check()

    def log_snr(self, t: Tensor) -> Tensor:
        return self.clean + (self.noisy - self.clean) * t

    def slope(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.noisy - self.clean)

    def _time(self, log_snr: Tensor) -> Tensor:
        return (self.clean - log_snr) / (self.clean - self.noisy)


class Polynomial(Curve):
    r"""EDM's noise levels for sampling: a root of :math:`r = \sigma / \alpha` is linear in ``t``.

    .. math:: r_t = \left(r_0^{1/\rho} + t\, (r_1^{1/\rho} - r_0^{1/\rho})\right)^\rho, \qquad
        \lambda_t = -2 \log r_t

    Its states have variance one. EDM's have not: they are those of ``VarianceExploding(Polynomial())``.

    Args:
        smallest: :math:`r_0`, above 0 (EDM: 0.002); ``None`` leaves it free: a model sets it for its data.
        largest: :math:`r_1` (EDM: 80).
        rho: the root :math:`\rho`, 7 in EDM. At 1, ``r`` is linear in ``t``; as it grows, the log-SNR is.

    Reference: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative
    Models" (2022), eq. 5.

    >>> Polynomial()
    Polynomial(log_snr 12.43 .. -8.764, clean end free)
    """

    def __init__(
        self, smallest: float | None = None, largest: float = 80.0, rho: float = 7.0
    ) -> None:
        if not 0 < (0.002 if smallest is None else smallest) < largest:
            raise invalid(
                f"noise from {smallest} to {largest}",
                "0 < smallest < largest",
                "EDM has 0.002 to 80",
            )
        if not rho > 0:
            raise invalid(f"rho={rho}", "rho > 0", "EDM has 7")
        self.rho = rho
        clean = None if smallest is None else -2 * math.log(smallest)
        super().__init__(clean, -2 * math.log(largest), nominal=-2 * math.log(0.002))
        self.check()

    def _set_ends(self, clean: float, noisy: float) -> None:
        super()._set_ends(clean, noisy)
        self.first, self.last = (math.exp(-0.5 * end / self.rho) for end in (clean, noisy))

    def _end_argument(self, clean: float) -> tuple[str, float]:
        return "smallest", math.exp(-0.5 * clean)

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * self.rho * (self.first + (self.last - self.first) * t).log()

    def slope(self, t: Tensor) -> Tensor:
        rise = self.last - self.first
        return -2 * self.rho * rise / (self.first + rise * t)

    def _time(self, log_snr: Tensor) -> Tensor:
        root = torch.exp(-0.5 * log_snr / self.rho)
        return (root - self.first) / (self.last - self.first)


class InfiniteCurve(Curve, ABC):
    """The base class of curves whose log-SNR is infinite at both ends, cut at two log-SNRs.

    ``t`` is linear in a coordinate of the whole curve, such as the angle of the cosine. The log-SNR is
    infinite where the coordinate has its first or its last value, so a subclass gives the distance to each
    of them. Both are computed directly: far out, the difference of two coordinates has no digit left.
    """

    def _set_ends(self, clean: float, noisy: float) -> None:
        super()._set_ends(clean, noisy)
        ends = torch.tensor([clean, noisy], dtype=torch.float64)
        self.first, last = self._run(ends).tolist()
        self.rest = float(self._left(ends[1]))
        self.rise = last - self.first

    @abstractmethod
    def _run(self, log_snr: Tensor) -> Tensor:
        """The distance of the coordinate from its first value, at a log-SNR."""

    @abstractmethod
    def _left(self, log_snr: Tensor) -> Tensor:
        """The distance of the coordinate from its last value, at a log-SNR."""

    def _distances(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Both distances at a time, each precise where it is small."""
        return self.first + self.rise * t, self.rest + self.rise * (1 - t)

    def _time(self, log_snr: Tensor) -> Tensor:
        time: Tensor = (self._run(log_snr) - self.first) / self.rise
        return time


class Cosine(InfiniteCurve):
    r"""The cosine schedule of Improved DDPM, cut at two given log-SNRs. The default of the models.

    .. math:: \bar\alpha = \alpha_t^2 = \cos^2\theta / \cos^2\theta_0, \qquad
        \theta_0 = \tfrac{\pi}{2} \tfrac{o}{1 + o}

    where :math:`\theta` is linear in ``t``. The default offset is :math:`o = 0`; Improved DDPM has 0.008.
    The log-SNR of the whole curve is infinite at both ends. So ``t`` covers only the part between
    ``clean`` and ``noisy``; there, the curve is unchanged.

    Args:
        offset: the offset, at least 0.
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 17;
    cut as in Hoogeboom, Heek, Salimans, "Simple diffusion" (2023), appendix A.

    >>> schedule = Cosine()
    >>> schedule
    Cosine(log_snr 13.3 .. -5, clean end free)
    >>> alpha, sigma = schedule.scales(torch.tensor([0.5], dtype=torch.float64))
    >>> alpha.square(), sigma.square()
    (tensor([0.5403], dtype=torch.float64), tensor([0.4597], dtype=torch.float64))
    """

    def __init__(
        self, offset: float = 0.0, clean: float | None = None, noisy: float = -5.0
    ) -> None:
        check_at_least(offset, 0, "offset", "the paper's is 0.008")
        self.offset = offset
        self.start = 0.5 * math.pi * offset / (1 + offset)
        super().__init__(clean, noisy)
        self.check()

    def _run(self, log_snr: Tensor) -> Tensor:
        r""":math:`\theta - \theta_0` at a log-SNR, from :math:`\cos^2\theta = \cos^2\theta_0\, \bar\alpha`.

        .. math:: \tan(\theta - \theta_0) = \frac{2 \sin(\theta - \theta_0) \sin(\theta + \theta_0)}
            {\sin 2\theta + \sin 2\theta_0}

        Not as a difference of two computed angles: at a log-SNR of 40 and an offset of 0.008 it is 2e-16,
        less than the rounding of the angles.
        """
        sine, signal, noise = self._sine(log_snr), log_snr.sigmoid(), (-log_snr).sigmoid()
        return torch.atan2(
            noise * math.cos(self.start), math.sin(self.start) + sine * signal.sqrt()
        )

    def _left(self, log_snr: Tensor) -> Tensor:
        r""":math:`\tfrac{\pi}{2} - \theta` at a log-SNR; a computed difference has no digit left at -60."""
        return torch.atan2(math.cos(self.start) * log_snr.sigmoid().sqrt(), self._sine(log_snr))

    def _sine(self, log_snr: Tensor) -> Tensor:
        noise = (-log_snr).sigmoid()
        return (noise + math.sin(self.start) ** 2 * (1 - noise)).sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        r""":math:`2 \log\cos\theta - \log\sin(\theta - \theta_0) - \log\sin(\theta + \theta_0)`."""
        run, left = self._distances(t)
        apart = run.sin().log() + (run + 2 * self.start).sin().log()
        return 2 * left.sin().log() - apart

    def slope(self, t: Tensor) -> Tensor:
        run, left = self._distances(t)
        slope: Tensor = -self.rise * (
            2 / left.tan() + 1 / run.tan() + 1 / (run + 2 * self.start).tan()
        )
        return slope


class Sigmoid(InfiniteCurve):
    r"""The sigmoid schedule: :math:`\bar\alpha` falls along a sigmoid, cut at two given log-SNRs.

    .. math:: \bar\alpha = \frac{S(e) - S(v)}{S(e) - S(b)}, \qquad S = \mathrm{sigmoid}

    where ``v`` is linear in ``t``, from :math:`b` (``start / temperature``) to :math:`e`
    (``end / temperature``). The log-SNR of the whole curve is infinite at both ends. So ``t`` covers only
    the part between ``clean`` and ``noisy``; there, the curve is unchanged.

    Args:
        start: the argument of the sigmoid at its start.
        end: the argument at its end.
        temperature: divides both. A lower one makes the curve steeper in the middle.
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.

    Reference: Jabri, Fleet, Chen, "Scalable Adaptive Computation for Iterative Generation" (2023); as
    written in Chen, "On the Importance of Noise Scheduling for Diffusion Models" (2023), algorithm 1.

    >>> Sigmoid().alpha_bars(3)
    tensor([1.0000, 0.5175, 0.0067], dtype=torch.float64)
    """

    def __init__(
        self,
        start: float = -3.0,
        end: float = 3.0,
        temperature: float = 1.0,
        clean: float | None = None,
        noisy: float = -5.0,
    ) -> None:
        if not end > start:
            raise invalid(f"start={start}, end={end}", "start < end", "swap them")
        if not temperature > 0:
            raise invalid(f"temperature={temperature}", "above 0", "the paper's is 1")
        self.width = (end - start) / temperature
        # S(a) - S(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)), which is precise for a near b.
        half = 0.5 / temperature
        self.offset = math.log(math.cosh(start * half)) - math.log(math.cosh(end * half))
        super().__init__(clean, noisy)
        self.check()

    def _run(self, log_snr: Tensor) -> Tensor:
        r""":math:`v - b` at a log-SNR: the inverse of the curve."""
        ratio, half = (log_snr - self.offset).exp(), 0.5 * self.width
        return (2 * math.sinh(half) / (ratio + math.exp(-half))).log1p()

    def _left(self, log_snr: Tensor) -> Tensor:
        r""":math:`e - v` at a log-SNR.

        Not as ``width`` minus :math:`v - b`: at a log-SNR of -36 that difference rounds to zero.
        """
        ratio, half = (self.offset - log_snr).exp(), 0.5 * self.width
        return (2 * math.sinh(half) / (ratio + math.exp(-half))).log1p()

    def log_snr(self, t: Tensor) -> Tensor:
        r""":math:`\log\frac{\sinh((e - v) / 2)\, \cosh(b / 2)}{\sinh((v - b) / 2)\, \cosh(e / 2)}`."""
        run, left = self._distances(t)
        return _log_sinh(0.5 * left) - _log_sinh(0.5 * run) + self.offset

    def slope(self, t: Tensor) -> Tensor:
        run, left = self._distances(t)
        slope: Tensor = -0.5 * self.rise * (1 / (0.5 * left).tanh() + 1 / (0.5 * run).tanh())
        return slope


def _log_sinh(x: Tensor) -> Tensor:
    """``log(sinh(x))`` for ``x > 0``, without overflow at a large ``x`` (from 89 on in float32)."""
    return x + (-torch.expm1(-2 * x)).log() - math.log(2)
