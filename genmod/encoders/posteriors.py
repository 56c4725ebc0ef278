"""Posteriors that are not one distribution: level by level, or noised to any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from genmod.distributions import Normal
from genmod.schedules import Schedule
from genmod.shapes import against, repeat
from genmod.types import PerSample, Real


@dataclass(frozen=True, eq=False)
class TopDownPosterior:
    """A posterior in the prior's own order: each level given the state that the levels above left.

    Args:
        features: what the bottom-up pass saw, one tensor a level, in the order of the levels.
        heads: for each level, ``head(features, state)`` gives its distribution.
        context: what the encoder was told beside the data.
    """

    features: Sequence[Tensor]
    heads: Sequence[nn.Module]
    context: Tensor | None = None

    def conditional(self, level: int, state: Tensor) -> Normal:
        """``q(z_l | z_above, x)``."""
        told = () if self.context is None else (self.context,)
        return self.heads[level](self.features[level], state, *told)


@dataclass(frozen=True, eq=False)
class Noised:
    r"""A diffusion's fixed posterior, ``x`` noised: :math:`q(z_t|x) = N(\alpha_t x, \sigma_t^2 I)`.

    Args:
        x: the data as real numbers, ``(B, *event)``.
        schedule: how much noise at each time.
    """

    x: Real
    schedule: Schedule

    def at(self, t: PerSample) -> Normal:
        """``q(z_t | x)``: any time at once, without the steps between (the lecture's induction)."""
        point = self.schedule.at(t)
        return Normal(against(point.alpha, self.x) * self.x, against(point.sigma.log(), self.x))

    def given(self, s: PerSample, t: PerSample, z_t: Real) -> Normal:
        """``q(z_s | z_t, x)`` for ``s < t``: the forward process reversed, knowing ``x``."""
        bridge = self.schedule.bridge(s, t)
        mean = against(bridge.state, z_t) * z_t + against(bridge.data, z_t) * self.x
        return Normal(mean, against(bridge.log_std, z_t))

    def repeat(self, times: int) -> Noised:
        """Each row ``times`` times in a row."""
        return Noised(repeat(self.x, times), self.schedule)
