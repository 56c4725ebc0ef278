"""The variational autoencoder: a Gaussian posterior, drawn by reparameterization, and a prior."""

from __future__ import annotations

from genmod.checks import require
from genmod.decoders import Decoder
from genmod.encoders import Encoder, Gaussian
from genmod.model import LatentModel
from genmod.models.build import event_shape, mlp_decoder
from genmod.nn import MLP
from genmod.prior import Prior
from genmod.priors import Nested, Normal
from genmod.types import Shape


class VAE(LatentModel):
    r"""``p(x, z) = p(x | z) N(z; 0, I)`` with ``q(z | x) = N(mean(x), std(x)^2)``.

    Args:
        shape: the event shape of ``x``.
        bins: how many levels integer data have; ``None`` for real data.
        latents: how many dimensions ``z`` has.
        width, depth, dropout: of the encoder's and the decoder's perceptrons.
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
        latents: int = 32,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        encoder: Encoder | None = None,
        decoder: Decoder | None = None,
        prior: Prior | LatentModel | None = None,
    ) -> None:
        if encoder is None:
            event = event_shape(shape, "encoder")
            network = MLP(event, 2 * latents, width=width, depth=depth, dropout=dropout)
            encoder = Gaussian(network, (latents,), bins)
        if decoder is None:
            event = event_shape(shape, "decoder")
            decoder = mlp_decoder(latents, event, bins, width, depth, dropout)
        if isinstance(prior, LatentModel):
            prior = Nested(prior)
        prior = prior or Normal((latents,))
        if isinstance(encoder, Gaussian):
            require(
                encoder.shape == prior.shape,
                f"a posterior over latents of shape {encoder.shape}",
                f"the prior's shape {prior.shape}",
                "build the encoder and the prior with the same latent shape",
            )
        super().__init__(encoder, decoder, prior)
