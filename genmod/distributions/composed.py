"""Laws made of laws: mixtures over whole events, entries of several kinds side by side, other units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.utils.checkpoint import checkpoint

from genmod import random
from genmod.chunks import chunks
from genmod.distributions.base import Factorized, elementwise, is_factorized
from genmod.distributions.discrete import Categorical, OrderedCategorical
from genmod.distributions.normal import Normal
from genmod.gaussian import kernels
from genmod.tensors import Sizes

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


class Joined(Factorized):
    """Entries ``(B, D)`` of several kinds: each part is the law of some of the columns.

    Args:
        parts: laws of ``(B, d)`` entries.
        places: which columns each part is the law of; together ``0 .. D - 1``.
    """

    support = constraints.real

    def __init__(self, parts: Sequence[Factorized], places: Sequence[Sequence[int]]) -> None:
        self.parts, self.places = tuple(parts), tuple(places)
        rows, width = parts[0].batch_shape[0], sum(map(len, places))
        flat = [place for some in places for place in some]
        self._back = sorted(range(width), key=flat.__getitem__)
        super().__init__(torch.Size((rows, width)))

    @property
    def mean(self) -> Tensor:
        """The mean of each entry; of a category or an ordinal, the most probable code."""
        found = []
        for part in self.parts:
            coded = isinstance(part, Categorical | OrderedCategorical)
            found.append(part.mode if coded else part.mean)
        return self._together(found)

    def elementwise(self, x: Tensor) -> Tensor:
        nats = [
            part.elementwise(x[:, list(places)])
            for part, places in zip(self.parts, self.places, strict=True)
        ]
        return torch.cat(nats, 1)[:, self._back]

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        self.refuse_extra(sample_shape)
        return self._together([part.sample() for part in self.parts])

    def _together(self, columns: Sequence[Tensor]) -> Tensor:
        kinds = [part.dtype for part in columns if part.is_floating_point()]
        kind = kinds[0] if kinds else torch.get_default_dtype()
        return torch.cat([part.to(kind) for part in columns], 1)[:, self._back]


class Rescaled(Factorized):
    r"""The law of :math:`m + s\,y` where :math:`y` has another law: :math:`p(x) = p_y((x - m)/s) / s`.

    Args:
        base: the law of :math:`y`, ``(B, *event)``.
        location: :math:`m`, ``(*event)``.
        scale: :math:`s`, ``(*event)``, positive; one for an entry that has a mass.
    """

    support = constraints.real

    def __init__(self, base: Distribution, location: Tensor, scale: Tensor) -> None:
        self.base, self.location, self.scale = base, location, scale
        super().__init__(base.batch_shape + base.event_shape)

    @property
    def factorizes(self) -> bool:
        return is_factorized(self.base)

    @property
    def mean(self) -> Tensor:
        return self.location + self.scale * self.base.mean

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * self.base.variance

    def log_prob(self, value: Tensor) -> Tensor:
        """``log p`` of each row: the base's, minus the logarithms of the scales."""
        return self.base.log_prob(self._standard(value)) - self.scale.log().sum()

    def elementwise(self, x: Tensor) -> Tensor:
        """``log p`` of each entry, where the base law factorizes."""
        return elementwise(self.base, self._standard(x)) - self.scale.log()

    def sample(self, sample_shape: Sizes = ()) -> Tensor:
        self.refuse_extra(sample_shape)
        return self.location + self.scale * self.base.sample()

    def _standard(self, x: Tensor) -> Tensor:
        return (x - self.location) / self.scale
