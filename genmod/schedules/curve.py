"""Curves between two log-SNRs, whose clean end may be left free; the straight line, and that of EDM."""

from __future__ import annotations

import copy
import math
from abc import ABC

import torch
from torch import Tensor

from genmod.checks import require
from genmod.config import arguments
from genmod.schedules.base import Schedule
from genmod.schedules.ends import NOMINAL, checked_ends


class Curve(Schedule, ABC):
    r"""A curve between two log-SNRs, ``clean`` at t = 0 and ``noisy`` at t = 1.

    A free clean end stands at ``nominal`` until :meth:`~genmod.schedules.Schedule.resolve` sets it for the
    data. Models do so when they are built: the best end follows from the number of values.

    Args:
        clean: log-SNR at t = 0; ``None`` leaves it free.
        noisy: log-SNR at t = 1.
        nominal: where a free clean end stands before a model sets it.

    Raises:
        ValueError: ``clean <= noisy``, or an infinite end.

    >>> from genmod.schedules import Cosine
    >>> Cosine(), Cosine(clean=4.0)
    (Cosine(log_snr 13.3 .. -5, clean end free), Cosine(log_snr 4 .. -5))
    """

    clean: float
    noisy: float

    def __init__(self, clean: float | None, noisy: float, nominal: float = NOMINAL) -> None:
        super().__init__()
        self.has_free_end = clean is None
        self._set_ends(nominal if clean is None else clean, noisy)

    def _set_ends(self, clean: float, noisy: float) -> None:
        """Put the ends where they are wanted; subclasses compute what follows from them."""
        self.clean, self.noisy = checked_ends(clean, noisy)

    def _with_clean(self, clean: float, bins: int | None) -> Schedule:
        if not self.has_free_end:
            return self
        # A copy: the same schedule may serve models of other data.
        bound = copy.deepcopy(self)
        bound.has_free_end = False
        bound._set_ends(clean, self.noisy)
        name, value = self._end_argument(clean)
        settings = arguments(bound)
        if settings is not None and name in settings:
            settings[name] = value  # written to files and read back, it is the same schedule
        bound.check()
        return bound

    def _end_argument(self, clean: float) -> tuple[str, float]:
        """The constructor's argument for the clean end, and its value."""
        return "clean", clean

    def extra_repr(self) -> str:
        """The two ends, and whether the clean one is free."""
        return super().extra_repr() + (", clean end free" if self.has_free_end else "")


class LinearLogSNR(Curve):
    r""":math:`\lambda_t` falls linearly in ``t``.

    Args:
        clean: log-SNR at t = 0; ``None`` leaves it free: a model sets it for its data.
        noisy: log-SNR at t = 1.

    Reference: Kingma et al. (2021), appendix I.2.

    >>> LinearLogSNR().log_snr(torch.tensor([0.0, 1.0]))
    tensor([13.3000, -5.0000])
    """

    def __init__(self, clean: float | None = None, noisy: float = -5.0) -> None:
        super().__init__(clean, noisy)
        self.check()

    def log_snr(self, t: Tensor) -> Tensor:
        """The log signal-to-noise ratio at each time."""
        return self.clean + (self.noisy - self.clean) * t

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative: a constant."""
        return torch.full_like(t, self.noisy - self.clean)

    def _time(self, log_snr: Tensor) -> Tensor:
        return (self.clean - log_snr) / (self.clean - self.noisy)


class Polynomial(Curve):
    r"""The noise levels at which EDM samples, :math:`r = \sigma / \alpha`, on a line after a root.

    .. math:: r_t = \left(r_0^{1/\rho} + t\, (r_1^{1/\rho} - r_0^{1/\rho})\right)^\rho, \qquad
        \lambda_t = -2 \log r_t

    Its states have variance one here; EDM's own are ``VarianceExploding(Polynomial())``.

    Args:
        smallest: :math:`r_0`, above 0 (EDM: 0.002); ``None`` leaves it free: a model sets it for its data.
        largest: :math:`r_1` (EDM: 80).
        rho: the root :math:`\rho`; 7 by EDM, 1 is a line; as it grows, the log-SNR tends to a line.

    Reference: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative
    Models" (2022), eq. 5.

    >>> Polynomial()
    Polynomial(log_snr 12.43 .. -8.764, clean end free)
    """

    def __init__(
        self, smallest: float | None = None, largest: float = 80.0, rho: float = 7.0
    ) -> None:
        require(
            0 < (0.002 if smallest is None else smallest) < largest,
            f"noise from {smallest} to {largest}",
            "0 < smallest < largest",
            "EDM has 0.002 to 80",
        )
        require(rho > 0, f"rho={rho}", "rho > 0", "EDM has 7")
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
        """The log signal-to-noise ratio at each time."""
        return -2 * self.rho * (self.first + (self.last - self.first) * t).log()

    def slope(self, t: Tensor) -> Tensor:
        """Its derivative in closed form."""
        rise = self.last - self.first
        return -2 * self.rho * rise / (self.first + rise * t)

    def _time(self, log_snr: Tensor) -> Tensor:
        root = torch.exp(-0.5 * log_snr / self.rho)
        return (root - self.first) / (self.last - self.first)
