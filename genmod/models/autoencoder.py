"""The autoencoder: a Dirac posterior and no prior. It reconstructs; it has no bound."""

from __future__ import annotations

from genmod.decoders import Decoder
from genmod.encoders import DiracEncoder, Encoder
from genmod.encoders.base import check_encoder
from genmod.model import LatentModel
from genmod.models.build import (
    as_shape,
    check_networks,
    data_spec,
    default_decoder,
    resolve_networks,
    stated_spec,
)
from genmod.nn import Networks
from genmod.priors import FlatPrior
from genmod.spec import SpecLike
from genmod.tensors import Shape


class Autoencoder(LatentModel):
    """``x' = d(e(x))``: one code a sample, trained on ``log p(x | z)`` at the code.

    Its value is a reconstruction term alone (``Measure.NONE``), and it has no ``sample``,
    because it has no distribution of codes. Decode noise with ``decode(z)`` to see why that matters.

    Args:
        spec: the data: a data set, a :class:`~genmod.spec.DataSpec`, or an event shape.
        bins: beside a shape, how many values integer data have; ``None`` for real data.
        latents: how many numbers a code has, or a code's shape, ``(channels, *space)``.
        width, depth, dropout: of the default networks: MLPs, or convolutional networks for images of
            at least 16 pixels a side.
        networks: another kind of networks, with settings of their own.
        encoder, decoder: parts of your own. Beside an encoder, pass the shape of its code as ``latents``.

    Reference: Kramer, "Nonlinear principal component analysis using autoassociative neural networks"
    (1991).

    >>> import torch
    >>> bound = Autoencoder((1, 8, 8), bins=17).elbo(torch.zeros(2, 1, 8, 8, dtype=torch.long))
    >>> bound.measure
    <Measure.NONE: 'none'>
    """

    def __init__(
        self,
        spec: SpecLike | None = None,
        bins: int | None = None,
        *,
        latents: int | Shape = 32,
        width: int | None = None,
        depth: int | None = None,
        dropout: float = 0.0,
        networks: Networks | None = None,
        encoder: Encoder | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        code = as_shape(latents)
        if encoder is not None:
            check_encoder(encoder)
        data = stated_spec(spec, bins, decoder)
        settings = {"width": width, "depth": depth, "dropout": dropout, "networks": networks}
        check_networks(encoder is None or decoder is None, settings)
        if encoder is None:
            data = data_spec(data, "encoder")
            kind = resolve_networks(networks, data, width, depth, dropout)
            encoder = DiracEncoder(kind.build(data.feature_shape, code), code, data)
        if decoder is None:
            data = data_spec(data, "decoder")
            kind = resolve_networks(networks, data, width, depth, dropout)
            decoder = default_decoder(kind, code, data)
        super().__init__(encoder, decoder, FlatPrior(code))
