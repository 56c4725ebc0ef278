r"""Discretized densities: a density on the real line, integrated over the bins of integer data.

.. math:: P(k) = F\!\left(\frac{b_k - \mu}{s}\right) - F\!\left(\frac{a_k - \mu}{s}\right)

with the bin :math:`[a_k, b_k]` of :class:`genmod.spec.Bins`. The first and the last bin extend to
infinity, so that the masses sum to one. The difference is computed in logarithms, from the smaller tail.
Nothing is clamped, so masses far in a tail and their gradients are accurate.

The log mass of a logistic is computed with its gradient in one pass. With :math:`\sigma` the logistic
function, the standardized ends of a bin :math:`a = (a_k - \mu) / s`, :math:`b = (b_k - \mu) / s`, and its
width :math:`w = b - a`:

.. math:: \log P = \log\sigma(b) + \log\sigma(-a) + \log(1 - e^{-w}), \qquad
    \partial_b = \sigma(-b), \quad \partial_a = -\sigma(a), \quad \partial_w = 1 / (e^w - 1)

If an end is infinite, its own term and that of the width vanish. Claim: value and gradient together cost
less than the value alone under autograd, which needs forty small operations. All operations are in place.
There are no branches, because on a CPU ``where`` and ``masked_fill`` cost more than an exponential. See
:mod:`genmod.tensors` for why ``expm1`` and ``logsigmoid`` are taken apart.

Reference: Salimans, Karpathy, Chen, Kingma, "PixelCNN++" (2017), eq. 2.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from genmod import random
from genmod.distributions.base import Factorized, check_parameters
from genmod.spec import Bins
from genmod.tensors import Sizes, bound_in_order, log1p_, unexpanded

_TOGETHER = 16
"""Values whose tails are added at a time for a mean."""


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


# ---------------------------------------------------------------------- the log mass of a logistic

_FAR = 1e4
"""A standardized distance beyond which a logistic has no mass in any type: ends there are infinite."""


def _log_mass(
    x: Tensor, location: Tensor, log_scale: Tensor, bins: Bins, with_slopes: bool
) -> tuple[Tensor, ...]:
    """The log mass, and its derivatives by the location and the log-scale.

    All operations are in place, so that the tensors stay in the cache of the CPU.
    """
    real, top, half = x.to(location.dtype), bins.count - 1, bins.width / 2
    inverse = torch.neg(unexpanded(log_scale)).exp_()
    # 1 for the last value, for the first one, and for one with two finite ends, else 0.
    last, first = torch.sub(real, top - 1).clamp_(0, 1), torch.rsub(real, 1).clamp_(0, 1)
    closed = torch.rsub(torch.add(last, first), 1)
    # In units of half a width the ends are whole numbers, so that two neighbors share an end to the last
    # bit. The last value (upper) and the first (lower) have an end moved to +-1e30 without a branch. This
    # must come first: then 1e30 absorbs the end and the location. An infinite end instead would give
    # inf * 0 = NaN in the derivatives.
    end = torch.mul(real, 2).sub_(top - 1)
    upper = last.mul_(1e30).add_(torch.mul(end, half)).sub_(location).mul_(inverse)
    lower = first.mul_(-1e30).add_(end.sub_(2).mul_(half)).sub_(location).mul_(inverse)
    # No error: beyond 1e4 no type has mass left. Without it, 1e30 / 1e-9 would overflow float32.
    lower.clamp_(min=-_FAR)
    upper.clamp_(max=_FAR)
    width = torch.mul(inverse, bins.width).clamp_(max=_FAR)
    # 1 - e^-w = tanh(w / 2) (1 + e^-w)
    rest = torch.neg(width).exp_()
    inside = torch.mul(width, 0.5).tanh_().mul_(rest.add_(1))
    nats = torch.mul(closed, torch.log(inside))
    # log sigma(b) + log sigma(-a) = min(b, 0) - max(a, 0) - log((1 + e^-|b|) (1 + e^-|a|))
    nats.add_(torch.clamp(upper, max=0)).sub_(torch.clamp(lower, min=0))
    near, far = torch.abs(upper).neg_().exp_(), torch.abs(lower).neg_().exp_()
    nats.sub_(log1p_(torch.addcmul(near, near, far).add_(far)))
    if not with_slopes:
        return (nats,)
    # w e^-w / (1 - e^-w). `rest` is 1 + e^-w by now.
    between = closed.mul_(width).div_(inside).mul_(rest.sub_(1))
    up, down = torch.neg(upper).sigmoid_(), torch.sigmoid(lower)
    # The sigmoids are computed, so the ends can be overwritten now.
    by_scale = lower.mul_(down).sub_(upper.mul_(up)).sub_(between)
    return nats, down.sub_(up).mul_(inverse), by_scale


def _slopes(x: Tensor, location: Tensor, log_scale: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    """The same derivatives by plain operations, so that autograd can differentiate them."""
    lower, upper = bins.edges(x.to(location.dtype))
    inverse = (-log_scale).exp()
    is_open = lower.isinf() | upper.isinf()
    # The gradient through an infinite end is NaN.
    lower, upper = lower.clamp(min=-1e30), upper.clamp(max=1e30)
    low = ((lower - location) * inverse).clamp(min=-_FAR)
    high = ((upper - location) * inverse).clamp(max=_FAR)
    width = torch.where(is_open, _FAR, bins.width * inverse).clamp(max=_FAR)
    inside = -torch.expm1(-width)
    up, down = (-high).sigmoid(), low.sigmoid()
    between = width * (1 - inside) / inside
    return (down - up) * inverse, low * down - high * up - between


@bound_in_order
class _LogMass(torch.autograd.Function):
    """The log mass. Its derivatives are computed with it and kept; for second derivatives, anew."""

    @staticmethod
    def forward(
        x: Tensor, location: Tensor, log_scale: Tensor, bins: Bins
    ) -> tuple[Tensor, Tensor, Tensor]:
        nats, by_location, by_scale = _log_mass(x, location, log_scale, bins, with_slopes=True)
        return nats, by_location, by_scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.bins = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        if grad is None:
            return None, None, None, None
        x, location, log_scale, slope, log_slope = ctx.saved_tensors
        if torch.is_grad_enabled():
            slope, log_slope = _slopes(x, location, log_scale, ctx.bins)
        return None, grad * slope, grad * log_slope, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """An elementwise function: the mapped dimension goes first in every tensor."""
        *tensors, bins = inputs
        rows = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors, in_dims, strict=False)
        ]
        return _LogMass.apply(*rows, bins), (0, 0, 0)


def logistic_log_mass(x: Tensor, location: Tensor, log_scale: Tensor, bins: Bins) -> Tensor:
    """The log mass of each value ``x``, in nats. All three tensors have one shape."""
    if torch.is_grad_enabled() and (location.requires_grad or log_scale.requires_grad):
        mass: Tensor = _LogMass.apply(x, location, log_scale, bins)[0]
        return mass
    return _log_mass(x, location, log_scale, bins, with_slopes=False)[0]
