r"""Discrete distributions for each entry of an event: bits, categories, ordered categories, whole numbers.

Ordered categories and whole numbers have the mass of a logistic distribution between two points ``a < b``.
With :math:`\sigma` the logistic function,

.. math:: \log(\sigma(b) - \sigma(a)) = \log\sigma(b) + \log\sigma(-a) + \log(1 - e^{a - b}),

which has no difference of two numbers near one, so masses far in a tail are right.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional as F

from genmod import random
from genmod.distributions.base import Factorized, check_parameters
from genmod.tensors import Sizes, bound_in_order, log1p_

_FAR = 1e4
"""A point beyond which a logistic has no mass in any floating point type."""


class Bernoulli(Factorized):
    """A Bernoulli distribution for each entry: a bit, with its logit as parameter.

    Args:
        logits: ``(B, *event)``, the log-odds of a one.
    """

    support = constraints.boolean

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape)

    @property
    def mean(self) -> Tensor:
        return self.logits.sigmoid()

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Bits, as integers, ``(B, *event)``."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.logits)
        noise = random.uniform(tuple(self.logits.shape), self.logits.dtype, self.logits.device)
        return (noise < self.mean).long()

    def elementwise(self, x: Tensor) -> Tensor:
        """The log mass of each bit, from the logit (no sigmoid: nothing saturates)."""
        bits, logits = x.to(self.logits.dtype), self.logits
        if bits.shape != logits.shape:
            bits, logits = torch.broadcast_tensors(bits, logits)
        nats: Tensor = _BitMass.apply(bits, logits)
        return nats


@bound_in_order
class _BitMass(torch.autograd.Function):
    r"""The log mass of bits, and its slope :math:`x - \sigma(l)`.

    .. math:: \log p(x) = x l - \max(l, 0) - \log(1 + e^{-|l|})
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(bits: Tensor, logits: Tensor) -> Tensor:
        tail = log1p_(torch.abs(logits).neg_().exp_())
        return torch.mul(bits, logits).sub_(torch.clamp(logits, min=0)).sub_(tail)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        bits, logits = ctx.saved_tensors
        return None, grads[0] * (bits - logits.sigmoid())


