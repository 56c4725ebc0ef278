"""Top-down inference: the data are read once, bottom-up; the latents are drawn in the prior's order.

Reference: Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2; Child, "Very Deep
VAEs" (2021), section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.config import Settings
from genmod.distributions import Normal
from genmod.encoders.base import Encoder, Posterior
from genmod.nn.modules import call, outputs
from genmod.shapes import Batch, Mask, Shape, copies
from genmod.spec import SpecLike


@dataclass(frozen=True, eq=False)
class TopDownPosterior(Posterior):
    """A posterior in the prior's own order: each level given the state that the levels above left.

    Args:
        features: of the bottom-up pass, one tensor a level, in the order of the levels.
        heads: for each level, ``head(features, state)`` gives its distribution.
        context: what the model is conditioned on.
    """

    features: Sequence[Tensor]
    heads: Sequence[nn.Module]
    context: Tensor | None = None

    @property
    def rows(self) -> int:
        """How many samples it is the posterior of."""
        return len(self.features[0])

    def copies(self, count: int) -> TopDownPosterior | None:
        """``count`` copies of all rows, one after another."""
        if type(self) is not TopDownPosterior:
            return None  # A subclass may hold rows that are not known here.
        context = None if self.context is None else copies(self.context, count)
        features = [copies(rows, count) for rows in self.features]
        return TopDownPosterior(features, self.heads, context)

    def conditional(self, level: int, state: Tensor) -> Distribution:
        """``q(z_l | z_above, x)``."""
        given = () if self.context is None else (self.context,)
        law: Distribution = self.heads[level](self.features[level], state, *given)
        return law


class TopDownEncoder(Encoder):
    """A top-down encoder: features of ``x`` for each level, which heads combine with the state.

    Args:
        stages: the bottom-up networks, from the data upwards: the first takes the features of ``x``
            (``spec.feature_shape``), each other the features below it. Stage ``l`` feeds latent ``z_l``.
        heads: for each latent from the *top* down (the prior's order), ``head(features, state)``
            gives its distribution: a :class:`TopDownHead`, or any module like it.
        spec: the data it reads.
    """

    def __init__(
        self, stages: Iterable[nn.Module], heads: Iterable[nn.Module], spec: SpecLike | None = None
    ) -> None:
        super().__init__(spec)
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)

    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> TopDownPosterior:
        """Read the data once; the latents come later, level by level."""
        h, features = self.features(x, observed), []
        for stage in self.stages:
            h = call(stage, h, context=context)
            features.append(h)
        return TopDownPosterior(features[::-1], list(self.heads), context)

    def formula(self) -> str:
        """The formula of the encoder, as text."""
        levels = len(self.heads)
        factors = [f"q(z{levels} | x)"]
        factors += [f"q(z{i} | z{i + 1}.., x)" for i in range(levels - 1, 0, -1)]
        return f"q(z | x) = {' '.join(factors)}"


class TopDownHead(Settings, nn.Module):
    """``q(z_l | state, x)``: a Gaussian from the features of the data and the state from above.

    Args:
        network: takes both, concatenated; gives mean and log-std for each of the latent's numbers.
        shape: the latent's event shape.
    """

    def __init__(self, network: nn.Module, shape: Shape) -> None:
        super().__init__()
        self.network, self.shape = network, tuple(shape)

    def forward(self, features: Tensor, state: Tensor, context: Tensor | None = None) -> Normal:
        """The Gaussian of each row."""
        seen = torch.cat([features, state], -1)
        both = outputs(self.network, (2, *self.shape), seen, context=context)
        return Normal(both[:, 0], both[:, 1])
