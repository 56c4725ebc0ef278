r"""The prior of a top-down hierarchy: the law of each level depends on the draws of the levels above.

.. math:: p(z) = p(z_L) \prod_{l < L} p(z_l | z_{>l}), \qquad
    \text{rate}_l = \mathrm{KL}(q(z_l | z_{>l}, x) \,\|\, p(z_l | z_{>l}))

Alignment: ``q`` and ``p`` factorize in the same order, so each level has a KL of its own. (For a
bottom-up ``q`` these KLs have no closed form, see
:class:`genmod.priors.NestedPrior`.)

Reference: Sonderby et al., "Ladder Variational Autoencoders" (2016), eqs. 3-5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import require
from genmod.config import Settings
from genmod.decoders import Decoder
from genmod.elbo import Rate
from genmod.encoders import Posterior
from genmod.encoders.topdown import TopDownPosterior
from genmod.nn.modules import call
from genmod.path import GenerativePath, InferencePath, Latent, Path
from genmod.prior import Prior


class TopDownBlock(Settings, nn.Module):
    """One level of a top-down hierarchy: the law of its latent, and the state for the level below.

    Args:
        law: any decoder: from the state to ``p(z_l | state)``.
        merge: ``merge(state, z)`` gives the state for the level below; ``None``: ``z`` itself.
    """

    def __init__(self, law: Decoder, merge: nn.Module | None = None) -> None:
        super().__init__()
        self.law, self.merge = law, merge

    def below(self, state: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        """The state for the level below."""
        return z if self.merge is None else call(self.merge, state, z, context=context)


class TopDownPrior(Prior):
    """The prior of a top-down hierarchical VAE: latents ``z_L`` down to ``z_1``, one after another.

    Args:
        blocks: one for each level, from the top down.
        initial: the state above the top level, ``(*event,)``; learned if it is a parameter.
    """

    initial: Tensor

    def __init__(self, blocks: Iterable[TopDownBlock], initial: Tensor) -> None:
        levels = list(blocks)
        require(len(levels) >= 1, "no blocks", "at least one level", "pass a block a level")
        super().__init__(tuple(initial.shape))
        self.stack = nn.ModuleList(levels)
        if isinstance(initial, nn.Parameter):
            self.initial = initial
        else:
            self.register_buffer("initial", initial)

    def _named(self) -> list[tuple[str, TopDownBlock]]:
        """The blocks from the top down, with the names of their latents."""
        blocks = [cast(TopDownBlock, block) for block in self.stack]
        return [(f"z{len(blocks) - index}", block) for index, block in enumerate(blocks)]

    def _top(self, n: int) -> Tensor:
        return self.initial.expand(n, *self.initial.shape)

    def infer(
        self, posterior: Posterior | Distribution, context: Tensor | None = None
    ) -> InferencePath:
        """From the top: each level's ``q`` and ``p`` given the same state."""
        if not isinstance(posterior, TopDownPosterior):
            raise ValueError(
                f"got a {type(posterior).__name__} posterior; expected one in the prior's order, "
                "level by level; pair priors.TopDownPrior with encoders.TopDownEncoder"
            )
        require(
            len(posterior.heads) == len(self.stack),
            f"a posterior of {len(posterior.heads)} levels",
            f"{len(self.stack)}, as the prior has",
            "build both with the same number of levels",
        )
        state = self._top(posterior.rows)
        for index, (name, block) in enumerate(self._named()):
            p = block.law(state, context)
            z = yield Latent(name, posterior.conditional(index, state), p)
            state = block.below(state, z, context)
        return state

    def generate(self, n: int, context: Tensor | None = None) -> GenerativePath:
        """From the top: each level's ``p`` given the state."""
        state = self._top(n)
        for name, block in self._named():
            z = yield name, block.law(state, context)
            state = block.below(state, z, context)
        return state

    def rates_of_path(self, path: Path) -> dict[str, Rate]:
        """One rate, ``"levels"``, of all levels from the top down."""
        rates = super().rates_of_path(path)
        joined = Rate.join(list(rates.values()), dim=1)
        places = torch.arange(len(rates), dtype=joined.level.dtype, device=joined.level.device)
        level = (len(rates) - places).expand_as(joined.level)
        return {"levels": replace(joined, level=level, names=tuple(rates))}

    def formula(self) -> str:
        """The formula of the prior, as text."""
        count = len(self.stack)
        factors = [f"p(z{count})"] + [f"p(z{i} | z{i + 1}..)" for i in range(count - 1, 0, -1)]
        return f"p(z) = {' '.join(factors)}"
