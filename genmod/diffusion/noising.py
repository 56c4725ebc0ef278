r"""The encoder of a diffusion and its posterior: :math:`q(z_t | x)`, fixed, linear and Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genmod.distributions import Normal
from genmod.encoders import Encoder, Posterior
from genmod.schedules import Schedule
from genmod.spec import SpecLike
from genmod.tensors import Batch, Mask, PerSample, Real, expand_like, repeat


@dataclass(frozen=True, eq=False)
class NoisingPosterior(Posterior):
    r"""The noising posterior of a diffusion: :math:`q(z_t|x) = N(\alpha_t x, \sigma_t^2 I)`.

    Args:
        x: the data as real numbers, ``(B, *event)``.
        schedule: the noise at each time.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 4, 6 and 7.
    """

    x: Real
    schedule: Schedule

    @property
    def rows(self) -> int:
        """How many samples it is the posterior of."""
        return self.x.shape[0]

    def at(self, t: PerSample) -> Normal:
        """``q(z_t | x)`` at times ``(B,)`` or ``(1,)``, in one step from ``x``."""
        point = self.schedule.at(t)
        return Normal(
            expand_like(point.alpha, self.x) * self.x, expand_like(point.sigma.log(), self.x)
        )

    def given(self, s: PerSample, t: PerSample, z_t: Real) -> Normal:
        """``q(z_s | z_t, x)`` for ``s < t``: a step of the forward process reversed, given ``x``."""
        bridge = self.schedule.bridge(s, t)
        mean = expand_like(bridge.coef_z, z_t) * z_t + expand_like(bridge.coef_x, z_t) * self.x
        return Normal(mean, expand_like(bridge.log_std, z_t))

    def repeat(self, times: int) -> NoisingPosterior:
        """Each row ``times`` times in a row."""
        return NoisingPosterior(repeat(self.x, times), self.schedule)


class NoisingEncoder(Encoder):
    """The encoder of a diffusion: it adds noise, and has no parameters of its own.

    The latent has the shape of the data.

    Args:
        schedule: the noise at each time.
        spec: the data it reads.

    Raises:
        ValueError: the schedule's log-SNR does not decrease, or is infinite at an end.
    """

    accepts_missing = False

    def __init__(self, schedule: Schedule, spec: SpecLike | None = None) -> None:
        super().__init__(spec)
        schedule.check()
        self.schedule = schedule
        self.latent_shape = None if self.spec is None else self.spec.shape

    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> NoisingPosterior:
        return NoisingPosterior(self.real(x), self.schedule)

    def formula(self) -> str:
        return "q(z_t | x) = N(z_t; alpha_t x, sigma_t^2 I)"
