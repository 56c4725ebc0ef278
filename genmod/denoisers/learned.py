"""A denoiser that is a network and what it is asked for."""

from __future__ import annotations

from torch import Tensor, nn

from genmod.checks import require
from genmod.denoisers.base import Denoised, Denoiser, scales_of
from genmod.denoisers.targets import Target, Velocity
from genmod.nn import outputs
from genmod.schedules import Schedule
from genmod.types import PerSample, Real


class Learned(Denoiser):
    """A network read through its target.

    Args:
        network: ``network(z, log_snr)`` or ``network(z, log_snr, context)``, giving as many numbers a
            row as ``z`` has. Any module will do.
        target: what its output is: :class:`Noise`, :class:`Data`, :class:`Velocity`, :class:`Score`.
            Velocity by default: its error is bounded at both ends of the schedule.
    """

    def __init__(self, network: nn.Module, target: Target | None = None) -> None:
        super().__init__()
        self.network = network
        self.target = target or Velocity()

    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        """Denoise ``z``, ``(B, *event)``, variance preserving, with log-SNR ``(B,)``."""
        output = outputs(self.network, tuple(z.shape[1:]), z, log_snr, context=context)
        alpha, sigma = scales_of(log_snr, z)
        return Denoised(self.target.x_hat(output, z, alpha, sigma))

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that ends noisier than the target can be read at."""
        noisy = schedule.ends()[1]
        require(
            noisy >= self.target.noisiest,
            f"a network that predicts {self.target} under a schedule that ends at log-SNR {noisy:g}",
            f"an end of {self.target.noisiest:g} or above",
            "its reading divides by alpha, which is nothing there: predict Velocity() or Data()",
        )

    def extra_repr(self) -> str:
        """The target."""
        return f"target={self.target}"
