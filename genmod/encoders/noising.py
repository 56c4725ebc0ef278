"""A diffusion's encoder: fixed, linear, Gaussian, without a parameter."""

from __future__ import annotations

from torch import Tensor

from genmod.encoders.base import Encoder
from genmod.encoders.posteriors import Noised
from genmod.schedules import Schedule
from genmod.types import Batch


class Noising(Encoder):
    """Add noise as a schedule says; the data's own shape is the latent's.

    Args:
        schedule: how much noise at each time.
        bins: how many levels integer data have.

    Raises:
        ValueError: the schedule's log-SNR does not decrease, or is infinite at an end.
    """

    def __init__(self, schedule: Schedule, bins: int | None = None) -> None:
        super().__init__(bins)
        schedule.check()
        self.schedule = schedule

    def forward(self, x: Batch, context: Tensor | None = None) -> Noised:
        """The noised posterior of a batch."""
        return Noised(self.real(x), self.schedule)

    def formula(self) -> str:
        """The encoder as it would stand on paper."""
        return "q(z_t | x) = N(z_t; alpha_t x, sigma_t^2 I)"
