r"""Time grids: the times of a sampler's steps from noise (t = 1) to data (t = 0).

``N`` steps have ``N + 1`` times. All grids end at the schedule's own clean end, t = 0, whose log-SNR is
finite: the step from there to data is the decoder's, :math:`p(x|z_0)`.

>>> from genmod.schedules import Cosine
>>> UniformTime().times(Cosine(), 4)
tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000], dtype=torch.float64)
>>> schedule = Cosine(clean=4.0, noisy=-4.0)
>>> schedule.log_snr(UniformLogSNR().times(schedule, 2)).round(decimals=6).abs()
tensor([4., 0., 4.], dtype=torch.float64)
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genmod.checks import check_at_least, check_positive, invalid, whole_number
from genmod.config import Settings
from genmod.schedules import Schedule
from genmod.schedules.base import time_dtype


class TimeGrid(Settings, ABC):
    """The base class of time grids: the times of the ``N`` steps of a sampler."""

    def times(self, schedule: Schedule, steps: int, device: torch.device | None = None) -> Tensor:
        """The times of ``steps`` steps, ``(steps + 1,)``, from 1 to 0.

        Raises:
            ValueError: fewer than one step; a schedule whose noisy end lies beyond the last number
                before one, where the times of two steps are the same.
        """
        steps = whole_number(steps, "steps")
        check_at_least(steps, 1, "steps", "one step goes from noise to z_0 at once")
        place = device or torch.device("cpu")
        u = torch.linspace(0, 1, steps + 1, dtype=time_dtype(place), device=place)
        times = self._between(schedule, u)
        # The inverse of the schedule has rounding errors, and the ends must be exact.
        times[0], times[-1] = 1, 0
        if not bool((times.diff() < 0).all()):
            raise invalid(
                f"{self} in {steps} steps under {schedule}, some at equal times near the noisy end",
                f"different times: the last before 1 has log-SNR {_last(schedule, u):.3g}",
                "raise the schedule's noisy end to about that (noisy=...), or take UniformTime()",
            )
        return times

    @abstractmethod
    def _between(self, schedule: Schedule, u: Tensor) -> Tensor:
        """The time for each ``u`` in [0, 1], from noise (0) to data (1)."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@torch.no_grad()
def _last(schedule: Schedule, u: Tensor) -> float:
    """The log-SNR at the largest time below 1, which is half an epsilon below it."""
    return float(schedule.log_snr(1 - torch.finfo(u.dtype).eps / 2 * torch.ones_like(u[:1])))


class UniformTime(TimeGrid):
    """Equal steps of ``t``, as the latents of a chain have."""

    def _between(self, schedule: Schedule, u: Tensor) -> Tensor:
        return 1 - u


class UniformLogSNR(TimeGrid):
    """Equal steps of log-SNR: the best for exponential integrators (Lu et al. 2022, appendix D)."""

    def _between(self, schedule: Schedule, u: Tensor) -> Tensor:
        clean, noisy = schedule.log_snr_range()
        return schedule.time(noisy + (clean - noisy) * u)


class PolynomialGrid(TimeGrid):
    r"""Equal steps of :math:`r^{1/\rho}`, with :math:`r = \sigma / \alpha`.

    .. math:: r_i = \left(r_\text{max}^{1/\rho}
        + \tfrac{i}{N} (r_\text{min}^{1/\rho} - r_\text{max}^{1/\rho})\right)^\rho

    Args:
        rho: 7 in the paper. At 1 the steps are even in :math:`r`; as it grows, they become even in log-SNR.

    Reference: Karras, Aittala, Aila, Laine, "Elucidating the design space" (2022), eq. 5.
    """

    def __init__(self, rho: float = 7.0) -> None:
        check_positive(rho, "rho")
        self.rho = rho

    def _between(self, schedule: Schedule, u: Tensor) -> Tensor:
        clean, noisy = schedule.log_snr_range()
        # r^(1/rho) as an exponential: r itself may be 1e9.
        first = torch.exp(u.new_tensor(-0.5 * noisy / self.rho))
        last = torch.exp(u.new_tensor(-0.5 * clean / self.rho))
        return schedule.time(-2 * self.rho * (first + (last - first) * u).log())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rho={self.rho:g})"
