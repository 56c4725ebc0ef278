"""Depth: one network as a hierarchical VAE of any depth, and the parts of a hierarchy of many levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from genmod.checks import check_at_least, invalid
from genmod.diffusion.depth import LearnedNoisingEncoder, NoisingHierarchyPrior
from genmod.encoders.topdown import PyramidEncoder
from genmod.model import LatentModel
from genmod.models.build import TableNetworks
from genmod.models.diffusion import Diffusion
from genmod.models.replace import find_diffusion, with_steps
from genmod.nn import ConvNets, MLPs, Networks
from genmod.nn.cells import Pyramid, level_shapes
from genmod.nn.conditioning import Condition
from genmod.nn.mlp import ContextEmbedding
from genmod.nn.networks import Conditional, default_networks
from genmod.priors import TopDownPrior
from genmod.priors.deep import VeryDeepBlock
from genmod.signatures import checked
from genmod.spec import DataSpec
from genmod.tensors import Shape


@checked
def with_depth(
    model: Diffusion,
    levels: int,
    *,
    learned_encoder: bool = False,
    networks: Networks | None = None,
) -> LatentModel:
    """The same network as a hierarchical VAE of any depth: from a VAE, with one level, to a diffusion.

    With the fixed encoder it is the diffusion of ``levels`` latents, :func:`with_steps`. A learned encoder
    is the fixed one, moved and scaled by a network of its own. That network starts at zero: untrained,
    both are the same model. With one level it is a VAE whose latent has the shape of the data.

    A step with a learned encoder visits all levels, so its cost grows with their number; with the fixed one
    it visits one.

    Args:
        model: a diffusion. It is not copied: training the result trains it.
        levels: the number of latents.
        learned_encoder: whether the encoder is learned.
        networks: the kind of the encoder's network; by default an MLP, or a U-Net for images of at least
            16 pixels a side.

    Raises:
        ValueError: fewer than one level.

    Reference: Luo, "Understanding Diffusion Models" (2022), on the three restrictions that make a
    diffusion of a hierarchical VAE; Nielsen et al., "DiffEnc" (2024).

    >>> import torch
    >>> from genmod.models import Diffusion
    >>> deep = with_depth(Diffusion(2, width=8), 4, learned_encoder=True)
    >>> [level.name for level in deep.elbo(torch.zeros(3, 2)).levels()]
    ['z4', 'z3', 'z2', 'z1']
    """
    if not learned_encoder:
        return with_steps(model, levels)
    old, shape = find_diffusion(model), model.spec.shape
    kinds = (
        part.condition for part in old.denoiser.modules() if isinstance(part, ContextEmbedding)
    )
    condition = next((kind for kind in kinds if kind is not None), None)
    kind = networks or default_networks(shape)
    network = kind.denoiser((2 * shape[0], *shape[1:]), context=condition or 0)
    network = network.to(model.device, model.dtype)
    encoder = LearnedNoisingEncoder(network, old.schedule, model.spec)
    prior = NoisingHierarchyPrior(old.denoiser, old.schedule, shape, levels, old.variance)
    return LatentModel(encoder, model.decoder, prior)


LATENTS = 16
"""The numbers of a latent at each position, by default."""


def very_deep_parts(
    data: DataSpec,
    levels: int,
    latents: int,
    networks: Networks,
    checkpoint_activations: bool = False,
) -> tuple[PyramidEncoder, TopDownPrior, Shape]:
    """The encoder, the prior, and the shape of the state that the decoder gets.

    On vectors (:class:`~genmod.nn.MLPs`) every state is a vector. On images (:class:`~genmod.nn.ConvNets`)
    the levels are spread over all resolutions, from one position to that of the patches.

    Args:
        data: the data.
        levels: how many levels.
        latents: the numbers of each latent at each position.
        networks: the kind of networks, with its width, depth and dropout.
        checkpoint_activations: see :class:`~genmod.priors.TopDownPrior`.

    Raises:
        ValueError: a kind of networks that has no residual cells.
    """
    kind, condition = _bare(networks)
    space: Shape = ()
    if isinstance(kind, MLPs):
        patch, width, hidden = 1, kind.width, kind.width
    elif isinstance(kind, ConvNets):
        space = tuple(data.feature_shape[1:])
        patch, width, hidden = kind._patch(data.feature_shape), 2 * kind.width, kind.width
    else:
        raise invalid(
            f"networks={kind} for levels={levels}",
            "MLPs or ConvNets, of which residual cells are built",
            "pass one of them, or build the levels yourself with latents=(...)",
        )
    shapes = level_shapes(levels, width, space, patch)
    context = condition or 0
    pyramid = Pyramid(
        data.feature_shape,
        shapes,
        hidden=hidden,
        patch=patch,
        dropout=kind.dropout,
        context=context,
    )
    blocks = [
        VeryDeepBlock(
            shape,
            latents,
            levels,
            hidden=hidden,
            depth=kind.depth or 1,
            dropout=kind.dropout,
            context=context,
        )
        for shape in reversed(shapes)
    ]
    initial = nn.Parameter(torch.zeros(shapes[-1]))
    prior = TopDownPrior(blocks, initial, checkpoint_activations)
    return PyramidEncoder(pyramid, levels, data), prior, shapes[0]


def _bare(networks: Networks) -> tuple[Networks, Condition | None]:
    """The kind without its condition and without linear maps beside it, and the condition."""
    condition = None
    if isinstance(networks, Conditional):
        condition = networks.context
        networks = networks.networks
    return (networks.networks if isinstance(networks, TableNetworks) else networks), condition


def latents_of_each(levels: int, latents: Sequence[int] | int | None, top_down: bool) -> int:
    """The numbers of each latent of a very deep hierarchy at each position.

    Raises:
        ValueError: fewer than one level; a list of latents beside a number of levels; another order of
            inference.
    """
    check_at_least(levels, 1, "levels", "pass levels=20, or leave it out")
    if not top_down:
        raise invalid(
            f"levels={levels} beside another inference",
            "top-down inference, which is what a very deep hierarchy has",
            "leave inference out, or pass latents=(...) with a size for each level instead of "
            "levels",
        )
    count = LATENTS if latents is None else latents
    if not isinstance(count, int) or count < 1:
        raise invalid(
            f"latents={latents} beside levels={levels}",
            "one positive number for all levels",
            "pass latents=16, or leave levels out and list a size for each level",
        )
    return count
