"""The hierarchical VAE: latents above latents, inferred from below or from the top."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import torch
from torch import Tensor, nn

from genmod import decoders, encoders
from genmod.checks import choice, require
from genmod.decoders import Decoder
from genmod.model import LatentModel
from genmod.models.build import (
    TableNetworks,
    data_spec,
    default_decoder,
    resolve_networks,
    stated_spec,
)
from genmod.nn import MLP, Condition, Networks
from genmod.prior import Prior
from genmod.priors import NestedPrior, NormalPrior, TopDownBlock, TopDownPrior
from genmod.spec import DataSpec, SpecLike


class Inference(Enum):
    """The order in which the posterior draws the latents."""

    BOTTOM_UP = "bottom-up"
    """``q(z1 | x) q(z2 | z1) ...``, by nesting: the rate of each level is a log-ratio at a draw."""
    TOP_DOWN = "top-down"
    """``q(zL | x) ... q(z1 | z2.., x)``, by alignment: each level has a KL in closed form."""


class HVAE(LatentModel):
    r"""A hierarchical VAE of any number of levels, ``z1`` next to the data.

    The generative model has the same order in both kinds, :math:`p(z_L) \cdots p(z_1 | z_2)\, p(x | z_1)`
    (top-down, a level may see all levels above). The posterior has one of two orders:

    * bottom-up, :math:`q(z_1 | x)\, q(z_2 | z_1) \cdots`: the rate of a level is a log-ratio at one draw,
      because a learned bottom-up posterior has no closed KL;
    * top-down, :math:`q(z_L | x) \cdots q(z_1 | z_{>1}, x)`: each level has its own KL in closed form.

    .. math:: \log p(x) \ge \mathbb{E}_q\Big[\log p(x | z) + \log \frac{p(z)}{q(z | x)}\Big]

    Args:
        spec: the data: a data set, a :class:`~genmod.spec.DataSpec`, or an event shape.
        bins: beside a shape, how many values integer data have; ``None`` for real data.
        latents: how many dimensions each latent has, from ``z1`` up.
        inference: the order of the posterior, ``"bottom-up"`` or ``"top-down"``.
        width, depth, dropout: of the default networks: MLPs, or convolutional networks next to images
            of at least 16 pixels a side.
        networks: another kind of networks, with settings of their own.
        condition: what every network is conditioned on, ``Labels(10)`` for example. The bound is then on
            ``log p(x | context)``, and each method needs its ``context``.
        decoder: a decoder of your own. Its input has ``latents[0]`` numbers (``z1``) bottom-up, and
            ``networks.features`` numbers (the state below all latents) top-down.

    For a hierarchy of your own parts, build :class:`~genmod.models.VAE` with a
    :class:`~genmod.priors.NestedPrior` prior (bottom-up), or ``LatentModel(
    encoders.TopDownEncoder(...), decoder, priors.TopDownPrior(...))``.

    Reference: bottom-up, Rezende et al. (2014), section 2; Luo, "Understanding Diffusion Models"
    (2022), eqs. 20-23. Top-down: Sonderby et al., "Ladder Variational Autoencoders" (2016).

    >>> sorted(HVAE((1, 8, 8), 17).elbo(torch.zeros(2, 1, 8, 8, dtype=torch.long)).rates)
    ['z1', 'z2', 'z3']
    """

    def __init__(
        self,
        spec: SpecLike | None = None,
        bins: int | None = None,
        *,
        latents: Sequence[int] = (32, 16, 8),
        inference: Inference | str = Inference.BOTTOM_UP,
        width: int | None = None,
        depth: int | None = None,
        dropout: float = 0.0,
        networks: Networks | None = None,
        condition: Condition | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        data = data_spec(stated_spec(spec, bins, decoder), "decoder")
        sizes = tuple(latents) if isinstance(latents, Iterable) else ()
        require(
            len(sizes) >= 1 and all(size >= 1 for size in sizes),
            f"latents={latents}",
            "a positive size for each level, z1 first",
            "pass latents=(32, 16, 8) for three levels",
        )

        kind = resolve_networks(networks, data, width, depth, dropout, condition)
        order = choice(Inference, inference, "inference")
        build = _bottom_up if order is Inference.BOTTOM_UP else _top_down
        # Linear maps to the log-stds of inner levels would start them far from one.
        inner = kind.networks if isinstance(kind, TableNetworks) else kind
        encoder, prior, state = build(data, sizes, inner)
        decoder = decoder or default_decoder(kind, (state,), data)
        super().__init__(encoder, decoder, prior)


_Parts = tuple[encoders.Encoder, Prior, int]
"""The encoder, the prior, and how many numbers the decoder's input has."""


def _bottom_up(data: DataSpec, sizes: tuple[int, ...], networks: Networks) -> _Parts:
    """Nesting: the prior of ``z1`` is a model of ``z1`` with a latent ``z2``, and so on."""
    prior: Prior = NormalPrior((sizes[-1],), name=f"z{len(sizes)}")
    for number in range(len(sizes) - 1, 0, -1):
        below, here = sizes[number - 1], sizes[number]
        inner = LatentModel(
            encoders.GaussianEncoder(networks.build((below,), (2 * here,)), (here,)),
            decoders.GaussianDecoder(
                networks.build((here,), (2 * below,)), (below,), decoders.PredictedScale()
            ),
            prior,
        )
        prior = NestedPrior(inner, name=f"z{number}")
    encoder = encoders.GaussianEncoder(
        networks.build(data.feature_shape, (2 * sizes[0],)), (sizes[0],), data
    )
    return encoder, prior, sizes[0]


def _top_down(data: DataSpec, sizes: tuple[int, ...], networks: Networks) -> _Parts:
    """Alignment: one deterministic pass up, then both ``q`` and ``p`` from the state on the way down."""
    width, down = networks.features, sizes[::-1]
    stages = [
        networks.build(data.feature_shape if number == 0 else (width,), (width,))
        for number in range(len(sizes))
    ]
    heads = [
        encoders.TopDownHead(networks.build((2 * width,), (2 * here,)), (here,)) for here in down
    ]
    blocks = [
        TopDownBlock(
            decoders.GaussianDecoder(
                networks.build((width,), (2 * here,)), (here,), decoders.PredictedScale()
            ),
            Merge(width, here),
        )
        for here in down
    ]
    initial = nn.Parameter(torch.zeros(width))
    return encoders.TopDownEncoder(stages, heads, data), TopDownPrior(blocks, initial), width


class Merge(nn.Module):
    """The state below a level: the state above, plus the latent, plus the output of a network of both.

    The latent reaches the decoder along a linear path. Through networks alone its effect is weak at first:
    it lowers the reconstruction error by less than its rate, and the hierarchy collapses.

    Args:
        width: how many numbers the state has.
        latents: how many the latent has.

    Reference: Child, "Very Deep VAEs Generalize Autoregressive Models" (2021), figure 3.
    """

    def __init__(self, width: int, latents: int) -> None:
        super().__init__()
        self.project = nn.Linear(latents, width)
        self.add = MLP(width, width, width=width, depth=1)

    def forward(self, state: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, width)`` and ``(B, latents)`` to ``(B, width)``."""
        h = state + self.project(z)
        added: Tensor = h + self.add(h)
        return added
