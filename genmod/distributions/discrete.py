"""Discrete distributions for each entry of an event: Bernoulli (bits), categorical (unordered values)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from genmod import random
from genmod.distributions.base import Factorized, check_parameters
from genmod.numerics import log1p_
from genmod.shapes import Sizes


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
        """The probability of a one."""
        return self.logits.sigmoid()

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Bits, as integers, ``(B, *event)``."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.logits)
        noise = random.uniform(tuple(self.logits.shape), self.logits.dtype, self.logits.device)
        return (noise < self.mean).long()

    def elementwise(self, x: Tensor) -> Tensor:
        """The log mass of each bit, from the logit (no sigmoid: nothing saturates)."""
        nats: Tensor = _BitMass.apply(*torch.broadcast_tensors(x.to(self.logits.dtype), self.logits))
        return nats


class _BitMass(torch.autograd.Function):
    r"""The log mass of bits: :math:`x l - \max(l, 0) - \log(1 + e^{-|l|})`, with its slope :math:`x - \sigma(l)`."""

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


# Function.apply inspects the signature in every call, unless it is stored.
setattr(_BitMass.forward, "__signature__", inspect.signature(_BitMass.forward))  # noqa: B010 - a plain assignment fails the type check


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
        """The most probable value."""
        return self.logits.argmax(-1)

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """A value for each entry, ``(B, *event)``, by the Gumbel-max trick with keyed noise."""
        self.refuse_extra(sample_shape)
        check_parameters(self, self.logits)
        noise = random.uniform(tuple(self.logits.shape), torch.float64, self.logits.device)
        return (self.logits - (-noise.log()).log()).argmax(-1)

    def elementwise(self, x: Tensor) -> Tensor:
        """The log mass of each entry's value."""
        return self.logits.log_softmax(-1).gather(-1, x.long()[..., None])[..., 0]
