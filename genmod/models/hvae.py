"""The hierarchical VAE: latents above latents, inferred from below, from the top, or by a ladder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod import decoders, encoders
from genmod.checks import choice, invalid
from genmod.decoders import Decoder
from genmod.decoders.likelihoods import FixedScale
from genmod.encoders.topdown import LadderEncoder
from genmod.model import LatentModel
from genmod.models.build import (
    TableNetworks,
    data_spec,
    default_decoder,
    resolve_networks,
    stated_spec,
)
from genmod.models.depth import latents_of_each, very_deep_parts
from genmod.nn import MLP, Networks
from genmod.nn.conditioning import Condition
from genmod.prior import Prior
from genmod.priors import NestedPrior, TopDownBlock, TopDownPrior
from genmod.priors.given import PriorLaw, as_prior
from genmod.spec import DataSpec, SpecLike
from genmod.tensors import Shape


class Inference(Enum):
    """The order in which the posterior draws the latents."""

    BOTTOM_UP = "bottom-up"
    """``q(z1 | x) q(z2 | z1) ...``, by nesting: the rate of each level is a log-ratio at a draw."""
    TOP_DOWN = "top-down"
    """``q(zL | x) ... q(z1 | z2.., x)``, by alignment: each level has a KL in closed form."""
    LADDER = "ladder"
    """Top-down, each level's posterior being the product of a Gaussian of the data and its prior."""


