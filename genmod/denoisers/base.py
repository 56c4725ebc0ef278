r"""A denoiser: the estimate of the clean ``x`` from :math:`z_t` and its log-SNR. Most are a network.

Denoisers take variance-preserving states (:math:`\alpha^2 + \sigma^2 = 1`) and log-SNR, never ``t``:
so the same denoiser works with every schedule and every number of steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from genmod.checks import require
from genmod.config import Settings
from genmod.denoisers.targets import Target, VelocityTarget, scales_of
from genmod.nn.modules import outputs
from genmod.schedules import Schedule
from genmod.schedules.base import Point
from genmod.shapes import PerSample, Real, expand_like


class Denoised(NamedTuple):
    """A denoiser's result: the mean of ``x`` given ``z_t``, and more where it estimates more."""

    x_hat: Tensor
    variance: Tensor | None = None
    """The variance of ``x`` given ``z_t``, entry by entry."""
    interpolation: Tensor | None = None
    """A network's choice of the reverse step's variance, entry by entry: 0 for the posterior's, 1
    for the forward step's (:class:`genmod.diffusion.LearnedInterpolation`)."""


class Denoiser(Settings, nn.Module, ABC):
    """The mean of ``x`` given ``z_t``."""

    if TYPE_CHECKING:  # torch's own call is untyped

        def __call__(
            self, z: Real, log_snr: PerSample, context: Tensor | None = None
        ) -> Denoised: ...

    @abstractmethod
    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        """Denoise ``z``, ``(B, *event)``, variance preserving, with log-SNR ``(B,)``."""

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule at whose noisy end ``x_hat`` cannot be computed.

        Raises:
            ValueError: it ends noisier than where the denoiser's target gives an ``x_hat``.
        """


def denoise(denoiser: Denoiser, z: Tensor, point: Point, context: Tensor | None = None) -> Denoised:
    """Denoise a state of any schedule: scaled to variance one, its noise level given as log-SNR."""
    log_snr = point.log_snr.to(z.dtype)
    if not point.variance_preserving:
        z = z / expand_like(torch.hypot(point.alpha, point.sigma), z)
    denoised = denoiser(z, log_snr, context)
    if denoised.x_hat.shape != z.shape:
        raise ValueError(
            f"got x_hat of shape {tuple(denoised.x_hat.shape)} from {type(denoiser).__name__} for states "
            f"of shape {tuple(z.shape)}; expected the states' own shape; return one estimate a row"
        )
    return denoised


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
