"""The variational autoencoder: a Gaussian posterior, drawn by reparameterization, and a prior."""

from __future__ import annotations

from torch.distributions import Distribution

from genmod.decoders import Decoder
from genmod.encoders import Encoder, GaussianEncoder
from genmod.model import LatentModel
from genmod.models.build import (
    as_shape,
    check_condition,
    data_spec,
    default_decoder,
    multiply_channels,
    resolve_networks,
    stated_spec,
)
from genmod.nn import Condition, Networks
from genmod.prior import Prior
from genmod.priors import DistributionPrior, NestedPrior, NormalPrior
from genmod.shapes import Shape
from genmod.spec import SpecLike


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
        encoder, decoder: parts of your own.
        prior: a prior of your own; any torch distribution over the latent; or another model with a bound
            on real vectors, ``VAE(..., prior=Diffusion((32,)))``, which is nested.

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
        prior: Prior | LatentModel | Distribution | None = None,
    ) -> None:
        code = as_shape(latents)
        data = stated_spec(spec, bins, decoder)
        check_condition(condition, encoder, decoder)
        if encoder is None:
            data = data_spec(data, "encoder")
            kind = resolve_networks(networks, data, width, depth, dropout, condition)
            network = kind.build(data.feature_shape, multiply_channels(code, 2))
            encoder = GaussianEncoder(network, code, data)
        if decoder is None:
            data = data_spec(data, "decoder")
            kind = resolve_networks(networks, data, width, depth, dropout, condition)
            decoder = default_decoder(kind, code, data)
        if isinstance(prior, LatentModel):
            prior = NestedPrior(prior)
        if isinstance(prior, Distribution):
            prior = DistributionPrior(prior)
        super().__init__(encoder, decoder, prior or NormalPrior(code))
