r"""Counts 0, 1, 2, ...: Poisson, negative binomial, and either with more zeros.

.. math:: \mathrm{Poisson}(k; m) = \frac{m^k e^{-m}}{k!}, \qquad
    \mathrm{NB}(k; m, r) = \frac{\Gamma(k + r)}{k!\,\Gamma(r)}
    \Big(\frac{r}{r + m}\Big)^r \Big(\frac{m}{r + m}\Big)^k

The mean of both is :math:`m`. The variance is :math:`m`, and :math:`m + m^2 / r`. Masses are computed in
float64: in float32 the difference of two log-gammas of large numbers keeps few digits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import constraints

from genmod import random
from genmod.distributions.base import Factorized, check_parameters
from genmod.tensors import Sizes

_PROPOSALS = 12
"""Proposals for each gamma draw. One is rejected with a probability below 0.05."""
_LARGE = 1e4
"""From this ``r`` on, log-gammas are replaced by Stirling's series, whose error is then below 1e-14."""


class Poisson(Factorized):
    """A Poisson count for each entry.

    Args:
        log_mean: the logarithm of the mean, ``(B, *event)``.

    >>> Poisson(torch.zeros(1, 2)).elementwise(torch.tensor([[0, 1]]))
    tensor([[-1., -1.]])
    """

    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor) -> None:
        self.log_mean = log_mean
        super().__init__(log_mean.shape)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean

    def elementwise(self, x: Tensor) -> Tensor:
        log_mean, count = self.log_mean.double(), x.double()
        nats = count * log_mean - log_mean.exp() - torch.lgamma(count + 1)
        return nats.to(self.log_mean.dtype)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Counts, by the inverse of the distribution function, whose noise is keyed like any other."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.log_mean)
        with torch.no_grad():
            return _poisson_quantile(_uniform(self.log_mean), self.log_mean.double().exp())


class NegativeBinomial(Factorized):
    """A negative binomial count for each entry: a Poisson count whose mean is gamma-distributed.

    Args:
        log_mean: the logarithm of the mean ``m``, ``(B, *event)``.
        log_concentration: the logarithm of ``r``, broadcast to the mean's shape. The variance is
            ``m + m^2 / r``; a large ``r`` gives a Poisson count.

    Reference: Hilbe, "Negative Binomial Regression" (2011), eq. 8.8, with ``alpha = 1 / r``.
    """

    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor, log_concentration: Tensor) -> None:
        self.log_mean = log_mean
        self.log_concentration = log_concentration.expand_as(log_mean)
        super().__init__(log_mean.shape)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """``m + m^2 / r``."""
        return self.mean + (2 * self.log_mean - self.log_concentration).exp()

    def elementwise(self, x: Tensor) -> Tensor:
        log_mean, log_r, k = self.log_mean.double(), self.log_concentration.double(), x.double()
        r = log_r.exp()
        # log(r / (r + m)) = -softplus(log m - log r), without a difference of large numbers.
        log_odds = log_mean - log_r
        nats = _log_rising(r, k) - torch.lgamma(k + 1)
        nats = nats - r * torch.nn.functional.softplus(log_odds)
        nats = nats + k * torch.nn.functional.logsigmoid(log_odds)
        return nats.to(self.log_mean.dtype)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Counts: a Poisson draw around a gamma draw."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.log_mean, self.log_concentration)
        with torch.no_grad():
            r = self.log_concentration.double().exp()
            log_rate = self.log_mean.double() - r.log() + log_gamma_draw(r)
            return _poisson_quantile(_uniform(self.log_mean), log_rate.exp())


class ZeroInflated(Factorized):
    r"""Counts with more zeros: 0 with probability :math:`\pi`, else a count of another law.

    Args:
        counts: a :class:`Poisson` or a :class:`NegativeBinomial`.
        logits: the log-odds of :math:`\pi`, ``(B, *event)``.

    Reference: Lambert, "Zero-Inflated Poisson Regression" (1992), section 1.
    """

    support = constraints.nonnegative_integer

    def __init__(self, counts: Poisson | NegativeBinomial, logits: Tensor) -> None:
        self.counts, self.logits = counts, logits
        super().__init__(logits.shape)

    @property
    def mean(self) -> Tensor:
        """The mean count, zeros included."""
        return (-self.logits).sigmoid() * self.counts.mean

    @property
    def variance(self) -> Tensor:
        """``(1 - pi) (v + pi m^2)`` with the mean ``m`` and the variance ``v`` of the counts."""
        pi = self.logits.sigmoid()
        return (1 - pi) * (self.counts.variance + pi * self.counts.mean.square())

    def elementwise(self, x: Tensor) -> Tensor:
        log_zero = torch.nn.functional.logsigmoid(self.logits)
        counted = torch.nn.functional.logsigmoid(-self.logits) + self.counts.elementwise(x)
        return torch.where(x == 0, torch.logaddexp(log_zero, counted), counted)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Counts, some of them replaced by 0."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.logits)
        drawn = self.counts.sample()
        return torch.where(_uniform(self.logits) < self.logits.sigmoid(), 0, drawn)


def _uniform(like: Tensor) -> Tensor:
    return random.uniform(tuple(like.shape), torch.float64, like.device)


def _log_rising(r: Tensor, k: Tensor) -> Tensor:
    """``lgamma(k + r) - lgamma(r)``; for a large ``r``, where both agree in most digits, by Stirling."""
    small = r < _LARGE
    near = torch.where(small, r, 1.0)
    exact = torch.lgamma(k + near) - torch.lgamma(near)
    far = torch.where(small, _LARGE, r)
    total = far + k
    stirling = (far - 0.5) * torch.log1p(k / far) + k * total.log() - k
    stirling = stirling + (1 / total - 1 / far) / 12
    return torch.where(small, exact, stirling)


def _poisson_quantile(u: Tensor, mean: Tensor) -> Tensor:
    """The smallest ``k`` with ``P(X <= k) >= u``, by bisection; whole numbers as ``torch.int64``."""
    # No draw lies further out: the chance is below 2^-53, the grain of u.
    reach = (mean + 12 * mean.sqrt() + 60).ceil()
    low, high = torch.full_like(mean, -1.0), reach
    for _ in range(max(1, math.ceil(math.log2(float(reach.max()) + 2)))):
        middle = ((low + high) / 2).floor()
        enough = torch.special.gammaincc(middle.clamp(min=0) + 1, mean) >= u
        enough = enough & (middle >= 0)
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high.long()


def log_gamma_draw(shape: Tensor) -> Tensor:
    """The logarithm of a draw of ``Gamma(shape, 1)``: Marsaglia and Tsang (2000), figure 1.

    A fixed number of proposals is drawn, so that the noise of one row never depends on another.
    """
    size = (shape.shape[0], _PROPOSALS, *shape.shape[1:])
    eps = random.normal(size, torch.float64, shape.device)
    u = random.uniform(size, torch.float64, shape.device)
    boost = _uniform(shape).log() / shape
    # Below 1 a draw of Gamma(shape + 1) is shrunk by u^(1 / shape) (their section 6).
    grown = torch.where(shape < 1, shape + 1, shape)
    d = (grown - 1 / 3)[:, None]
    v = (1 + eps / (3 * d.sqrt())).clamp(min=1e-300).pow(3)
    accepted = u.log() < 0.5 * eps.square() + d - d * v + d * v.log()
    first = accepted.to(torch.int8).argmax(1, keepdim=True)
    log_draw = (d * v).log().gather(1, first)[:, 0]
    return torch.where(shape < 1, log_draw + boost, log_draw)
