"""The polynomial schedule of EDM."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.checks import require
from genmod.schedules.base import Schedule


class Polynomial(Schedule):
    r"""The noise levels at which EDM samples, :math:`r = \sigma / \alpha`, on a line after a root.

    .. math:: r_t = \left(r_0^{1/\rho} + t\, (r_1^{1/\rho} - r_0^{1/\rho})\right)^\rho, \qquad
        \lambda_t = -2 \log r_t

    Its states have variance one here; EDM's own are ``VarianceExploding(Polynomial())``.

    Args:
        smallest: :math:`r_0`, above 0.
        largest: :math:`r_1`.
        rho: the root :math:`\rho`; 7 by EDM, 1 is a line; as it grows, the log-SNR tends to a line.

    Reference: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative
    Models" (2022), eq. 5.

    >>> Polynomial()
    Polynomial(log_snr 12.43 .. -8.764)
    """

    def __init__(self, smallest: float = 0.002, largest: float = 80.0, rho: float = 7.0) -> None:
        super().__init__()
        require(
            0 < smallest < largest,
            f"noise from {smallest} to {largest}",
            "0 < smallest < largest",
            "EDM has 0.002 to 80",
        )
        require(rho > 0, f"rho={rho}", "rho > 0", "EDM has 7")
        self.rho = rho
        self.first, self.last = smallest ** (1 / rho), largest ** (1 / rho)
        self.check()

    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at each time."""
        return -2 * self.rho * (self.first + (self.last - self.first) * t).log()

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative in closed form."""
        rise = self.last - self.first
        return -2 * self.rho * rise / (self.first + rise * t)

    def _time(self, log_snr: Tensor) -> Tensor:
        root = torch.exp(-0.5 * log_snr / self.rho)
        return (root - self.first) / (self.last - self.first)
