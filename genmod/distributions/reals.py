r"""Real numbers that are not normal, entry by entry: [0, 1] such as gray values, and outliers.

**The continuous Bernoulli.** With the log-odds :math:`\eta` of a Bernoulli as its parameter, the density
on [0, 1] is

.. math:: p(x) = \frac{e^{\eta x}}{\int_0^1 e^{\eta t} dt} = e^{\eta (x - 1/2)}\,
    \frac{\eta / 2}{\sinh(\eta / 2)}

It is the Bernoulli's likelihood, :math:`e^{\eta x} / (1 + e^\eta)`, with the constant that makes it a
density. A VAE that takes the Bernoulli's for gray values has no bound on anything.

Reference: Loaiza-Ganem, Cunningham, "The continuous Bernoulli: fixing a pervasive error in variational
autoencoders" (2019), eqs. 8-10.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from genmod import random
from genmod.distributions.base import Factorized, check_parameters
from genmod.distributions.counts import log_gamma_draw
from genmod.tensors import Sizes

_SMALL = 0.3
"""Below it, series replace quotients of two numbers near zero; they are exact to 1e-10 there."""


class ContinuousBernoulli(Factorized):
    r"""A continuous Bernoulli distribution for each entry, on [0, 1].

    .. math:: \log p(x) = \eta (x - \tfrac12) - \log \frac{\sinh y}{y}, \qquad y = \eta / 2

    Args:
        logits: :math:`\eta`, ``(B, *event)``; 0 is the uniform distribution.

    Reference: Loaiza-Ganem, Cunningham, "The continuous Bernoulli" (2019), eqs. 8-10.

    >>> law = ContinuousBernoulli(torch.tensor([[0.0, 4.0]]))
    >>> law.mean
    tensor([[0.5000, 0.7687]])
    """

    has_rsample = True
    support = constraints.unit_interval

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape)

    @property
    def mean(self) -> Tensor:
        r"""The mean, :math:`\tfrac12 + \tfrac12 (\coth y - 1 / y)`, ``(B, *event)``."""
        return 0.5 + 0.5 * _langevin(0.5 * self.logits)

    def rsample(self, sample_shape: Sizes = ()) -> Tensor:
        r"""The inverse distribution function of uniform noise, :math:`\log(1 + u (e^\eta - 1)) / \eta`."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.logits)
        shape, device = tuple(self.logits.shape), self.logits.device
        u = random.uniform(shape, torch.float64, device).to(self.logits.dtype)
        size = self.logits.abs()
        small = size < 1e-3
        safe = torch.where(small, 1.0, size)
        # By the mirrored law, whose exponent is never positive: e^eta overflows from 89 on in float32.
        up = 1 + torch.log(u + (1 - u) * torch.exp(-safe)) / safe
        near = u + 0.5 * size * u * (1 - u)
        x = torch.where(small, near, up)
        return torch.where(self.logits < 0, 1 - x, x).clamp(0, 1)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """A draw without gradients."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def elementwise(self, x: Tensor) -> Tensor:
        """The log density of each entry."""
        return self.logits * (x - 0.5) - _log_sinhc(0.5 * self.logits)


def _log_sinhc(y: Tensor) -> Tensor:
    r""":math:`\log(\sinh y / y)`, also near zero and where sinh overflows."""
    size, square = y.abs(), y.square()
    small = size < _SMALL
    safe = torch.where(small, 1.0, size)
    wide = safe + torch.log(-torch.expm1(-2 * safe)) - torch.log(safe) - math.log(2)
    # The other branch's argument, so that its gradient is finite.
    near = torch.where(small, square, 0.0)
    series = near / 6 * (1 - near / 30 * (1 - near * 4 / 63 * (1 - near * 3 / 40)))
    return torch.where(small, series, wide)


def _langevin(y: Tensor) -> Tensor:
    r""":math:`\coth y - 1 / y`, the derivative of :func:`_log_sinhc`."""
    small = y.abs() < _SMALL
    safe = torch.where(small, 1.0, y)
    near = torch.where(small, y, 0.0)
    square = near.square()
    series = near / 3 * (1 - square / 15 * (1 - square * 2 / 21 * (1 - square / 10)))
    return torch.where(small, series, 1 / torch.tanh(safe) - 1 / safe)


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
