"""Top-down inference: the data are read once, bottom-up; the latents are drawn in the prior's order.

A level's posterior comes from a network of its features and the state (:class:`TopDownEncoder`), or it is
the product of two Gaussians, one of the data and the prior's own (:class:`LadderEncoder`).

Reference: Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2; Child, "Very Deep
VAEs" (2021), section 3.2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.config import Settings
from genmod.distributions import Normal
from genmod.encoders.base import Encoder, Posterior
from genmod.gaussian.diagonal import product_log_std
from genmod.nn.modules import call, call_part, outputs
from genmod.spec import SpecLike
from genmod.tensors import Batch, Mask, Shape, copies


@dataclass(frozen=True, eq=False)
class TopDownPosterior(Posterior, ABC):
    """A posterior in the prior's own order: each level given the state that the levels above left.

    Args:
        features: of the bottom-up pass, one tensor a level, in the order of the levels.
        heads: a network for each level; none where the blocks of the prior own them
            (:class:`genmod.priors.deep.VeryDeepBlock`).
        context: what the model is conditioned on.
    """

    features: Sequence[Tensor]
    heads: Sequence[nn.Module] = ()
    context: Tensor | None = None

    @property
    def rows(self) -> int:
        """How many samples it is the posterior of."""
        return len(self.features[0])

    def copies(self, count: int) -> TopDownPosterior | None:
        """``count`` copies of all rows, one after another."""
        if type(self) not in (HeadPosterior, LadderPosterior):
            return None  # A subclass may hold rows that are not known here.
        context = None if self.context is None else copies(self.context, count)
        features = [copies(rows, count) for rows in self.features]
        return replace(self, features=features, context=context)

    @abstractmethod
    def conditional(self, level: int, state: Tensor, p: Distribution) -> Distribution:
        """``q(z_l | z_above, x)``.

        Args:
            level: its number from the top, from 0.
            state: what the levels above left.
            p: ``p(z_l | z_above)``, which a ladder merges with.
        """


@dataclass(frozen=True, eq=False)
class HeadPosterior(TopDownPosterior):
    """A top-down posterior whose levels come from heads: ``head(features, state)`` gives a distribution."""

    def conditional(self, level: int, state: Tensor, p: Distribution) -> Distribution:
        """The law that the level's head gives.

        Raises:
            ValueError: a posterior without heads, whose blocks own them.
        """
        if len(self.heads) != len(self.features):
            raise invalid(
                f"{len(self.heads)} heads for {len(self.features)} levels",
                "a head a level",
                "give the encoder one head a level, or the prior blocks that own theirs "
                "(VeryDeepBlock)",
            )
        given = () if self.context is None else (self.context,)
        law: Distribution = call_part(self.heads[level], self.features[level], state, *given)
        return law


@dataclass(frozen=True, eq=False)
class LadderPosterior(TopDownPosterior):
    r"""The posterior of a ladder: at each level the product of a Gaussian of the data and the prior.

    .. math:: q(z_l | z_{>l}, x) \propto \mathcal{N}(z_l; \hat\mu_l(x), \hat\sigma_l(x)^2)\, p(z_l | z_{>l})

    Precisions add, and means are averaged by their precisions. Here ``head(features)`` gives
    :math:`\hat\mu_l` and :math:`\log \hat\sigma_l`.

    Reference: Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2.2. The top level is
    merged as well, with ``p(z_L)``; there the paper takes the data's Gaussian alone.
    """

    def conditional(self, level: int, state: Tensor, p: Distribution) -> Normal:
        """The product of the level's two Gaussians.

        Raises:
            ValueError: a level whose prior is not Gaussian.
        """
        if not isinstance(p, Normal):
            raise invalid(
                f"a ladder over a {type(p).__name__} level",
                "a Gaussian one, because the merge is a product of Gaussians",
                "use decoders.GaussianDecoder for the levels, or TopDownEncoder",
            )
        shape = (2, *p.event_shape)
        both = outputs(self.heads[level], shape, self.features[level], context=self.context)
        return Normal(*product_log_std(both[:, 0], both[:, 1], p.loc, p.log_std))


class StagedEncoder(Encoder, ABC):
    """The base class of top-down encoders: networks read the data stage by stage, bottom-up.

    Args:
        stages: the bottom-up networks, from the data upwards; see :class:`TopDownEncoder`.
        heads: a network for each latent, from the top down.
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
        return self.posterior_of(features[::-1], context)

    @abstractmethod
    def posterior_of(self, features: Sequence[Tensor], context: Tensor | None) -> TopDownPosterior:
        """The posterior, from the features of each level from the top down."""