class HVAE(LatentModel):
    r"""A hierarchical VAE of any number of levels, ``z1`` next to the data.

    The generative model has the same order in all kinds, :math:`p(z_L) \cdots p(z_1 | z_2)\, p(x | z_1)`
    (top-down, a level may see all levels above). The posterior is one of three:

    * bottom-up, :math:`q(z_1 | x)\, q(z_2 | z_1) \cdots`: the rate of a level is a log-ratio at one draw,
      because a learned bottom-up posterior has no closed KL;
    * top-down, :math:`q(z_L | x) \cdots q(z_1 | z_{>1}, x)`: each level has its own KL in closed form;
    * ladder: top-down, where :math:`q(z_l | z_{>l}, x) \propto \mathcal{N}(z_l; \hat\mu_l(x),
      \hat\sigma_l(x)^2)\, p(z_l | z_{>l})`, a precision-weighted merge.

    ``levels=20`` makes a very deep hierarchy (VDVAE): top-down, of residual blocks that own prior and
    posterior of their level. On images the levels are spread over all resolutions. 2 to 50 levels train
    from the start; :func:`~genmod.fit` with ``skip_nonfinite=`` survives a spoiled batch.

    .. math:: \log p(x) \ge \mathbb{E}_q\Big[\log p(x | z) + \log \frac{p(z)}{q(z | x)}\Big]

    Args:
        spec: the data: a data set, a :class:`~genmod.spec.DataSpec`, or an event shape.
        bins: beside a shape, how many values integer data have; ``None`` for real data.
        latents: how many dimensions each latent has, from ``z1`` up, by default (32, 16, 8). Beside
            ``levels``, one number: those of every latent, at each position of an image; by default 16.
        inference: the order of the posterior, ``"bottom-up"`` (the default), ``"top-down"`` or
            ``"ladder"``. Beside ``levels`` it is top-down.
        levels: how many levels a very deep hierarchy has; ``None``: as many as ``latents`` lists.
        width, depth, dropout: of the default networks: MLPs, or convolutional networks next to images
            of at least 16 pixels a side. Beside ``levels``, ``depth`` counts the residual cells of a level.
        networks: another kind of networks, with settings of their own; for ``levels`` MLPs or ConvNets.
        level_std: bottom-up, the fixed std of ``p(z1 | z2)``, below 1; 0.3 to 0.5 are good. The means of
            ``q(z1 | x)`` are then normalized to variance 1, so that ``z2`` must say where they are. Train
            with a KL warm-up of a thousand steps, ``WarmUp(1000)``. ``None``: a network predicts the std,
            and ``z2`` often collapses.
        checkpoint_activations: whether training recomputes the activations of each top-down level in the
            backward pass, with the same noise, to save memory.
        condition: what every network is conditioned on, ``Labels(10)`` for example. The bound is then on
            ``log p(x | context)``, and each method needs its ``context``.
        prior: the prior of the top latent, as for :class:`~genmod.models.VAE`; top-down it is one law, no
            model and no VampPrior. ``None``: N(0, I) bottom-up, a learned Gaussian top-down.
        decoder: a decoder of your own. Its input has ``latents[0]`` numbers (``z1``) bottom-up,
            and ``networks.features`` numbers (the state below all latents) top-down. Beside ``levels`` the
            state has the shape ``(width,)`` of MLPs; of ConvNets ``(2 * width, *space)``, with the number
            of patches along each side.

    For a hierarchy of your own parts, build :class:`~genmod.models.VAE` with a
    :class:`~genmod.priors.NestedPrior` prior (bottom-up), or ``LatentModel(
    encoders.TopDownEncoder(...), decoder, priors.TopDownPrior(...))``.

    Reference: bottom-up, Rezende et al. (2014), section 2; Luo, "Understanding Diffusion Models"
    (2022), eqs. 20-23. Top-down and ladder: Sonderby et al., "Ladder Variational Autoencoders" (2016).
    Very deep: Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images"
    (2021).

    >>> sorted(HVAE((1, 8, 8), 17).elbo(torch.zeros(2, 1, 8, 8, dtype=torch.long)).rates)
    ['z1', 'z2', 'z3']
    >>> deep = HVAE((1, 8, 8), 17, levels=20, width=16)
    >>> len(deep.elbo(torch.zeros(2, 1, 8, 8, dtype=torch.long)).levels())
    20
    """

    def __init__(
        self,
        spec: SpecLike | None = None,
        bins: int | None = None,
        *,
        latents: Sequence[int] | int | None = None,
        inference: Inference | str | None = None,
        levels: int | None = None,
        width: int | None = None,
        depth: int | None = None,
        dropout: float = 0.0,
        networks: Networks | None = None,
        condition: Condition | None = None,
        prior: Prior | LatentModel | Distribution | nn.Module | None = None,
        checkpoint_activations: bool = False,
        decoder: Decoder | None = None,
        level_std: float | None = None,
    ) -> None:
        data = data_spec(stated_spec(spec, bins, decoder), "decoder")
        order = None if inference is None else choice(Inference, inference, "inference")
        aligned = levels is not None or order in (Inference.TOP_DOWN, Inference.LADDER)
        relative = levels is not None or order is Inference.LADDER
        _check_order(aligned, relative, prior, checkpoint_activations, level_std)
        kind = resolve_networks(networks, data, width, depth, dropout, condition)
        parts: _Parts
        if levels is not None:
            count = latents_of_each(levels, latents, order in (None, Inference.TOP_DOWN))
            parts = very_deep_parts(data, levels, count, kind, checkpoint_activations)
        else:
            # Linear maps to the log-stds of inner levels would start them far from one.
            inner = kind.networks if isinstance(kind, TableNetworks) else kind
            sizes = _sizes(latents)
            if aligned:
                ladder = order is Inference.LADDER
                parts = _top_down(data, sizes, inner, prior, ladder, checkpoint_activations)
            else:
                parts = _bottom_up(data, sizes, inner, prior, level_std)
        encoder, latent_prior, code = parts
        decoder = decoder or default_decoder(kind, code, data)
        super().__init__(encoder, decoder, latent_prior)


_Parts = tuple[encoders.Encoder, Prior, Shape]
"""The encoder, the prior, and the shape of the state that the decoder gets."""


