r"""The log mass of a discretized logistic, and its gradient, in one pass.

With :math:`\sigma` the logistic function, and the standardized ends of a bin :math:`a = (a_k - \mu) / s`,
:math:`b = (b_k - \mu) / s` and its width :math:`w = b - a`:

.. math:: \log P = \log\sigma(b) + \log\sigma(-a) + \log(1 - e^{-w}), \qquad
    \partial_b = \sigma(-b), \quad \partial_a = -\sigma(a), \quad \partial_w = 1 / (e^w - 1)

If an end is infinite, its own term and that of the width vanish. Claim: value and gradient together cost
less than the value alone under autograd, which needs forty small operations. All operations are in place.
There are no branches, because on a CPU ``where`` and ``masked_fill`` cost more than an exponential. See
:mod:`genmod.numerics` for why ``expm1`` and ``logsigmoid`` are taken apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genmod.numerics import bound_in_order, log1p_, unexpanded
from genmod.spec import Bins

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
