"""Autoencoders: the plain one, with a point for a code and no prior, and the variational one."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.distributions import Distribution

from genmod.decoders import Decoder
from genmod.encoders import DiracEncoder, Encoder, GaussianEncoder
from genmod.encoders.base import check_encoder
from genmod.encoders.flexible import OpenEncoder
from genmod.model import LatentModel
from genmod.models.build import (
    as_shape,
    check_condition,
    check_networks,
    data_spec,
    default_decoder,
    multiply_channels,
    resolve_networks,
    stated_spec,
)
from genmod.nn import Networks
from genmod.nn.conditioning import Condition
from genmod.prior import Prior
from genmod.priors import FlatPrior
from genmod.priors.given import as_prior
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


class VAE(LatentModel):
    r"""A variational autoencoder: ``p(x, z) = p(x | z) p(z)`` with ``q(z | x) = N(mean(x), std(x)^2)``.

    The bound is the reconstruction minus the rate of the latent, in nats per sample:

    .. math:: \log p(x) \ge \mathbb{E}_{q(z|x)}[\log p(x | z)] - \mathrm{KL}(q(z | x) \| p(z)).

    Its gradient is taken through the draw :math:`z = \mu(x) + \sigma(x)\, \epsilon`, with
    :math:`\epsilon \sim \mathcal{N}(0, I)` (reparameterization).

    Args:
        spec: the data: a data set, a :class:`~genmod.spec.DataSpec`, or an event shape.
        bins: beside a shape, how many values integer data have; ``None`` for real data.
        latents: how many dimensions ``z`` has, or its shape, ``(channels, *space)``.
        width, depth, dropout: of the default networks: MLPs, or convolutional networks for images of
            at least 16 pixels a side.
        networks: another kind of networks, with settings of their own.
        condition: what encoder and decoder are conditioned on, ``Labels(10)`` for example. The bound is
            then on ``log p(x | context)``, and each method needs its ``context``. The prior uses it only
            if it is conditional itself, as a conditional diffusion is.
        encoder: a more flexible posterior, ``encoders.FullCovarianceEncoder()`` or
            ``encoders.FlowEncoder()``, whose network is built here; or an encoder of your own.
        decoder: a decoder of your own.
        prior: a learned prior: ``priors.LearnedGaussianPrior()``, ``MixturePrior(10)``, ``VampPrior(50)``,
            ``FlowPrior()``; any torch distribution over the latent; another model with a bound on real
            vectors, ``Diffusion(32)`` or ``VAE(32)``, which is nested; a module with ``log_prob(z)`` and
            ``sample(n)``; or a prior of your own. ``None``: N(0, I).

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), eqs. 3 and 10; Rezende, Mohamed,
    Wierstra, "Stochastic Backpropagation and Approximate Inference in Deep Generative Models" (2014).

    >>> import torch
    >>> VAE((1, 8, 8), bins=17).elbo(torch.zeros(2, 1, 8, 8, dtype=torch.long)).value.shape
    torch.Size([2])
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
        condition: Condition | None = None,
        encoder: Encoder | None = None,
        decoder: Decoder | None = None,
        prior: Prior | LatentModel | Distribution | nn.Module | None = None,
    ) -> None:
        code = as_shape(latents)
        if encoder is not None:
            check_encoder(encoder)
        data = stated_spec(spec, bins, decoder)
        is_open = isinstance(encoder, OpenEncoder) and encoder.network is None
        own = None if is_open else encoder
        check_condition(condition, own, decoder)
        settings = {"width": width, "depth": depth, "dropout": dropout, "networks": networks}
        check_networks(own is None or decoder is None, settings)
        if encoder is None or is_open:
            data = data_spec(data, "encoder")
            kind = resolve_networks(networks, data, width, depth, dropout, condition)
            build = partial(kind.build, data.feature_shape)
            if isinstance(encoder, OpenEncoder):
                encoder = encoder.bind(build, code, data)
            else:
                encoder = GaussianEncoder(build(multiply_channels(code, 2)), code, data)
        if decoder is None:
            data = data_spec(data, "decoder")
            kind = resolve_networks(networks, data, width, depth, dropout, condition)
            decoder = default_decoder(kind, code, data)
        super().__init__(encoder, decoder, as_prior(prior, encoder, code))
