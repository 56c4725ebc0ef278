"""The cosine schedule."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmod.checks import require
from genmod.schedules.base import Schedule


class Cosine(Schedule):
    r"""The cosine schedule, cut at stated log-SNR ends.

    .. math:: \bar\alpha = \cos^2\theta / \cos^2\theta_0, \qquad
        \theta_0 = \tfrac{\pi}{2} \tfrac{o}{1 + o}

    where :math:`\theta` runs linearly in ``t``. The lecture's has offset :math:`o = 0`; that of
    Improved DDPM has 0.008. Uncut, their log-SNR is infinite at both ends (at one, with an offset),
    so ``t`` runs over the part between the ends given here; inside, the curve is unchanged.

    Args:
        offset: the offset, at least 0.
        clean: log-SNR at t = 0.
        noisy: log-SNR at t = 1.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 17;
    cut as in Hoogeboom, Heek, Salimans, "Simple diffusion" (2023), appendix A.

    >>> Cosine().scales(torch.tensor([0.5], dtype=torch.float64))[0].square()
    tensor([0.5403], dtype=torch.float64)
    """

    def __init__(self, offset: float = 0.0, clean: float = 13.3, noisy: float = -5.0) -> None:
        super().__init__()
        require(offset >= 0, f"offset={offset}", "offset >= 0", "the paper's is 0.008")
        require(clean > noisy, f"ends {clean}, {noisy}", "clean > noisy", "swap them")
        self.offset, self.clean, self.noisy = offset, clean, noisy
        self.start = 0.5 * math.pi * offset / (1 + offset)
        first, last = self._angle(torch.tensor([clean, noisy], dtype=torch.float64)).tolist()
        self.first, self.last = first, last
        self.check()

    def _angle(self, log_snr: Tensor) -> Tensor:
        r""":math:`\theta` where :math:`\cos^2\theta = \cos^2\theta_0\, \mathrm{sigmoid}(\lambda)`."""
        noise = (-log_snr).sigmoid()
        rest = noise + math.sin(self.start) ** 2 * (1 - noise)
        # Sine and cosine: the arcsine of a number near 1 loses digits, the arccosine of one near 0.
        return torch.atan2(rest.sqrt(), math.cos(self.start) * log_snr.sigmoid().sqrt())

    def log_snr(self, t: Tensor) -> Tensor:
        r""":math:`2 \log\cos\theta - \log\sin(\theta - \theta_0) - \log\sin(\theta + \theta_0)`."""
        theta = self.first + (self.last - self.first) * t
        apart = (theta - self.start).sin().log() + (theta + self.start).sin().log()
        return 2 * theta.cos().log() - apart

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative in closed form."""
        width = self.last - self.first
        theta = self.first + width * t
        return -width * (
            2 * theta.tan() + 1 / (theta - self.start).tan() + 1 / (theta + self.start).tan()
        )

    def _time(self, log_snr: Tensor) -> Tensor:
        return (self._angle(log_snr) - self.first) / (self.last - self.first)
