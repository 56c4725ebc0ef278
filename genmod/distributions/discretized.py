r"""Discretized densities: a density on the real line, integrated over the bins of integer data.

.. math:: P(k) = F\!\left(\frac{b_k - \mu}{s}\right) - F\!\left(\frac{a_k - \mu}{s}\right)

with the bin :math:`[a_k, b_k]` of :class:`genmod.spec.Bins`. The first and the last bin extend to
infinity, so that the masses sum to one. The difference is computed in logarithms, from the smaller tail.
Nothing is clamped, so masses far in a tail and their gradients are accurate.

Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), eq. 2.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.distributions import constraints

from genmod import random
from genmod.distributions.base import Factorized, check_parameters
from genmod.distributions.logistic import logistic_log_mass
from genmod.gaussian.kernels import log_prob_standard
from genmod.shapes import Sizes
from genmod.spec import Bins

_TOGETHER = 16
"""Values whose tails are added at a time for a mean."""


def log1m_exp(negative: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for ``x < 0``, accurate at both ends (Maechler, 2012, eq. 7)."""
    near = negative > -math.log(2)
    # Each branch gets arguments of its own: where() would pass on NaN gradients of the other branch.
    close = torch.where(near, negative, -1.0)
    far = torch.where(near, -1.0, negative)
    return torch.where(near, (-torch.expm1(close)).log(), torch.log1p(-far.exp()))


def log_ndtr(x: Tensor) -> Tensor:
    r"""The log of the standard normal's distribution function, with accurate gradients far to the left.

    Left of -1 it is :math:`\log \tfrac{1}{2}\mathrm{erfcx}(-x / \sqrt 2) - x^2 / 2`. torch's own
    ``log_ndtr`` has the same value, but its backward exponentiates the difference of two numbers near
    :math:`x^2 / 2`: in float32 its slope is 5 % off at ``x = -1e3`` and 0 at ``x = -3e6``.
    """
    left = x < -1
    far = torch.where(left, x, -1.0)
    tail = (0.5 * torch.special.erfcx(far * -math.sqrt(0.5))).log() - 0.5 * far.square()
    return torch.where(left, tail, torch.special.log_ndtr(torch.where(left, 0.0, x)))


class Discretized(Factorized):
    """A location-scale family on the real line, discretized into bins.

    Args:
        location: ``(B, *event)``. The values ``0 .. n - 1`` are spread evenly over [-1, 1].
        log_scale: the logarithm of the scale, broadcast to the location.
        bins: the values and their bins.
    """

    support = constraints.nonnegative_integer

    def __init__(self, location: Tensor, log_scale: Tensor, bins: Bins) -> None:
        self.location = location
        self.log_scale = (
            log_scale if log_scale.shape == location.shape else log_scale.expand_as(location)
        )
        self.bins = bins
        super().__init__(location.shape)

    @abstractmethod
    def standard_sample(self) -> Tensor:
        """Draws of the standard member (location 0, scale 1), of the shape of the location."""

    def masses(self) -> Tensor:
        """The probability of every value, ``(B, *event, K)``."""
        shape = self.location.shape
        values = torch.arange(self.bins.count, device=self.location.device)
        wide = type(self)(
            self.location[..., None].expand(*shape, self.bins.count),
            self.log_scale[..., None].expand(*shape, self.bins.count),
            self.bins,
        )
        return wide.elementwise(values.expand(*shape, self.bins.count)).exp()

    @abstractmethod
    def upper_tail(self, standardized: Tensor) -> Tensor:
        """The probability of the standard member above each point."""

    @property
    def mean(self) -> Tensor:
        r"""The mean value, ``(B, *event)``: :math:`\sum_{k \ge 1} P(x \ge k)`."""
        values = torch.arange(1, self.bins.count, dtype=torch.float64, device=self.location.device)
        location, inverse = self.location[..., None], (-self.log_scale).exp()[..., None]
        total = torch.zeros_like(self.location)
        # Some values at a time: all masses of a batch of images would not fit in memory.
        for edges in self.bins.edges(values)[0].to(self.location.dtype).split(_TOGETHER):
            total = total + self.upper_tail((edges - location) * inverse).sum(-1)
        return total

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Integers ``(B, *event)``: draws of the density, each put into its bin."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.location, self.log_scale)
        with torch.no_grad():
            real = self.location + self.log_scale.exp() * self.standard_sample()
            return self.bins.value(real)


