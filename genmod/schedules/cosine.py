"""The cosine schedule."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmod.checks import require
from genmod.schedules.curve import Curve


class Cosine(Curve):
    r"""The cosine schedule, cut at stated log-SNR ends.

    .. math:: \bar\alpha = \cos^2\theta / \cos^2\theta_0, \qquad
        \theta_0 = \tfrac{\pi}{2} \tfrac{o}{1 + o}

    where :math:`\theta` runs linearly in ``t``. The default offset is :math:`o = 0`; Improved DDPM
    has 0.008. Uncut, their log-SNR is infinite at both ends (at one, with an offset),
    so ``t`` runs over the part between the ends given here; inside, the curve is unchanged.

    Args:
        offset: the offset, at least 0.
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 17;
    cut as in Hoogeboom, Heek, Salimans, "Simple diffusion" (2023), appendix A.

    >>> Cosine().scales(torch.tensor([0.5], dtype=torch.float64))[0].square()
    tensor([0.5403], dtype=torch.float64)
    """

    def __init__(
        self, offset: float = 0.0, clean: float | None = None, noisy: float = -5.0
    ) -> None:
        require(offset >= 0, f"offset={offset}", "offset >= 0", "the paper's is 0.008")
        self.offset = offset
        self.start = 0.5 * math.pi * offset / (1 + offset)
        super().__init__(clean, noisy)
        self.check()

    def _set_ends(self, clean: float, noisy: float) -> None:
        super()._set_ends(clean, noisy)
        ends = torch.tensor([clean, noisy], dtype=torch.float64)
        self.first, last = self._run(ends).tolist()
        self.rest = float(self._left(ends[1]))
        self.rise = last - self.first

    def _run(self, log_snr: Tensor) -> Tensor:
        r"""How far from its start :math:`\theta` is: :math:`\cos^2\theta = \cos^2\theta_0\, \bar\alpha`.

        .. math:: \tan(\theta - \theta_0) = \frac{2 \sin(\theta - \theta_0) \sin(\theta + \theta_0)}
            {\sin 2\theta + \sin 2\theta_0}

        The difference of the two angles keeps no digits: at a log-SNR of 40 it is below the rounding of
        an offset of 0.008.
        """
        sine, signal, noise = self._sine(log_snr), log_snr.sigmoid(), (-log_snr).sigmoid()
        return torch.atan2(
            noise * math.cos(self.start), math.sin(self.start) + sine * signal.sqrt()
        )

    def _left(self, log_snr: Tensor) -> Tensor:
        r""":math:`\tfrac{\pi}{2} - \theta` there: the difference itself is lost at -60."""
        return torch.atan2(math.cos(self.start) * log_snr.sigmoid().sqrt(), self._sine(log_snr))

    def _sine(self, log_snr: Tensor) -> Tensor:
        noise = (-log_snr).sigmoid()
        return (noise + math.sin(self.start) ** 2 * (1 - noise)).sqrt()

    def _ways(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """From the start and to the end of the whole curve, each precise where it is short."""
        return self.first + self.rise * t, self.rest + self.rise * (1 - t)

    def log_snr(self, t: Tensor) -> Tensor:
        r""":math:`2 \log\cos\theta - \log\sin(\theta - \theta_0) - \log\sin(\theta + \theta_0)`."""
        run, left = self._ways(t)
        apart = run.sin().log() + (run + 2 * self.start).sin().log()
        return 2 * left.sin().log() - apart

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative in closed form."""
        run, left = self._ways(t)
        slope: Tensor = -self.rise * (
            2 / left.tan() + 1 / run.tan() + 1 / (run + 2 * self.start).tan()
        )
        return slope

    def _time(self, log_snr: Tensor) -> Tensor:
        time: Tensor = (self._run(log_snr) - self.first) / self.rise
        return time
