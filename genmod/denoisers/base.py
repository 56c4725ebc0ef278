r"""Denoisers: the estimate of the clean ``x`` from :math:`z_t` and its log-SNR, by a network or otherwise.

Denoisers take variance-preserving states (:math:`\alpha^2 + \sigma^2 = 1`) and the log-SNR, never ``t``. So
the same denoiser works with every schedule and every number of steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from genmod.checks import invalid
from genmod.config import Settings
from genmod.denoisers.targets import Target, VelocityTarget, scales_of
from genmod.nn.modules import call_part, outputs
from genmod.schedules import Schedule
from genmod.schedules.base import Point
from genmod.tensors import PerSample, Real, expand_like


class Denoised(NamedTuple):
    """The result of a denoiser: the mean of ``x`` given ``z_t``, and optionally its variance."""

    x_hat: Tensor
    """The mean of ``x`` given ``z_t``, ``(B, *event)``."""
    variance: Tensor | None = None
    """The variance of ``x`` given ``z_t``, entry by entry, ``(B, *event)``."""
    interpolation: Tensor | None = None
    """The reverse step's variance by a network, entry by entry: 0 for the posterior's, 1 for the forward
    step's (:class:`genmod.diffusion.LearnedInterpolation`)."""


class Denoiser(Settings, nn.Module, ABC):
    r"""The base class of denoisers: from a noised state and its log-SNR to the mean of ``x``.

    .. math:: \hat x(z, \lambda) \approx \mathbb{E}[x | z], \qquad
        z = \alpha x + \sigma \varepsilon, \quad \alpha^2 = \mathrm{sigmoid}(\lambda) = 1 - \sigma^2

    A denoiser of your own implements :meth:`forward`. Usually you only supply a network, and
    :class:`~genmod.denoisers.Learned` makes it a denoiser. This one is optimal for data
    :math:`\mathcal{N}(0, I)`:

    >>> class Shrink(Denoiser):
    ...     def forward(self, z, log_snr, context=None):
    ...         alpha = log_snr.sigmoid().sqrt().reshape(-1, *[1] * (z.ndim - 1))
    ...         return Denoised(alpha * z)
    >>> Shrink()(torch.ones(1, 2), torch.tensor([0.0])).x_hat
    tensor([[0.7071, 0.7071]])

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), section 3.3; azula.
    """

    if TYPE_CHECKING:  # torch's own call is untyped

        def __call__(
            self, z: Real, log_snr: PerSample, context: Tensor | None = None
        ) -> Denoised: ...

    @abstractmethod
    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        """Denoise a batch of states.

        Args:
            z: variance-preserving states, ``(B, *event)``.
            log_snr: the log-SNR of each, ``(B,)``.
            context: what the denoiser is conditioned on, ``(B, ...)``.
        """

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule at whose noisy end ``x_hat`` cannot be computed.

        Raises:
            ValueError: its noisy end has a lower log-SNR than the denoiser's target allows.
        """


def denoise(denoiser: Denoiser, z: Tensor, point: Point, context: Tensor | None = None) -> Denoised:
    """Denoise a state of any schedule: scale it to variance one, and pass its log-SNR."""
    log_snr = point.log_snr.to(z.dtype)
    if not point.variance_preserving:
        z = z / expand_like(torch.hypot(point.alpha, point.sigma), z)
    denoised: Denoised = call_part(denoiser, z, log_snr, context)
    if not isinstance(denoised, Denoised):
        raise invalid(
            f"a {type(denoised).__name__} from {type(denoiser).__name__}",
            "a Denoised",
            "return Denoised(x_hat)",
        )
    if denoised.x_hat.shape != z.shape:
        raise invalid(
            f"x_hat of shape {tuple(denoised.x_hat.shape)} from {type(denoiser).__name__} for "
            f"states of shape {tuple(z.shape)}",
            "the states' own shape",
            "return one estimate a row",
        )
    return denoised


class Learned(Denoiser):
    r"""A denoiser that is a network: a target converts the network's output to ``x_hat``.

    Args:
        network: ``network(z, log_snr)`` or ``network(z, log_snr, context)``, any module. Its output has as
            many numbers a row as ``z``.
        target: what its output is, a :class:`~genmod.denoisers.Target`; velocity by default, whose error
            is bounded at both ends of the schedule.
        interpolation: whether the network returns twice as many channels. The second half is then the
            reverse variance, from -1 (the posterior's) to 1 (the forward step's), for
            :class:`genmod.diffusion.LearnedInterpolation`.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 15,
    for the second half; the targets name their own.

    >>> from genmod.denoisers import NoiseTarget
    >>> from genmod.nn import DenoisingMLP
    >>> denoiser = Learned(DenoisingMLP((2,), width=8), target=NoiseTarget())
    >>> denoiser(torch.zeros(5, 2), torch.zeros(5)).x_hat.shape
    torch.Size([5, 2])
    """

    def __init__(
        self, network: nn.Module, target: Target | None = None, interpolation: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.target = target or VelocityTarget()
        self.interpolation = interpolation

    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        output, *place = self._outputs(z, log_snr, context)
        x_hat = self.target.x_hat(output, z, *scales_of(log_snr, z))
        return Denoised(x_hat, interpolation=(place[0] + 1) / 2 if place else None)

    def output(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Tensor:
        """The network's raw output, which the target converts to ``x_hat``: ``(B, *event)``."""
        return self._outputs(z, log_snr, context)[0]

    def _outputs(self, z: Tensor, log_snr: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """The output of the target, and that of the reverse variance where it is learned."""
        inputs, copies = self.target.inputs(z, log_snr), 2 if self.interpolation else 1
        shape = (copies * z.shape[1], *z.shape[2:])
        whole = outputs(self.network, shape, inputs, log_snr, context=context)
        return whole.chunk(2, 1) if self.interpolation else (whole,)

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that ends noisier than the target allows."""
        noisy = schedule.log_snr_range()[1]
        if not noisy >= self.target.noisiest:
            raise invalid(
                f"a network that predicts {self.target} under a schedule that ends at log-SNR "
                f"{noisy:g}",
                f"an end of {self.target.noisiest:g} or above",
                "its x_hat divides by alpha, about 0 there: predict VelocityTarget() or "
                "DataTarget()",
            )

    def extra_repr(self) -> str:
        return f"target={self.target}" + (", interpolation=True" if self.interpolation else "")
