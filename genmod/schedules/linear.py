"""Log-SNR on a straight line."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.schedules.base import Schedule


class LinearLogSNR(Schedule):
    r""":math:`\lambda_t` falls linearly in ``t``.

    Args:
        clean: log-SNR at t = 0. 13.3 is where the learned schedule of VDM ends on 8-bit images.
        noisy: log-SNR at t = 1.

    Reference: Kingma et al. (2021), appendix I.2.

    >>> LinearLogSNR().log_snr(torch.tensor([0.0, 1.0]))
    tensor([13.3000, -5.0000])
    """

    def __init__(self, clean: float = 13.3, noisy: float = -5.0) -> None:
        super().__init__()
        self.clean, self.noisy = clean, noisy
        self.check()

    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at each time."""
        return self.clean + (self.noisy - self.clean) * t

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative: a constant."""
        return torch.full_like(t, self.noisy - self.clean)

    def _time(self, log_snr: Tensor) -> Tensor:
        return (self.clean - log_snr) / (self.clean - self.noisy)
