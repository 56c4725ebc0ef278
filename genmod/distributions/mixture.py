"""Mixtures of laws over whole events, for priors with several components."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.utils.checkpoint import checkpoint

from genmod import random
from genmod.chunks import chunks
from genmod.distributions.base import elementwise, is_factorized
from genmod.distributions.normal import Normal
from genmod.gaussian import kernels
from genmod.shapes import Sizes

_TOGETHER = 1 << 24
"""Numbers of rows by components by dimensions that are held at once."""


class Mixture(Distribution):
    r"""A mixture of ``K`` components, each a law over one event: :math:`p(z) = \sum_k w_k\, p_k(z)`.

    Args:
        components: from indices ``(m,)`` of components to their laws, one row an index.
        logits: the logarithms of the weights, up to a constant, ``(K,)``.
        rows: ``n``: the components differ between ``n`` rows (a conditional prior). An index ``i K + k``
            then stands for component ``k`` of row ``i``. ``None``: one law for all rows.

    >>> from genmod.distributions import Normal
    >>> means = torch.tensor([[-2.0], [2.0]])
    >>> law = Mixture(lambda index: Normal(means[index], torch.zeros(1)), torch.zeros(2))
    >>> law.batch_shape, law.event_shape, law.sample((5,)).shape
    (torch.Size([]), torch.Size([1]), torch.Size([5, 1]))
    """

    has_rsample = False
    support = constraints.real
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self,
        components: Callable[[Tensor], Distribution],
        logits: Tensor,
        rows: int | None = None,
    ) -> None:
        self.log_weights, self.rows = logits.log_softmax(0), rows
        count = len(logits) * (1 if rows is None else rows)
        self.components, self._of = (
            components(torch.arange(count, device=logits.device)),
            components,
        )
        batch = torch.Size(() if rows is None else (rows,))
        super().__init__(batch, self.components.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean of each entry, ``(*event)`` or ``(n, *event)``."""
        return self._average(self.components.mean)

    @property
    def variance(self) -> Tensor:
        """The variance of each entry: that within components, and that of their means."""
        mean = self.components.mean
        square = self._average(self.components.variance + mean.square())
        return square - self._average(mean).square()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of events ``(B, *event)``, nats, ``(B,)``."""
        if self.rows is not None:
            repeated = value.repeat_interleave(len(self.log_weights), 0)
            nats = self.components.log_prob(repeated).reshape(self.rows, -1)
            return (self.log_weights + nats).logsumexp(1)
        together = max(1, _TOGETHER // max(1, len(self.log_weights) * value[0].numel()))
        if len(value) <= together:
            return self._shared(value)
        pieces = [value[part] for part in chunks(len(value), together)]
        # Each piece is computed again in the backward pass, so that memory is that of one piece.
        if torch.is_grad_enabled():
            return torch.cat([checkpoint(self._shared, v, use_reentrant=False) for v in pieces])
        return torch.cat([self._shared(v) for v in pieces])

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        """Draws without gradients: a component, then an event of it."""
        shape = tuple(sample_shape)
        count = self.rows if self.rows is not None and not shape else torch.Size(shape).numel()
        with torch.no_grad():
            reached = self.log_weights.exp().cumsum(0)
            u = random.uniform((count,), reached.dtype, reached.device)
            index = torch.searchsorted(reached, u, right=True).clamp(max=len(reached) - 1)
            if self.rows is not None:
                index = index + len(reached) * torch.arange(count, device=index.device)
            return random.draw(self._of(index)).reshape(
                *shape, *self.batch_shape, *self.event_shape
            )

    def _shared(self, value: Tensor) -> Tensor:
        return (self.log_weights + self._each(value)).logsumexp(1)

    def _each(self, value: Tensor) -> Tensor:
        """The log density of each component at each event, ``(B, K)``, nats."""
        law = self.components
        if isinstance(law, Normal) and _in_float32(value, law.loc):
            flat = value.flatten(1), law.loc.flatten(1), law.log_std.flatten(1)
            return kernels.log_prob_pairs(*flat).float()
        each = value.unsqueeze(1)
        if is_factorized(law):
            return elementwise(law, each).flatten(2).sum(2)
        return law.log_prob(each)

    def _average(self, values: Tensor) -> Tensor:
        """The weighted average over the components."""
        shape = self.batch_shape + self.log_weights.shape + self.event_shape
        weights = self.log_weights.exp().reshape(-1, *[1] * len(self.event_shape))
        return (weights * values.reshape(shape)).sum(len(self.batch_shape))


def _in_float32(*tensors: Tensor) -> bool:
    """Whether float64 holds the squares of all tensors, and their device has float64."""
    return all(x.dtype is not torch.float64 and x.device.type != "mps" for x in tensors)
