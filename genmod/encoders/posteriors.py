"""Posteriors: what an encoder gives, one distribution or one that is drawn level by level."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from genmod.distributions import Normal


class Posterior(ABC):
    """``q(z | x)`` that is not one distribution: a prior that knows the kind draws from it."""


@dataclass(frozen=True, eq=False)
class TopDownPosterior(Posterior):
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
