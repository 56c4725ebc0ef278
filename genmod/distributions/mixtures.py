r"""Mixtures of discretized logistics: one an entry, or one a pixel with coupled channels, as in PixelCNN++.

The mixture of a pixel is over its three channels ``r, g, b`` together. In a component the location of a
channel is linear in the channels before it, so that color is modeled, not only brightness:

.. math:: \log P(r, g, b) = \log \sum_k \pi_k\, P(r \mid \mu_r, s_r)\,
    P(g \mid \mu_g + \alpha r, s_g)\, P(b \mid \mu_b + \beta r + \gamma g, s_b)

with all locations, and ``r`` and ``g`` inside of them, on [-1, 1].

Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), section 2.2, eqs. 1-3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from genmod import random
from genmod.distributions.base import Factorized, check_parameters, refuse_sample_shape
from genmod.distributions.discretized import DiscretizedLogistic, logistic_log_mass
from genmod.spec import Bins
from genmod.tensors import PerSample, Sizes, event_sum

CHANNELS = 3
"""Red, green and blue."""


class DiscretizedMixture(Factorized):
    """A mixture of discretized logistics for each entry.

    Args:
        logits: the logits of the weights of the ``C`` components, ``(B, C, *event)``.
        location: the locations of the components, of the same shape; values are spread over [-1, 1].
        log_scale: the logarithms of their scales, of the same shape.
        bins: the values and their bins.

    Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), eq. 2.

    >>> half = torch.zeros(1, 2, 1)
    >>> law = DiscretizedMixture(half, torch.tensor([[[-1.0], [1.0]]]), half - 9, Bins(5))
    >>> [round(float(law.log_prob(torch.tensor([[k]])).exp()), 3) for k in range(5)]
    [0.5, 0.0, 0.0, 0.0, 0.5]
    """

    support = constraints.nonnegative_integer

    def __init__(self, logits: Tensor, location: Tensor, log_scale: Tensor, bins: Bins) -> None:
        self.logits, self.location, self.log_scale = logits, location, log_scale
        self.bins = bins
        super().__init__(logits[:, 0].shape)

    @property
    def mean(self) -> Tensor:
        means = [
            DiscretizedLogistic(location, log_scale, self.bins).mean
            for location, log_scale in zip(
                self.location.unbind(1), self.log_scale.unbind(1), strict=True
            )
        ]
        return (self.logits.softmax(1) * torch.stack(means, 1)).sum(1)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Integers ``(B, *event)``: a component by the Gumbel-max trick, then a draw of it."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.logits, self.location, self.log_scale)
        with torch.no_grad():
            shape, device = tuple(self.logits.shape), self.logits.device
            noise = random.uniform(shape, torch.float64, device)
            chosen = (self.logits - (-noise.log()).log()).argmax(1, keepdim=True)
            location, log_scale = (
                part.gather(1, chosen)[:, 0] for part in (self.location, self.log_scale)
            )
            return DiscretizedLogistic(location, log_scale, self.bins).sample()

    def elementwise(self, x: Tensor) -> Tensor:
        wide = x[:, None].expand_as(self.logits)
        masses = logistic_log_mass(wide, self.location, self.log_scale, self.bins)
        return (self.logits.log_softmax(1) + masses).logsumexp(1)


class DiscretizedChannelMixture(Distribution):
    r"""A mixture of discretized logistics for each pixel, with coupled channels.

    Args:
        logits: the logits of the weights of the ``C`` components, ``(B, C, *space)``.
        location: :math:`\mu`, ``(B, C, 3, *space)``.
        log_scale: :math:`\log s`, of the same shape.
        coupling: :math:`\alpha, \beta, \gamma`, of the same shape.
        bins: the values and their bins.

    Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), eqs. 1-3.

    >>> zero = torch.zeros(1, 2, 3, 4, 4)
    >>> law = DiscretizedChannelMixture(zero[:, :, 0], zero, zero, zero, Bins(256))
    >>> law.event_shape, law.log_prob(law.sample()).shape
    (torch.Size([3, 4, 4]), torch.Size([1]))
    """

    arg_constraints = {}  # noqa: RUF012 - as torch declares it
    support = constraints.nonnegative_integer

    def __init__(
        self, logits: Tensor, location: Tensor, log_scale: Tensor, coupling: Tensor, bins: Bins
    ) -> None:
        self.logits, self.location, self.log_scale = logits, location, log_scale
        self.coupling, self.bins = coupling, bins
        super().__init__(location.shape[:1], location[:, 0].shape[1:], validate_args=False)

    def log_prob(self, value: Tensor) -> PerSample:
        """The log mass of each row, nats."""
        real = self.bins.center(value.to(self.location.dtype))[:, None].expand_as(self.location)
        location = self._coupled(real[:, :, 0], real[:, :, 1])
        wide = value[:, None].expand_as(location)
        masses = logistic_log_mass(wide, location, self.log_scale, self.bins).sum(2)
        return event_sum((self.logits.log_softmax(1) + masses).logsumexp(1))

    def _coupled(self, r: Tensor, g: Tensor) -> Tensor:
        """The locations of the three channels, given the values of the first two on [-1, 1]."""
        first, second, third = self.location.unbind(2)
        alpha, beta, gamma = self.coupling.unbind(2)
        return torch.stack([first, second + alpha * r, third + beta * r + gamma * g], 2)

    @property
    def mean(self) -> Tensor:
        """The mean value of each channel, ``(B, 3, *space)``, given the means of the channels before.

        Exact for the first channel. For the others it takes the mean inside the location, which differs
        from the mean only where a component reaches beyond the first or the last value.
        """
        found: list[Tensor] = []
        real = [torch.zeros_like(self.logits)] * 2
        for channel in range(CHANNELS):
            location = self._coupled(*real)[:, :, channel]
            law = DiscretizedLogistic(
                location.flatten(0, 1), self.log_scale[:, :, channel].flatten(0, 1), self.bins
            )
            found.append(law.mean.reshape(location.shape))
            if channel < 2:
                real[channel] = self.bins.center(found[-1])
        return (self.logits.softmax(1)[:, :, None] * torch.stack(found, 2)).sum(1)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Integers ``(B, 3, *space)``: a component for each pixel, then its channels in order."""
        refuse_sample_shape(sample_shape)
        check_parameters(self, self.logits, self.location, self.log_scale, self.coupling)
        with torch.no_grad():
            noise = random.uniform(tuple(self.logits.shape), torch.float64, self.logits.device)
            index = (self.logits - (-noise.log()).log()).argmax(1, keepdim=True)
            location, log_scale, coupling = (
                self._of(part, index) for part in (self.location, self.log_scale, self.coupling)
            )
            logits = self.logits.gather(1, index)
            return type(self)(logits, location, log_scale, coupling, self.bins)._draw()

    @staticmethod
    def _of(part: Tensor, index: Tensor) -> Tensor:
        """The parameters of one component a pixel, ``(B, 1, 3, *space)``."""
        return part.gather(1, index[:, :, None].expand(-1, -1, CHANNELS, *index.shape[2:]))

    def _draw(self) -> Tensor:
        """The channels of the only component, one after another."""
        values: list[Tensor] = []
        real = [torch.zeros_like(self.logits)] * 2
        for channel in range(CHANNELS):
            location = self._coupled(*real)[:, 0, channel]
            law = DiscretizedLogistic(location, self.log_scale[:, 0, channel], self.bins)
            values.append(law.sample())
            if channel < 2:
                real[channel] = self.bins.center(values[-1].to(location.dtype))[:, None]
        return torch.stack(values, 1)
