"""The variational autoencoder: a Gaussian posterior, drawn by reparameterization, and a prior."""

from __future__ import annotations

from genmod.checks import require
from genmod.decoders import Decoder
from genmod.encoders import Encoder, GaussianEncoder
from genmod.model import LatentModel
from genmod.models.build import (
    as_shape,
    default_decoder,
    event_shape,
    multiply_channels,
    resolve_networks,
    unconditional,
)
from genmod.nn import Condition, Networks
from genmod.prior import Prior
from genmod.priors import NestedPrior, NormalPrior
from genmod.types import Shape


class VAE(LatentModel):
    r"""``p(x, z) = p(x | z) N(z; 0, I)`` with ``q(z | x) = N(mean(x), std(x)^2)``.

    Args:
        shape: the event shape of ``x``.
        bins: how many levels integer data have; ``None`` for real data.
        latents: how many dimensions ``z`` has, or its shape, ``(channels, *space)``.
        width, depth, dropout: of the customary networks: perceptrons, or convolutions for images of
            at least 16 pixels a side.
        networks: another kind of networks, with settings of their own.
        condition: what encoder and decoder are told beside the data, ``Labels(10)`` for example: the
            bound is then on ``log p(x | context)``, and each method wants its ``context``. The prior
            is told only if it listens itself, as a conditional diffusion does.
        encoder, decoder, prior: parts of your own. A prior may be another model with a bound on real
            vectors, ``VAE(..., prior=Diffusion((32,)))``: it is nested.

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014); Rezende, Mohamed, Wierstra,
    "Stochastic Backpropagation and Approximate Inference in Deep Generative Models" (2014).

    >>> import torch
    >>> VAE((1, 8, 8), bins=17).elbo(torch.zeros(2, 1, 8, 8, dtype=torch.long)).value.shape
    torch.Size([2])
    """

    def __init__(
        self,
        shape: Shape | int | None = None,
        bins: int | None = None,
        *,
        latents: int | Shape = 32,
        width: int | None = None,
        depth: int | None = None,
        dropout: float = 0.0,
        networks: Networks | None = None,
        condition: Condition | None = None,
        encoder: Encoder | None = None,
        decoder: Decoder | None = None,
        prior: Prior | LatentModel | None = None,
    ) -> None:
        code = as_shape(latents)
        unconditional(condition, encoder, decoder)
        if encoder is None:
            event = event_shape(shape, "encoder")
            kind = resolve_networks(networks, event, width, depth, dropout, condition)
            encoder = GaussianEncoder(kind.build(event, multiply_channels(code, 2)), code, bins)
        if decoder is None:
            event = event_shape(shape, "decoder")
            kind = resolve_networks(networks, event, width, depth, dropout, condition)
            decoder = default_decoder(kind, code, event, bins)
        if isinstance(prior, LatentModel):
            prior = NestedPrior(prior)
        prior = prior or NormalPrior(code)
        if isinstance(encoder, GaussianEncoder):
            require(
                encoder.shape == prior.shape,
                f"a posterior over latents of shape {encoder.shape}",
                f"the prior's shape {prior.shape}",
                "build the encoder and the prior with the same latent shape",
            )
        super().__init__(encoder, decoder, prior)
