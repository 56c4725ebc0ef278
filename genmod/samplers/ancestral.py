r"""The generative chain itself: draw :math:`z_s \sim p(z_s | z_t)`, step by step (the lecture's sampling).

.. math:: p(z_s | z_t) = q(z_s | z_t, x = \hat x(z_t))

Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 6-7, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from genmod import random
from genmod.denoisers import Denoised, Denoiser, denoise
from genmod.diffusion.variances import FixedSmall, ReverseVariance
from genmod.distributions import Normal
from genmod.samplers.base import Linear, Rule
from genmod.samplers.walk import Part, Walk, blend
from genmod.schedules import Bridge, Schedule
from genmod.shapes import expand_like
from genmod.types import PerSample, Real


class Ancestral(Linear):
    """Draw each state from the model's own reverse step.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        variance: the variance of a step; the posterior's by default.
    """

    draws = True

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
        bridge = self.schedule.bridge(s, t)
        mean = (
            expand_like(bridge.coef_z, z_t) * z_t + expand_like(bridge.coef_x, z_t) * denoised.x_hat
        )
        return Normal(
            mean, expand_like(bridge.log_std, z_t) + self.variance.log_std_ratio(bridge, denoised)
        )

    def rule(self, walk: Walk) -> Rule:
        """The factors of every step; of the noise the posterior's, unless the variance is fixed."""
        fresh = -torch.expm1(-2 * walk.rises)
        keep, data = walk.shrinkage * torch.exp(-walk.rises), walk.alpha[1:] * fresh
        std = walk.sigma[1:] * fresh.sqrt()
        return Rule(keep, [data], std * self._excess(walk).exp() if self.variance.fixed else std)

    def march(self, walk: Walk, z: Tensor) -> Iterator[tuple[Tensor, Part]]:
        """After each step of a walk, a draw from :meth:`law` and what it was made with."""
        # A variance of the step alone leaves a linear rule; another one has to hear all that is said.
        return super().march(walk, z) if self.variance.fixed else self._told(walk, z)

    def _told(self, walk: Walk, z: Tensor) -> Iterator[tuple[Tensor, Part]]:
        draw = self.drawing(walk)
        for step, level in enumerate(walk.levels[:-1]):
            denoised = walk.denoised(z, level)
            z = draw(step, z, denoised)
            yield z, denoised.x_hat

    def drawing(self, walk: Walk) -> Callable[[int, Tensor, Denoised], Tensor]:
        """How a step of a walk draws, from its number, the state before it and what is said of that."""
        rule = self.rule(walk)
        assert rule.noise is not None
        keep, data, std = map(walk.each, (rule.keep, *rule.data, rule.noise))

        def draw(step: int, z: Tensor, denoised: Denoised) -> Tensor:
            noise = random.normal_like(z)
            if not self.variance.fixed:
                noise = noise * self.variance.log_std_ratio(walk.bridge(step), denoised).exp()
            return blend(z, keep[step], [(data[step], denoised.x_hat), (std[step], noise)])

        return draw

    def _excess(self, walk: Walk) -> Tensor:
        """That of a variance which depends on the step alone, for all steps at once."""
        bridge = Bridge(*(each.reshape(-1) for each in walk.bridges))
        excess = self.variance.log_std_ratio(bridge, Denoised(bridge.log_sigma_ratio))
        return excess.reshape(walk.rises.shape).to(walk.rises)

    def extra_repr(self) -> str:
        """Its settings."""
        return f"variance={self.variance}"
