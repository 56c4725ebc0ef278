"""Schedules given as a table: those of T betas."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from genmod.checks import require
from genmod.schedules.base import Schedule
from genmod.schedules.wrappers import Cut

FAR = 5.0
"""How far beyond the needed log-SNR a table's clean end may lie without a warning: DDPM's table on 8-bit
images is 4.7 beyond, published practice; on the digits it is 7.4 beyond."""


class Table(Schedule):
    r"""A table of log-SNRs at :math:`t = 0, 1/(T-1), \dots, 1`, with straight lines between.

    Any number of steps may be made through it. Where ``steps - 1`` divides ``T - 1`` each of them is
    an entry of the table; elsewhere they lie on the straight lines.

    Args:
        log_snrs: ``(T,)``, strictly decreasing, at least two.
    """

    def __init__(self, log_snrs: Tensor) -> None:
        super().__init__()
        require(
            log_snrs.ndim == 1 and len(log_snrs) >= 2,
            f"a table of shape {tuple(log_snrs.shape)}",
            "one dimension and at least 2 entries",
            "a diffusion of one latent needs no table: use steps=1 with any schedule",
        )
        # A plain attribute, not a buffer: .half() must not round it.
        self.table = log_snrs.detach().double().cpu()
        self._placed: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        rising = (self.table.diff() >= 0).nonzero().flatten()
        require(
            bool(self.table.isfinite().all()) and not len(rising),
            f"a table with infinite entries or a rise at {rising[:3].tolist()}",
            "finite, strictly decreasing log-SNRs",
            "clip betas away from 0 and 1",
        )

    @staticmethod
    def from_betas(betas: Tensor) -> Table:
        r"""The table of DDPM's :math:`\beta_1, \dots, \beta_T`; :math:`x_i` lies at ``(i-1)/(T-1)``.

        Raises:
            ValueError: fewer than two betas, or one outside (0, 1).
        """
        require(
            betas.ndim == 1 and len(betas) >= 2,
            f"betas of shape {tuple(betas.shape)}",
            "at least two, as a vector",
            "a table of DDPM's length has 1000",
        )
        require(
            bool(((betas > 0) & (betas < 1)).all()),
            f"betas from {float(betas.min()):g} to {float(betas.max()):g}",
            "every beta inside (0, 1)",
            "beta = 1 makes the log-SNR infinite: clip it to 0.999 as Improved DDPM does, or let "
            "ZeroTerminalSNR end the table at a finite floor",
        )
        log_alpha_bar = torch.log1p(-betas.double()).cumsum(0)
        return Table(log_alpha_bar - (-torch.expm1(log_alpha_bar)).log())

    def cut(self, clean: float | None = None, noisy: float | None = None) -> Cut:
        """The part of the table between two log-SNRs; inside, the curve is unchanged.

        Args:
            clean: the new log-SNR at t = 0; by default the table's own.
            noisy: the new log-SNR at t = 1; by default the table's own.

        Raises:
            ValueError: an end outside the table's own range, or ``clean <= noisy``.

        >>> from genmod.schedules import LinearBeta
        >>> LinearBeta(1000).cut(clean=2.0).log_snr_range()[0]
        2.0
        """
        return Cut(self, clean, noisy)

    def _with_clean(self, clean: float, bins: int | None) -> Schedule:
        """The table itself; warns if its clean end has less noise than a bin of the data needs."""
        excess = float(self.table[0]) - clean
        if bins is not None and excess > FAR:
            warnings.warn(
                f"{type(self).__name__} ends at log-SNR {float(self.table[0]):.3g}, but data of {bins} "
                f"values need about {clean:.3g}: the decoder resolves the rest at a lower cost. Cut the "
                f"table: schedule.cut(clean={clean:.3g})",
                UserWarning,
                stacklevel=4,
            )
        return self

    def log_snr_range(self) -> tuple[float, float]:
        """The log-SNR at the clean end (t = 0) and at the noisy end (t = 1)."""
        return float(self.table[0]), float(self.table[-1])

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        table = self._like(t)
        cell = t * (len(table) - 1)
        left = cell.long().clamp(0, len(table) - 2)
        low, high = table[left], table[left + 1]
        return low, high - low, cell - left

    def _like(self, t: Tensor) -> Tensor:
        """The table in the type and on the device of ``t``."""
        place = t.device, t.dtype
        if place not in self._placed:
            # A tensor made in inference mode could never take part in a backward pass later.
            with torch.inference_mode(False):
                self._placed[place] = self.table.to(dtype=t.dtype, device=t.device)
        return self._placed[place]

    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at each time."""
        low, rise, part = self._place(t)
        return torch.addcmul(low, rise, part)

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative: a constant between two entries."""
        return self._place(t)[1] * (len(self.table) - 1)

    def _time(self, log_snr: Tensor) -> Tensor:
        table = self._like(log_snr)
        right = torch.searchsorted(-table, -log_snr.contiguous()).clamp(1, len(table) - 1)
        low, high = table[right - 1], table[right]
        return (right - 1 + (log_snr - low) / (high - low)) / (len(table) - 1)
