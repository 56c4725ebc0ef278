r"""The generative chain itself: draw :math:`z_s \sim p(z_s | z_t)`, step by step.

.. math:: p(z_s | z_t) = q(z_s | z_t, x = \hat x(z_t))

Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 6-7, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from genmod import random
from genmod.denoisers import Denoised, Denoiser
from genmod.diffusion.reverse import ReverseProcess
from genmod.diffusion.variances import FixedSmall, ReverseVariance
from genmod.samplers.base import Denoise, Sampler, State, intervals
from genmod.schedules import Schedule


class Ancestral(Sampler):
    """Draw each state from the reverse step ``p(z_s | z_t)`` (:class:`genmod.diffusion.ReverseProcess`).

    With a model's own variance and times this is the model's generative process.

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

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """A draw of the reverse step's law for each step."""
        for t, s in intervals(times, z):
            denoised = denoise(z, t)
            z = self.draw(z, denoised, t, s)
            yield State(s, z, denoised.x_hat)

    def draw(self, z_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        """A draw of ``p(z_s | z_t)``, given what the denoiser returned for ``z_t``."""
        reverse = ReverseProcess(self.denoiser, self.schedule, self.variance)
        times = (time.reshape(-1).expand(len(z_t)) for time in (t, s))
        law = reverse.law_given(denoised, z_t, *times)
        return (law.mean + law.stddev * random.normal_like(z_t)).to(z_t.dtype)

    def extra_repr(self) -> str:
        """Its settings."""
        return f"variance={self.variance}"
