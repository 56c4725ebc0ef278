"""The discretized normal distribution: a normal density, integrated over the bins of integer data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmod import random
from genmod.distributions.discretized import Discretized
from genmod.gaussian.kernels import log_prob_standard


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
