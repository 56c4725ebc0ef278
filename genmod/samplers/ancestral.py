r"""The generative chain itself: draw :math:`z_s \sim p(z_s | z_t)`, step by step (the lecture's sampling).

.. math:: p(z_s | z_t) = q(z_s | z_t, x = \hat x(z_t))

Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 6-7, algorithm 2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from genmod.denoisers import Denoiser, denoise
from genmod.distributions import Normal
from genmod.samplers.base import Linear, Rule
from genmod.samplers.walk import Walk
from genmod.schedules import Bridge, Schedule
from genmod.shapes import against
from genmod.types import PerSample, Real


class ReverseVariance(ABC):
    """The variance of a reverse step, given as its log-std above the posterior's."""

    @abstractmethod
    def excess(self, bridge: Bridge) -> Tensor:
        """``log(std_p / std_q)``, ``(B,)``."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class FixedSmall(ReverseVariance):
    r"""The posterior's own, :math:`\tilde\beta_t`: the only one that continuous time allows.

    It is the optimum for a point. As steps grow :class:`FixedLarge` tends to it, and a variance at
    a fixed ratio to it costs infinitely many nats.
    """

    def excess(self, bridge: Bridge) -> Tensor:
        """Nothing."""
        return torch.zeros_like(bridge.ratio)


class FixedLarge(ReverseVariance):
    r"""The forward step's, :math:`\beta_t`: the optimum for :math:`x \sim \mathcal{N}(0, I)`."""

    def excess(self, bridge: Bridge) -> Tensor:
        r""":math:`\log(\sigma_t / \sigma_s)`."""
        return bridge.ratio


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
        x_hat = denoise(self.denoiser, z_t, self.schedule.at(t), context).x_hat
        bridge = self.schedule.bridge(s, t)
        mean = against(bridge.state, z_t) * z_t + against(bridge.data, z_t) * x_hat
        return Normal(mean, against(bridge.log_std + self.variance.excess(bridge), z_t))

    def rule(self, walk: Walk) -> Rule:
        """The factors of every step: those of :meth:`law`."""
        rise = walk.rises
        fresh = -torch.expm1(-2 * rise)
        near, far = walk.times[1:], walk.times[:-1]
        with torch.no_grad():
            bridge = self.schedule.bridge(near.reshape(-1), far.reshape(-1))
            excess = self.variance.excess(bridge).reshape(near.shape).to(rise)
        std = walk.sigma[1:] * fresh.sqrt() * excess.exp()
        return Rule(walk.shrinkage * torch.exp(-rise), [walk.alpha[1:] * fresh], std)

    def extra_repr(self) -> str:
        """Its settings."""
        return f"variance={self.variance}"
