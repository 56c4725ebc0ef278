r"""Real numbers with outliers: Laplace and Student's t distributions, entry by entry."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from genmod import random
from genmod.distributions.base import Factorized
from genmod.distributions.counts import log_gamma_draw
from genmod.shapes import Sizes


class LaplaceDensity(Factorized):
    r"""A Laplace density for each entry: :math:`\log p(x) = -|x - \mu| / s - \log 2s`.

    Args:
        location: the median, ``(B, *event)``.
        log_scale: the logarithm of the scale ``s``, broadcast to the location.
    """

    support = constraints.real

    def __init__(self, location: Tensor, log_scale: Tensor) -> None:
        self.location, self.log_scale = location, log_scale.expand_as(location)
        super().__init__(location.shape)

    @property
    def mean(self) -> Tensor:
        return self.location

    @property
    def variance(self) -> Tensor:
        """``2 s^2``."""
        return 2 * (2 * self.log_scale).exp()

    def elementwise(self, x: Tensor) -> Tensor:
        scaled = (x - self.location).abs() * (-self.log_scale).exp()
        return -scaled - self.log_scale - math.log(2)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Real numbers, by the inverse of the distribution function."""
        self.refuse_extra(sample_shape)
        with torch.no_grad():
            u = random.uniform(tuple(self.location.shape), torch.float64, self.location.device)
            centered = u - 0.5
            noise = -centered.sign() * torch.log1p(-2 * centered.abs())
            return self.location + self.log_scale.exp() * noise.to(self.location.dtype)


class StudentT(Factorized):
    r"""Student's t density for each entry, with :math:`\nu` degrees of freedom.

    Args:
        location: the median, ``(B, *event)``.
        log_scale: the logarithm of the scale, broadcast to the location.
        log_df: the logarithm of :math:`\nu`, broadcast to the location: a small one gives heavy tails, a
            large one a normal density.

    Reference: Lange, Little, Taylor, "Robust Statistical Modeling Using the t Distribution" (1989), eq. 1.
    """

    support = constraints.real

    def __init__(self, location: Tensor, log_scale: Tensor, log_df: Tensor) -> None:
        self.location, self.log_scale = location, log_scale.expand_as(location)
        self.log_df = log_df.expand_as(location)
        super().__init__(location.shape)

    @property
    def mean(self) -> Tensor:
        """The median, which is the mean where there is one (more than one degree of freedom)."""
        return self.location

    @property
    def variance(self) -> Tensor:
        r"""``s^2 nu / (nu - 2)``; infinite for two degrees of freedom or fewer."""
        df = self.log_df.exp()
        spread = (2 * self.log_scale).exp() * df / (df - 2).clamp(min=1e-30)
        return torch.where(df > 2, spread, torch.inf)

    def elementwise(self, x: Tensor) -> Tensor:
        # float64: two log-gammas of a large df agree in all digits of float32.
        df = self.log_df.double().exp()
        scaled = ((x - self.location) * (-self.log_scale).exp()).double()
        constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2)
        constant = constant - 0.5 * (self.log_df.double() + math.log(math.pi))
        nats = constant - (df + 1) / 2 * torch.log1p(scaled.square() / df)
        return nats.to(self.location.dtype) - self.log_scale

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Real numbers: a normal draw over the root of a gamma draw of mean one."""
        self.refuse_extra(sample_shape)
        with torch.no_grad():
            half = self.log_df.double().exp() / 2
            eps = random.normal(tuple(half.shape), torch.float64, half.device)
            noise = eps * (0.5 * (half.log() - log_gamma_draw(half))).exp()
            return self.location + self.log_scale.exp() * noise.to(self.location.dtype)