class TopDownEncoder(StagedEncoder):
    """A top-down encoder: features of ``x`` for each level, which heads combine with the state.

    Args:
        stages: the bottom-up networks, from the data upwards: the first takes the features of ``x``
            (``spec.feature_shape``), each other the features below it. Stage ``l`` feeds latent ``z_l``.
        heads: for each latent from the *top* down (the prior's order), ``head(features, state)``
            gives its distribution: a :class:`TopDownHead`, or any module like it.
        spec: the data it reads.
    """

    def posterior_of(self, features: Sequence[Tensor], context: Tensor | None) -> HeadPosterior:
        """The posterior, from the features of each level from the top down."""
        return HeadPosterior(features, list(self.heads), context)

    def formula(self) -> str:
        """The formula of the encoder, as text."""
        return _formula(len(self.heads))


class LadderEncoder(StagedEncoder):
    """The encoder of a ladder: each level's posterior is a precision-weighted merge with its prior.

    Args:
        stages: the bottom-up networks, as for :class:`TopDownEncoder`.
        heads: for each latent from the top down, a network ``head(features)`` that gives two numbers for
            each of the latent's: a mean, then a log-std. It does not see the levels above.
        spec: the data it reads.

    Reference: Sonderby et al., "Ladder Variational Autoencoders" (2016), section 2.2.
    """

    def posterior_of(self, features: Sequence[Tensor], context: Tensor | None) -> LadderPosterior:
        """The posterior, from the features of each level from the top down."""
        return LadderPosterior(features, list(self.heads), context)

    def formula(self) -> str:
        """The formula of the encoder, as text."""
        return "q(z | x) = prod_l N(z_l; m_l(x), diag s_l(x)^2) p(z_l | z_above) / c_l"


class PyramidEncoder(Encoder):
    """The encoder of a very deep hierarchy: features of ``x`` for each level, and no heads of its own.

    The blocks of its prior own the heads (:class:`genmod.priors.deep.VeryDeepBlock`).

    Args:
        pyramid: ``pyramid(features_of_x)`` gives a list of tensors, that of the level next to the data
            first: a :class:`genmod.nn.cells.Pyramid`, or any module like it.
        levels: how many.
        spec: the data it reads.
    """

    def __init__(self, pyramid: nn.Module, levels: int, spec: SpecLike | None = None) -> None:
        super().__init__(spec)
        self.pyramid, self.levels = pyramid, levels

    def forward(
        self, x: Batch, context: Tensor | None = None, observed: Mask | None = None
    ) -> TopDownPosterior:
        """Read the data once; the latents come later, level by level."""
        seen = self.features(x, observed)
        given = (seen,) if context is None else (seen, context)
        features: list[Tensor] = call_part(self.pyramid, *given)
        return HeadPosterior(features[::-1], context=context)

    def formula(self) -> str:
        """The formula of the encoder, as text."""
        return _formula(self.levels)


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


def _formula(levels: int) -> str:
    factors = [f"q(z{levels} | x)"]
    factors += [f"q(z{i} | z{i + 1}.., x)" for i in range(levels - 1, 0, -1)]
    return f"q(z | x) = {' '.join(shortened(factors))}"


def shortened(factors: list[str]) -> list[str]:
    """The factors of a formula, those in the middle left out where there are many.

    >>> shortened(["a", "b", "c", "d", "e", "f", "g"])
    ['a', 'b', '...', 'g']
    """
    return factors if len(factors) <= 6 else [*factors[:2], "...", factors[-1]]
