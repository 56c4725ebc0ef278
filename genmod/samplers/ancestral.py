r"""The generative chain itself: draw :math:`z_s \sim p(z_s | z_t)`, step by step (the lecture's sampling).

.. math:: p(z_s | z_t) = q(z_s | z_t, x = \hat x(z_t))

Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 6-7, algorithm 2.
"""

from __future__ import annotations

from torch import Tensor

from genmod.denoisers import Denoiser, denoise
from genmod.distributions import Normal
from genmod.samplers.base import Sampler
from genmod.samplers.variances import FixedSmall, ReverseVariance
from genmod.schedules import Schedule
from genmod.shapes import against
from genmod.types import PerSample, Real


class Ancestral(Sampler):
    """Draw each state from the model's own reverse step.

    Args:
        denoiser: the denoiser.
        schedule: the schedule.
        variance: the variance of a step; the posterior's by default.
    """

    def __init__(
        self, denoiser: Denoiser, schedule: Schedule, variance: ReverseVariance | None = None
    ) -> None:
        super().__init__(denoiser, schedule)
        self.variance = variance or FixedSmall()

    def law(self, z_t: Real, t: PerSample, s: PerSample, context: Tensor | None = None) -> Normal:
        """The distribution of the state at ``s`` given the state at ``t > s``."""
        denoised = denoise(self.denoiser, z_t, self.schedule.at(t), context)
        bridge = self.schedule.bridge(s, t)
        mean = against(bridge.state, z_t) * z_t + against(bridge.data, z_t) * denoised.x_hat
        return Normal(mean, against(bridge.log_std, z_t) + self.variance.excess(bridge, denoised))

    def step(self, z_t: Real, t: PerSample, s: PerSample, context: Tensor | None = None) -> Tensor:
        """A draw of the state at ``s < t``."""
        return self.law(z_t, t, s, context).rsample()
