r"""The probability flow: a deterministic map between noise and data with the same marginals.

In :math:`y = z / \alpha` and :math:`r = \sigma / \alpha` it reads :math:`dy/dr = (y - \hat x) / r`.

Reference: Song et al., "Score-based generative modeling through SDEs" (2021), eq. 13; in these
variables Karras, Aittala, Aila, Laine, "Elucidating the design space" (2022), eq. 1 and algorithm 1.
"""

from __future__ import annotations

from torch import Tensor

from genmod.denoisers import denoise
from genmod.samplers.base import Sampler
from genmod.schedules import Point
from genmod.shapes import against
from genmod.types import PerSample, Real


class Heun(Sampler):
    """Heun's method on the probability flow: second order, two evaluations a step, either direction."""

    def step(self, z_t: Real, t: PerSample, s: PerSample, context: Tensor | None = None) -> Tensor:
        """The state at ``s``, which may lie before ``t`` (towards data) or after it (towards noise)."""
        here, there = self.schedule.at(t), self.schedule.at(s)
        y = z_t / against(here.alpha, z_t)
        width = against(there.sigma / there.alpha - here.sigma / here.alpha, z_t)
        first = self._slope(y, here, context)
        second = self._slope(y + width * first, there, context)
        return (y + 0.5 * width * (first + second)) * against(there.alpha, z_t)

    def _slope(self, y: Tensor, point: Point, context: Tensor | None) -> Tensor:
        x_hat = denoise(self.denoiser, y * against(point.alpha, y), point, context).x_hat
        return (y - x_hat) * against(point.alpha / point.sigma, y)
