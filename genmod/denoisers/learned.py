"""A denoiser that is a network and its target: what the network predicts."""

from __future__ import annotations

from torch import Tensor, nn

from genmod.checks import require
from genmod.denoisers.base import Denoised, Denoiser, scales_of
from genmod.denoisers.targets import Target, VelocityTarget
from genmod.nn.modules import outputs
from genmod.schedules import Schedule
from genmod.types import PerSample, Real


class Learned(Denoiser):
    """A network, whose output its target converts to ``x_hat``.

    Args:
        network: ``network(z, log_snr)`` or ``network(z, log_snr, context)``, giving as many numbers a
            row as ``z`` has. Any module will do.
        target: what its output is: a :class:`~genmod.denoisers.Target`. Velocity by default: its error is
            bounded at both ends of the schedule.
        interpolation: whether the network gives twice as many channels, the second half of which is
            the reverse variance's: -1 for the posterior's, 1 for the forward step's, so that a network
            that starts at zero starts half-way. What :class:`genmod.diffusion.LearnedInterpolation`
            needs.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 15,
    for the second half.
    """

    def __init__(
        self, network: nn.Module, target: Target | None = None, interpolation: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.target = target or VelocityTarget()
        self.interpolation = interpolation

    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        """Denoise ``z``, ``(B, *event)``, variance preserving, with log-SNR ``(B,)``."""
        output, *place = self._outputs(z, log_snr, context)
        x_hat = self.target.x_hat(output, z, *scales_of(log_snr, z))
        return Denoised(x_hat, interpolation=(place[0] + 1) / 2 if place else None)

    def output(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Tensor:
        """The network's raw output, which the target converts to ``x_hat``: ``(B, *event)``."""
        return self._outputs(z, log_snr, context)[0]

    def _outputs(self, z: Tensor, log_snr: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """The target's, and the reverse variance's where it is learned."""
        inputs, copies = self.target.inputs(z, log_snr), 2 if self.interpolation else 1
        shape = (copies * z.shape[1], *z.shape[2:])
        found = outputs(self.network, shape, inputs, log_snr, context=context)
        return found.chunk(2, 1) if self.interpolation else (found,)

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that ends noisier than the target allows."""
        noisy = schedule.log_snr_range()[1]
        require(
            noisy >= self.target.noisiest,
            f"a network that predicts {self.target} under a schedule that ends at log-SNR {noisy:g}",
            f"an end of {self.target.noisiest:g} or above",
            "its x_hat divides by alpha, about 0 there: predict VelocityTarget() or DataTarget()",
        )

    def extra_repr(self) -> str:
        """The target, and whether the reverse variance is learned."""
        return f"target={self.target}" + (", interpolation=True" if self.interpolation else "")
