r"""A denoiser: the estimate of the clean ``x`` from :math:`z_t` and its log-SNR.

Denoisers take variance-preserving states (:math:`\alpha^2 + \sigma^2 = 1`) and log-SNR, never ``t``:
so the same denoiser works with every schedule and every number of steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from genmod.config import Settings
from genmod.schedules import Point, Schedule
from genmod.shapes import expand_like
from genmod.types import PerSample, Real


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


def scales_of(log_snr: PerSample, z: Tensor) -> tuple[Tensor, Tensor]:
    """The variance-preserving alpha and sigma of a log-SNR, to broadcast against ``z``."""
    level = expand_like(log_snr, z)
    return level.sigmoid().sqrt(), (-level).sigmoid().sqrt()