def _check_order(
    aligned: bool, relative: bool, prior: object, recompute: bool, level_std: float | None
) -> None:
    """Refuse what the other order of inference has."""
    if aligned and level_std is not None:
        raise invalid(
            f"level_std={level_std} for top-down inference",
            "a bottom-up hierarchy: top-down, each level's posterior starts at its prior",
            'pass inference="bottom-up", or leave it out',
        )
    if not aligned and recompute:
        raise invalid(
            "checkpoint_activations=True for bottom-up inference",
            "a top-down hierarchy, whose levels are recomputed one by one",
            'pass inference="top-down" or levels=20, or leave it out',
        )
    if prior is not None and relative:
        raise invalid(
            f"prior={type(prior).__name__} for a very deep hierarchy or a ladder",
            "none, because their posteriors are relative to a Gaussian prior of each level",
            'pass inference="bottom-up" or "top-down", or leave it out',
        )


def _sizes(latents: Sequence[int] | int | None) -> tuple[int, ...]:
    """The dimensions of each latent of a hierarchy of a few levels."""
    if latents is None:
        return (32, 16, 8)
    sizes = tuple(latents) if isinstance(latents, Iterable) else ()
    if len(sizes) == 0 or min(sizes) < 1:
        raise invalid(
            f"latents={latents}",
            "a positive size for each level, z1 first",
            "pass latents=(32, 16, 8) for three levels, or levels=20 for a very deep hierarchy",
        )
    return sizes


def _bottom_up(
    data: DataSpec,
    sizes: tuple[int, ...],
    networks: Networks,
    top: object,
    level_std: float | None,
) -> _Parts:
    """Nesting: the prior of ``z1`` is a model of ``z1`` with a latent ``z2``, and so on."""
    if level_std is not None and len(sizes) < 2:
        raise invalid(
            f"level_std={level_std} beside one level",
            "at least two, because it is the std of p(z1 | z2)",
            "add a level, or leave it out",
        )
    name = f"z{len(sizes)}"
    prior: Prior | None = None
    for number in range(len(sizes) - 1, 0, -1):
        below, here = sizes[number - 1], sizes[number]
        encoder = encoders.GaussianEncoder(networks.build((below,), (2 * here,)), (here,), below)
        prior = as_prior(top, encoder, (here,), name) if prior is None else prior
        std = level_std if number == 1 else None
        network = networks.build((here,), (below if std is not None else 2 * below,))
        scale = decoders.PredictedScale() if std is None else FixedScale(std)
        inner = LatentModel(encoder, decoders.GaussianDecoder(network, (below,), scale), prior)
        prior = NestedPrior(inner, name=f"z{number}")
    encoder = encoders.GaussianEncoder(
        networks.build(data.feature_shape, (2 * sizes[0],)),
        (sizes[0],),
        data,
        normalized=level_std is not None,
    )
    prior = as_prior(top, encoder, (sizes[0],), name) if prior is None else prior
    return encoder, prior, (sizes[0],)


def _top_down(
    data: DataSpec,
    sizes: tuple[int, ...],
    networks: Networks,
    top: object,
    ladder: bool,
    recompute: bool,
) -> _Parts:
    """Alignment: one deterministic pass up, then both ``q`` and ``p`` from the state on the way down."""
    width, down = networks.features, sizes[::-1]
    stages = [
        networks.build(data.feature_shape if number == 0 else (width,), (width,))
        for number in range(len(sizes))
    ]
    encoder: encoders.Encoder
    if ladder:
        messages = [networks.build((width,), (2 * here,)) for here in down]
        encoder = LadderEncoder(stages, messages, data)
    else:
        heads = [
            encoders.TopDownHead(networks.build((2 * width,), (2 * here,)), (here,))
            for here in down
        ]
        encoder = encoders.TopDownEncoder(stages, heads, data)
    blocks = [
        TopDownBlock(
            decoders.GaussianDecoder(
                networks.build((width,), (2 * here,)), (here,), decoders.PredictedScale()
            ),
            Merge(width, here),
        )
        for here in down
    ]
    if top is not None:
        prior = as_prior(top, encoder, (sizes[-1],))
        blocks[0] = TopDownBlock(PriorLaw(prior), Merge(width, sizes[-1]))
    initial = nn.Parameter(torch.zeros(width))
    return encoder, TopDownPrior(blocks, initial, recompute), (width,)


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