class DiscretizedLogistic(Discretized):
    r"""The discretized logistic distribution, the usual likelihood of 8-bit pixels.

    With :math:`\sigma` the logistic function and the ends of a bin divided by the scale,
    :math:`a = (a_k - \mu) / s` and :math:`b = (b_k - \mu) / s`,

    .. math:: \log P(k) = \log\big(\sigma(b) - \sigma(a)\big)
        = \log\sigma(b) + \log\sigma(-a) + \log(1 - e^{a - b}).

    The right-hand side is stable. The plain difference is 0 in float32 where both ends exceed 17.

    Args:
        location: :math:`\mu`, ``(B, *event)``. The values ``0 .. n - 1`` are spread evenly over [-1, 1].
        log_scale: :math:`\log s`, broadcast to the location.
        bins: the values and their bins.

    Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), eq. 2.

    >>> law = DiscretizedLogistic(torch.zeros(1, 1), torch.zeros(1, 1), Bins(3))  # -1, 0, 1
    >>> [round(float(law.log_prob(torch.tensor([[k]])).exp()), 3) for k in range(3)]
    [0.378, 0.245, 0.378]
    """

    def elementwise(self, x: Tensor) -> Tensor:
        return logistic_log_mass(x, self.location, self.log_scale, self.bins)

    def upper_tail(self, standardized: Tensor) -> Tensor:
        return torch.sigmoid(-standardized)

    def standard_sample(self) -> Tensor:
        """The inverse distribution function (the logit) of uniform noise."""
        noise = random.uniform(tuple(self.location.shape), torch.float64, self.location.device)
        return noise.logit().to(self.location.dtype)


class DiscretizedNormal(Discretized):
    """The discretized normal distribution, the likelihood of DDPM's last step.

    Args:
        location: the mean, ``(B, *event)``. The values ``0 .. n - 1`` are spread evenly over [-1, 1].
        log_scale: the logarithm of the standard deviation, broadcast to the location.
        bins: the values and their bins.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 13.
    """

    def elementwise(self, x: Tensor) -> Tensor:
        lower, upper = self.bins.edges(x.to(self.location.dtype))
        inverse = (-self.log_scale).exp()
        return _standard_log_mass(
            _standardize(lower, self.location, inverse),
            _standardize(upper, self.location, inverse),
            self.bins.width * inverse,
        )

    def upper_tail(self, standardized: Tensor) -> Tensor:
        tail: Tensor = 0.5 * torch.special.erfc(standardized * math.sqrt(0.5))
        return tail

    def standard_sample(self) -> Tensor:
        return random.normal_like(self.location)


def _standard_log_mass(lower: Tensor, upper: Tensor, width: Tensor) -> Tensor:
    """The log of the mass of the standard normal between two ends, from the smaller tail.

    One end may be infinite, not both. ``width`` is the width of a bin. It is a separate argument, because
    ``upper - lower`` rounds to zero far from the location.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 13.
    """
    right = lower + upper > 0  # right of the mean: use the right tail, mirrored
    low, high = torch.where(right, -upper, lower), torch.where(right, -lower, upper)
    top = log_ndtr(high)
    is_open = low.isinf()
    # For a bin that is narrow against the std (a std of 1e4 bins in float32), the difference below
    # rounds to zero. There the mass is the density at the middle times the width, with the next two
    # terms of the expansion in the width (Hermite polynomials of order 2 and 4).
    narrow = ~is_open & (width * (1 + high.abs()) < 1e-2)
    plain = ~is_open & ~narrow
    below = log_ndtr(torch.where(plain, low, high))
    # -1 is a placeholder elsewhere: far right of the mean the value is 0, where backward gives NaN.
    wide = top + torch.where(plain, log1m_exp(torch.where(plain, below - top, -1.0)), 0.0)
    middle = torch.where(narrow, high - width / 2, 0.0)
    thin = torch.where(narrow, width, 1.0)
    square, area = middle.square(), thin.square()
    bend = (square - 1 + (square * (square - 6) + 3) * area / 80) * area / 24
    density = thin.log() + log_prob_standard(middle) + bend.log1p()
    return torch.where(narrow, density, wide)


def _standardize(end: Tensor, location: Tensor, inverse: Tensor) -> Tensor:
    """``(end - location) / scale``. An infinite end stays a constant, because its gradient is NaN."""
    is_open = end.isinf()
    closed = (torch.where(is_open, 0.0, end) - location) * inverse
    return torch.where(is_open, end, closed)


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
