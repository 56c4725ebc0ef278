"""Laws made of laws: entries of several kinds side by side, and a law in other units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from genmod.distributions.base import Factorized, elementwise, is_factorized
from genmod.distributions.discrete import Categorical, OrderedCategorical
from genmod.shapes import Sizes


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
