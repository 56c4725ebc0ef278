"""The autoencoder: a Dirac posterior and no prior. It reconstructs; it bounds nothing."""

from __future__ import annotations

from genmod.decoders import Decoder
from genmod.encoders import Dirac, Encoder
from genmod.model import LatentModel
from genmod.models.build import event_shape, mlp_decoder
from genmod.nn import MLP
from genmod.priors import Flat
from genmod.types import Shape


class Autoencoder(LatentModel):
    """``x' = d(e(x))``: one code a sample, trained on ``log p(x | z)`` at the code.

    Its value is a reconstruction term alone (``Measure.NONE``), and it has no ``sample``: nothing says
    how codes are distributed. Decode noise of your own with ``decode(z)`` to see why that matters.

    Args:
        shape: the event shape of ``x``.
        bins: how many levels integer data have; ``None`` for real data.
        latents: how many numbers a code has.
        width, depth, dropout: of the encoder's and the decoder's perceptrons.
        encoder, decoder: parts of your own; an encoder of your own needs its code's ``latents`` said.

    Reference: Kramer, "Nonlinear principal component analysis using autoassociative neural networks"
    (1991).

    >>> import torch
    >>> bound = Autoencoder((1, 8, 8), bins=17).elbo(torch.zeros(2, 1, 8, 8, dtype=torch.long))
    >>> bound.measure
    <Measure.NONE: 'none'>
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
    ) -> None:
        if encoder is None:
            event = event_shape(shape, "encoder")
            network = MLP(event, latents, width=width, depth=depth, dropout=dropout)
            encoder = Dirac(network, (latents,), bins)
        if decoder is None:
            event = event_shape(shape, "decoder")
            decoder = mlp_decoder(latents, event, bins, width, depth, dropout)
        super().__init__(encoder, decoder, Flat((latents,)))