class Categorical(Factorized):
    """A value for each entry, without an order among the values.

    Args:
        logits: ``(B, *event, K)`` for ``K`` values.
    """

    support = constraints.nonnegative_integer

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-1])

    @property
    def mean(self) -> Tensor:
        """The mean value. It treats values as ordered, so use it for pictures only."""
        values = torch.arange(self.logits.shape[-1], device=self.logits.device)
        return (self.logits.softmax(-1) * values).sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.logits.argmax(-1)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """A value for each entry, ``(B, *event)``, by the Gumbel-max trick with keyed noise."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.logits)
        noise = random.uniform(tuple(self.logits.shape), torch.float64, self.logits.device)
        return (self.logits - (-noise.log()).log()).argmax(-1)

    def elementwise(self, x: Tensor) -> Tensor:
        return self.logits.log_softmax(-1).gather(-1, x.long()[..., None])[..., 0]


def _log_between(lower: Tensor, upper: Tensor) -> Tensor:
    """The log mass of a standard logistic between two points."""
    lower, upper = lower.clamp(-_FAR, _FAR), upper.clamp(-_FAR, _FAR)
    # A gap of 0 (both ends clamped) has no mass: the smallest positive number keeps its slope finite.
    gap = (upper - lower).clamp(min=torch.finfo(lower.dtype).tiny)
    return F.logsigmoid(upper) + F.logsigmoid(-lower) + (-torch.expm1(-gap)).log()


class OrderedCategorical(Factorized):
    r"""One of ``n`` values in order, by cumulative logits: :math:`P(x \le k) = \sigma(c_k - \eta)`.

    Args:
        location: :math:`\eta`, ``(B, *event)``: a larger one moves mass to higher codes.
        thresholds: the ends of every code's interval, ``(*event, n + 1)``, ascending; the first is
            minus infinity, and each that follows the last code is infinity.

    Reference: McCullagh, "Regression Models for Ordinal Data" (1980), eq. 2.2.
    """

    support = constraints.nonnegative_integer

    def __init__(self, location: Tensor, thresholds: Tensor) -> None:
        self.location = location
        self.thresholds = thresholds.clamp(-2 * _FAR, 2 * _FAR)
        super().__init__(location.shape)

    def masses(self) -> Tensor:
        """The probability of every code, ``(B, *event, n)``."""
        below = (self.thresholds - self.location[..., None]).clamp(-_FAR, _FAR)
        return _log_between(below[..., :-1], below[..., 1:]).exp()

    @property
    def mean(self) -> Tensor:
        masses = self.masses()
        return masses @ torch.arange(masses.shape[-1], device=masses.device).to(masses)

    @property
    def mode(self) -> Tensor:
        return self.masses().argmax(-1)

    def elementwise(self, x: Tensor) -> Tensor:
        ends = self.thresholds.expand(*self.location.shape, -1)
        place = x.long()[..., None]
        lower, upper = ends.gather(-1, place)[..., 0], ends.gather(-1, place + 1)[..., 0]
        return _log_between(lower - self.location, upper - self.location)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Codes: a draw of the logistic, put between its thresholds."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.location, self.thresholds)
        real = self.location + _logistic_noise(self.location)
        return (real[..., None] > self.thresholds[..., 1:-1]).sum(-1)


class IntegerLogistic(Factorized):
    """A whole number of either sign: a logistic density, integrated over intervals of length one.

    Args:
        location: ``(B, *event)``, relative to ``origin``.
        log_scale: the logarithm of the scale, broadcast to the location.
        origin: what is added to the location, ``(*event)``: apart from it, so that years near 2000 keep
            their digits in float32.
        low, high: the smallest and the largest value, ``(*event)``, infinite for none. Their intervals
            reach to infinity, so that masses sum to one.
    """

    support = constraints.integer_interval(-(2**53), 2**53)

    def __init__(
        self, location: Tensor, log_scale: Tensor, origin: Tensor, low: Tensor, high: Tensor
    ) -> None:
        self.location, self.log_scale = location, log_scale.expand_as(location)
        self.origin, self.low, self.high = origin, low, high
        super().__init__(location.shape)

    @property
    def mean(self) -> Tensor:
        r"""The mean before rounding: :math:`a + s\,(\zeta((\mu - a)/s) - \zeta((\mu - b)/s))` in [a, b].

        Here :math:`\zeta` is softplus, and :math:`a, b` are the smallest and the largest value.
        """
        scale, center = self.log_scale.exp(), self.origin + self.location
        low, high = self.low.expand_as(center), self.high.expand_as(center)
        up = scale * F.softplus((torch.where(low.isinf(), center, low) - center) / scale)
        up = torch.where(low.isinf(), 0.0, up)
        down = scale * F.softplus((center - torch.where(high.isinf(), center, high)) / scale)
        return center + up - torch.where(high.isinf(), 0.0, down)

    def elementwise(self, x: Tensor) -> Tensor:
        scale = self.log_scale.exp()
        apart = (x - self.origin).to(self.location.dtype) - self.location
        lower = torch.where(x <= self.low, -_FAR, (apart - 0.5) / scale)
        upper = torch.where(x >= self.high, _FAR, (apart + 0.5) / scale)
        return _log_between(lower, upper)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Whole numbers, as floating point: a draw of the logistic, rounded."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.location, self.log_scale)
        with torch.no_grad():
            real = self.location + self.log_scale.exp() * _logistic_noise(self.location)
            whole = (self.origin.double() + real.double()).round()
            return whole.clamp(self.low.double(), self.high.double()).to(real.dtype)


def _logistic_noise(like: Tensor) -> Tensor:
    u = random.uniform(tuple(like.shape), torch.float64, like.device)
    return torch.logit(u.clamp(min=1e-300)).to(like.dtype)
