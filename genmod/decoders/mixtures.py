"""Decoders of images of integers by mixtures of discretized logistics: an entry each, or a pixel each."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genmod.checks import check_at_least, invalid
from genmod.decoders.base import Decoder
from genmod.decoders.likelihoods import integers
from genmod.distributions.mixtures import (
    CHANNELS,
    DiscretizedChannelMixture,
    DiscretizedMixture,
)
from genmod.nn.modules import outputs
from genmod.schedules import Schedule
from genmod.spec import Bins, DataSpec, SpecLike


class DiscretizedMixtureDecoder(Decoder):
    """Integers: a mixture of logistic distributions on [-1, 1] for each entry, integrated over bins.

    For data with several frequent values, such as a background, that one component cannot fit.

    Args:
        network: three numbers for each component of each entry of ``x``: the logits of all
            components, then their locations, then their log-scales, each ``(components, *shape)``.
        spec: the event shape of ``x``, or its DataSpec.
        bins: how many values, beside a shape.
        components: how many components a mixture has. They start evenly spaced, as wide as the
            distance between them: over [-1, 1], or with ``around`` over two standard deviations on
            both sides of ``z_0 / alpha_0``.
        around: the schedule of the diffusion, if the state is its ``z_0``. The network then predicts
            how far ``x`` is from ``z_0 / alpha_0``, in units of two standard deviations of the noise
            in ``z_0``, and need not learn to copy its input. For images with texture.

    Raises:
        ValueError: fewer than one component.

    Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), eqs. 1-2.
    """

    offsets: Tensor

    def __init__(
        self,
        network: nn.Module,
        spec: SpecLike,
        bins: int | None = None,
        components: int = 5,
        around: Schedule | None = None,
    ) -> None:
        super().__init__(integers(spec, bins))
        check_at_least(components, 1, "components", "5 is the default")
        self.network, self.values, self.components = network, Bins(self.spec.bins or 0), components
        self.schedule = None if around is None else around.resolve(self.spec)
        self.begin = (1.0, 0.0) if self.schedule is None else self.schedule.scales_at_zero()
        centers = (2 * torch.arange(components) + 1) / components - 1
        self.register_buffer(
            "offsets", centers.reshape(-1, *[1] * len(self.shape)), persistent=False
        )

    def forward(self, state: Tensor, context: Tensor | None = None) -> DiscretizedMixture:
        shape = (3, self.components, *self.shape)
        logits, shift, log_scale = outputs(self.network, shape, state, context=context).unbind(1)
        location, reach = shift + self.offsets, 1.0
        if self.schedule is not None:
            alpha, sigma = self.begin
            reach = 2 * sigma / alpha
            location = torch.add((state / alpha)[:, None], location, alpha=reach)
        wide = math.log(2 * reach / self.components)
        return DiscretizedMixture(logits, location, log_scale + wide, self.values)

    def formula(self) -> str:
        where, given = (
            ("d_c(z)", "z") if self.schedule is None else ("z_0 / alpha_0 + d_c(z_0)", "z_0")
        )
        law = f"sum of {self.components} Logistics over bins"
        return f"p(x | {given}) = {law}(x; {where}, s_c({given}))"


class ChannelMixtureDecoder(Decoder):
    r"""Color images of integers: one mixture of discretized logistics a pixel, over its three channels.

    .. math:: P(r, g, b \mid z) = \sum_k \pi_k\, P(r \mid \mu_r)\, P(g \mid \mu_g + \alpha r)\,
        P(b \mid \mu_b + \beta r + \gamma g)

    where each factor is a logistic on [-1, 1], integrated over bins. All parameters of a pixel come from
    the network, and the couplings :math:`\alpha, \beta, \gamma` are in (-1, 1). Unlike
    :class:`~genmod.decoders.DiscretizedMixtureDecoder`, it knows that the channels of a pixel are alike.

    Args:
        network: ``10 components`` numbers for each pixel, ``(10 components, *space)``: the logits of the
            components, then three locations, three log-scales and three couplings of each.
        spec: the event shape ``(3, *space)``, or its DataSpec.
        bins: how many values, beside a shape.
        components: how many components a mixture has. They start evenly spaced over [-1, 1], as wide as
            the distance between them. 5 to 10 are common.

    Raises:
        ValueError: data that are not integers with three channels; fewer than one component.

    Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), section 2.2.

    >>> decoder = ChannelMixtureDecoder(nn.Linear(2, 10 * 5 * 16), (3, 4, 4), bins=256)
    >>> decoder(torch.randn(8, 2)).sample().shape
    torch.Size([8, 3, 4, 4])
    """

    offsets: Tensor

    def __init__(
        self, network: nn.Module, spec: SpecLike, bins: int | None = None, components: int = 5
    ) -> None:
        super().__init__(DataSpec.of(spec, bins))
        if not self.spec.is_integer or len(self.shape) < 2 or self.shape[0] != CHANNELS:
            raise invalid(
                f"{self.spec} for a decoder of color images",
                "integers of shape (3, *space), the channels first",
                "use DiscretizedMixtureDecoder for gray images, and GaussianDecoder for real data",
            )
        check_at_least(components, 1, "components", "5 is the default")
        self.network, self.components, self.values = network, components, Bins(self.bins or 0)
        centers = (2 * torch.arange(components) + 1) / components - 1
        offsets = centers.reshape(-1, *[1] * len(self.shape))
        self.register_buffer("offsets", offsets, persistent=False)
        self.outputs = components * (1 + 3 * CHANNELS) * (self.spec.size // CHANNELS)

    def forward(self, state: Tensor, context: Tensor | None = None) -> DiscretizedChannelMixture:
        space, count = self.shape[1:], self.components
        both = outputs(self.network, (count * (1 + 3 * CHANNELS), *space), state, context=context)
        logits, rest = both[:, :count], both[:, count:]
        parts = rest.reshape(len(both), 3, count, CHANNELS, *space).unbind(1)
        shift, log_scale, coupling = parts
        wide = math.log(2 / count)
        return DiscretizedChannelMixture(
            logits, shift + self.offsets, log_scale + wide, coupling.tanh(), self.values
        )

    def formula(self) -> str:
        law = f"sum of {self.components} products of 3 Logistics over bins"
        return f"p(x | z) = {law}(x; d_k(z) + coupling(x), s_k(z))"
