r"""The prior of a top-down hierarchy: the law of each level depends on the draws of the levels above.

.. math:: p(z) = p(z_L) \prod_{l < L} p(z_l | z_{>l}), \qquad
    \text{rate}_l = \mathrm{KL}(q(z_l | z_{>l}, x) \,\|\, p(z_l | z_{>l}))

Alignment: ``q`` and ``p`` factorize in the same order, so each level has a KL of its own. (For a
bottom-up ``q`` these KLs have no closed form, see
:class:`genmod.priors.NestedPrior`.)

Reference: Sonderby et al., "Ladder Variational Autoencoders" (2016), eqs. 3-5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils.checkpoint import checkpoint

from genmod.checks import invalid
from genmod.config import Settings
from genmod.decoders import Decoder
from genmod.distributions import rate
from genmod.distributions.base import check_law
from genmod.elbo import Rate
from genmod.encoders import Posterior
from genmod.encoders.topdown import TopDownPosterior, shortened
from genmod.nn.modules import call, call_part
from genmod.path import (
    AutoTimesteps,
    GenerativePath,
    InferencePath,
    Latent,
    Path,
    Timesteps,
    draw_posterior,
)
from genmod.prior import Prior
from genmod.random import replayable


class TopDownLevel(Settings, nn.Module, ABC):
    """The base class of one level of a top-down hierarchy: both laws of its latent, and the next state."""

    @abstractmethod
    def prior(self, state: Tensor, context: Tensor | None) -> tuple[Distribution, Tensor]:
        """``p(z_l | state)``, and the state that the other two methods get."""

    @abstractmethod
    def posterior(
        self, given: TopDownPosterior, level: int, state: Tensor, p: Distribution
    ) -> Distribution:
        """``q(z_l | state, x)``.

        Args:
            given: what the encoder returned.
            level: the number of the level from the top, from 0.
            state: from :meth:`prior`.
            p: from :meth:`prior`.
        """

    @abstractmethod
    def below(self, state: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        """The state for the level below, with the draw ``z``."""


class TopDownBlock(TopDownLevel):
    """One level of a top-down hierarchy: the law of its latent, and the state for the level below.

    Args:
        law: any decoder: from the state to ``p(z_l | state)``.
        merge: ``merge(state, z)`` gives the state for the level below; ``None``: ``z`` itself.
    """

    def __init__(self, law: Decoder, merge: nn.Module | None = None) -> None:
        super().__init__()
        self.law, self.merge = law, merge

    def prior(self, state: Tensor, context: Tensor | None) -> tuple[Distribution, Tensor]:
        """The law ``p(z_l | state)``, and the state as it is."""
        p: Distribution = call_part(self.law, state, context)
        return p, state

    def posterior(
        self, given: TopDownPosterior, level: int, state: Tensor, p: Distribution
    ) -> Distribution:
        """The law of the encoder's own head."""
        return given.conditional(level, state, p)

    def below(self, state: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        """The state for the level below."""
        return z if self.merge is None else call(self.merge, state, z, context=context)


class TopDownPrior(Prior):
    """The prior of a top-down hierarchical VAE: latents ``z_L`` down to ``z_1``, one after another.

    Args:
        blocks: one for each level, from the top down.
        initial: the state above the top level, ``(*event,)``; learned if it is a parameter.
        checkpoint_activations: whether training recomputes the activations of each level in the backward
            pass, with the same noise. Memory then grows with the states alone, and a step takes about a
            third longer. Not where whole paths are drawn.
    """

    initial: Tensor

    def __init__(
        self,
        blocks: Iterable[TopDownLevel],
        initial: Tensor,
        checkpoint_activations: bool = False,
    ) -> None:
        levels = list(blocks)
        if len(levels) == 0:
            raise invalid("no blocks", "at least one level", "pass a block a level")
        super().__init__(tuple(initial.shape))
        self.stack, self.checkpoint_activations = nn.ModuleList(levels), checkpoint_activations
        if isinstance(initial, nn.Parameter):
            self.initial = initial
        else:
            self.register_buffer("initial", initial)

    def _named(self) -> list[tuple[str, TopDownLevel]]:
        """The blocks from the top down, with the names of their latents."""
        blocks = [cast(TopDownLevel, block) for block in self.stack]
        return [(f"z{len(blocks) - index}", block) for index, block in enumerate(blocks)]

    def _top(self, n: int) -> Tensor:
        return self.initial.expand(n, *self.initial.shape)

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """From the top: each level's ``q`` and ``p`` given the same state."""
        given = self._aligned(posterior)
        state = self._top(given.rows)
        for index, (name, block) in enumerate(self._named()):
            p, state = block.prior(state, context)
            z = yield Latent(name, block.posterior(given, index, state, p), p)
            state = block.below(state, z, context)
        return state

    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """From the top: each level's ``p`` given the state."""
        state = self._top(n)
        for name, block in self._named():
            p, state = block.prior(state, context)
            z = yield name, p
            state = block.below(state, z, context)
        return state

    def rates(
        self,
        posterior: Posterior | Distribution,
        timesteps: Timesteps = AutoTimesteps.EVALUATION,
        context: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[str, Rate]]:
        """The rate ``"levels"`` at one joint draw; level by level where activations are recomputed."""
        if not (self.checkpoint_activations and torch.is_grad_enabled()):
            return super().rates(posterior, timesteps, context)
        given = self._aligned(posterior)
        state, rates = self._top(given.rows), {}
        for index, (name, block) in enumerate(self._named()):
            # A new wrapper for each level: it replays the noise of its first call.
            level = replayable(self._level)
            state, rates[name] = checkpoint(
                level, block, index, given, state, context, use_reentrant=False
            )
        return state, joined_levels(rates)

    def _level(
        self,
        block: TopDownLevel,
        index: int,
        given: TopDownPosterior,
        state: Tensor,
        context: Tensor | None,
    ) -> tuple[Tensor, Rate]:
        """One level: the state below it, and its rate, as in :meth:`infer` and :meth:`rates_of_path`."""
        p, state = block.prior(state, context)
        q = block.posterior(given, index, state, p)
        check_law(q, given.rows, q.event_shape, "the posterior of a level")
        check_law(p, given.rows, q.event_shape, "the prior of a level", shared=True)
        z = draw_posterior(q)
        return block.below(state, z, context), rate(q, p, z, self.claim)

    def rates_of_path(self, path: Path) -> dict[str, Rate]:
        """One rate, ``"levels"``, of all levels from the top down."""
        return joined_levels(super().rates_of_path(path))

    def _aligned(self, posterior: Posterior | Distribution) -> TopDownPosterior:
        """The posterior, required to be one of as many levels in this prior's order."""
        if not isinstance(posterior, TopDownPosterior):
            raise invalid(
                f"a {type(posterior).__name__} posterior",
                "one in the prior's order, level by level",
                "pair priors.TopDownPrior with encoders.TopDownEncoder",
            )
        if len(posterior.features) != len(self.stack):
            raise invalid(
                f"a posterior of {len(posterior.features)} levels",
                f"{len(self.stack)}, as the prior has",
                "build both with the same number of levels",
            )
        return posterior

    def formula(self) -> str:
        """The formula of the prior, as text."""
        count = len(self.stack)
        factors = [f"p(z{count})"] + [f"p(z{i} | z{i + 1}..)" for i in range(count - 1, 0, -1)]
        return f"p(z) = {' '.join(shortened(factors))}"


def joined_levels(rates: Mapping[str, Rate]) -> dict[str, Rate]:
    """The rates of aligned levels, from the top down, as one rate ``"levels"``."""
    joined = Rate.join(list(rates.values()), dim=1)
    places = torch.arange(len(rates), dtype=joined.level.dtype, device=joined.level.device)
    level = (len(rates) - places).expand_as(joined.level)
    return {"levels": replace(joined, level=level, names=tuple(rates))}
