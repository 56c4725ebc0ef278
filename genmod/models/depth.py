"""Depth as a knob: one network as a hierarchical VAE of 1, 2, 4, ..., T levels, from VAE to diffusion."""

from __future__ import annotations

from genmod.diffusion.depth import LearnedNoisingEncoder, NoisingHierarchyPrior
from genmod.model import LatentModel
from genmod.models.diffusion import Diffusion
from genmod.models.replace import find_diffusion, with_steps
from genmod.nn import Networks
from genmod.nn.mlp import ContextEmbedding
from genmod.nn.networks import default_networks
from genmod.signatures import checked


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
