r"""The generative chain itself: draw :math:`z_s \sim p(z_s | z_t)`, step by step.

.. math:: p(z_s | z_t) = q(z_s | z_t, x = \hat x(z_t))

Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 6-7, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from genmod import random
from genmod.denoisers import Denoised, Denoiser, denoise
from genmod.diffusion.variances import FixedSmall, ReverseVariance
from genmod.distributions import Normal
from genmod.samplers.base import Denoise, Sampler, State, intervals
from genmod.schedules import Schedule
from genmod.shapes import expand_like
from genmod.types import PerSample, Real


class Ancestral(Sampler):
    """Draw each state from the model's own reverse step.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        variance: the variance of a step; the posterior's by default.
    """

    stochastic = True

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        variance: ReverseVariance | None = None,
    ) -> None:
        super().__init__(denoiser, schedule)
        self.variance = variance or FixedSmall()

    def law(self, z_t: Real, t: PerSample, s: PerSample, context: Tensor | None = None) -> Normal:
        """The distribution of the state at ``s`` given the state at ``t > s``."""
        denoised = denoise(self.denoiser, z_t, self.schedule.at(t), context)
        return self._law(z_t, denoised, t, s)

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """A draw of the reverse step's law for each step."""
        for t, s in intervals(times, z):
            denoised = denoise(z, t)
            z = self.draw(z, denoised, t, s)
            yield State(s, z, denoised.x_hat)

    def draw(self, z_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        """A draw of the reverse step's law, given what the denoiser returned for ``z_t``."""
        law = self._law(z_t, denoised, t, s)
        return law.mean + law.stddev * random.normal_like(z_t)

    def _law(self, z_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> Normal:
        bridge = self.schedule.bridge(s.reshape(-1), t.reshape(-1))
        mean = expand_like(bridge.state, z_t) * z_t + expand_like(bridge.data, z_t) * denoised.x_hat
        log_std = expand_like(bridge.log_std, z_t) + self.variance.log_std_ratio(bridge, denoised)
        return Normal(mean, log_std.to(z_t.dtype))

    def extra_repr(self) -> str:
        """Its settings."""
        return f"variance={self.variance}"
