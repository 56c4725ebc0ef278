r"""The levels of a very deep hierarchy: one block owns both laws of its latent, on vectors or feature maps.

Symbols: ``h`` is the state from above, ``e`` the features of the data at this level.

.. math::
    p(z_l | h) = \mathcal{N}(\mu, \sigma^2), \qquad (\mu, \log \sigma, g) = \text{prior}(h), \qquad
    h \leftarrow h + g \\
    q(z_l | h, e) = \mathcal{N}(\mu + \sigma \delta, \sigma^2 e^{2 \gamma}), \qquad
    (\delta, \gamma) = \text{posterior}(h, e) \\
    h \leftarrow h + W z_l, \qquad h \leftarrow h + \text{residual}(h)

Reference: Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images"
(2021), figure 3; Vahdat, Kautz, "NVAE: A Deep Hierarchical Variational Autoencoder" (2020), eq. 2, for
the posterior relative to the prior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.distributions import Normal
from genmod.encoders.topdown import TopDownPosterior
from genmod.nn.cells import Cell, plus, pointwise, resized, scaled
from genmod.nn.conditioning import Condition
from genmod.nn.mlp import ContextEmbedding
from genmod.nn.modules import call, outputs
from genmod.priors.topdown import TopDownLevel
from genmod.tensors import Shape, size

_LOG_STD, _SPREAD = -2.0, 5.0
"""The log-std of the posterior relative to the prior at the start, and a factor on the weights of its mean.
On the digits, six levels that start equal all collapse in a short run; with these numbers none does."""


class VeryDeepBlock(TopDownLevel):
    r"""One level of a very deep hierarchy: its prior, its posterior, and the residual path through it.

    The latent has ``latents`` numbers at each position of the state. If the state from above has a lower
    resolution, it is copied to this one first. The features ``g`` that the prior computes besides its law
    are shared: the posterior and all levels below see them.

    The start is stable at any depth: the prior starts as :math:`\mathcal{N}(0, I)` with :math:`g = 0`, and
    what a level adds to the state is scaled by :math:`1 / \sqrt{\text{levels}}`. The posterior starts
    narrower than the prior, so that the decoder learns to use the latents.

    Args:
        shape: of the state, ``(width,)`` or ``(width, *space)``.
        latents: the numbers of the latent at each position.
        levels: how many levels the hierarchy has.
        hidden: channels inside a cell.
        depth: residual cells after the latent.
        dropout: the probability of dropout inside each cell.
        context: the kind of context, if any.
    """

    def __init__(
        self,
        shape: Shape,
        latents: int,
        levels: int,
        *,
        hidden: int,
        depth: int = 1,
        dropout: float = 0.0,
        context: Condition | int = 0,
    ) -> None:
        super().__init__()
        width, space = shape[0], tuple(shape[1:])
        self.shape, self.latents, scale = tuple(shape), latents, levels**-0.5

        def cell(inputs: int, outs: int, scale: float) -> Cell:
            return Cell((inputs, *space), outs, hidden=hidden, dropout=dropout, scale=scale)

        self.embed = ContextEmbedding(context, width)
        self.prior_head = cell(width, 2 * latents + width, 0.0)
        self.posterior_head = cell(2 * width, 2 * latents, 1.0)
        self._inform(size(space) if space else 1)
        self.project = scaled(pointwise(space, latents, width), scale)
        self.residual = nn.ModuleList(cell(width, width, scale) for _ in range(depth))

    @torch.no_grad()
    def _inform(self, positions: int) -> None:
        """Let the posterior start narrower than the prior, with a mean that depends on the data.

        Where both start equal, the latent is noise, which the decoder soon learns to ignore, and the level
        collapses. The nats of a level at the start do not grow with its number of positions.
        """
        layer, share = self.posterior_head.last, positions**-0.5
        for name, parameter in layer.named_parameters():
            if name.endswith("bias"):
                parameter[self.latents :] = _LOG_STD * share
            else:
                parameter[: self.latents] *= _SPREAD * share

    def prior(self, state: Tensor, context: Tensor | None) -> tuple[Normal, Tensor]:
        """``p(z_l | h)``, and ``h + g``."""
        h = plus(resized(state, self.shape[1:]), self.embed(context, len(state)))
        channels = 2 * self.latents + self.shape[0]
        found = outputs(self.prior_head, (channels, *self.shape[1:]), h, context=None)
        mean, log_std, shared = found.split([self.latents, self.latents, self.shape[0]], 1)
        return Normal(mean, log_std), h + shared

    def posterior(
        self, given: TopDownPosterior, level: int, state: Tensor, p: Distribution
    ) -> Normal:
        """``q(z_l | h, e)``, relative to ``p``."""
        assert isinstance(p, Normal)
        seen = torch.cat([state, given.features[level]], 1)
        shape = (2, self.latents, *self.shape[1:])
        both = outputs(self.posterior_head, shape, seen, context=None)
        return Normal(torch.addcmul(p.loc, p.stddev, both[:, 0]), p.log_std + both[:, 1])

    def below(self, state: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        """The state below the level: ``h + W z`` and its residual cells."""
        h = state + call(self.project, z, context=None)
        for cell in self.residual:
            h = h + call(cell, h, context=None)
        return h
