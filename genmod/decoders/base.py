"""A decoder: maps the prior's state to a distribution over data, ``p(x | z)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import instance
from genmod.config import Settings
from genmod.elbo import Measure
from genmod.schedules import Schedule
from genmod.spec import DataSpec, SpecLike
from genmod.tensors import Shape


class Decoder(Settings, nn.Module, ABC):
    """The base class of decoders ``p(x | z)``. A decoder holds the spec of its data and checks data by it.

    A decoder of your own implements :meth:`forward` alone.

    Args:
        spec: the data: a :class:`~genmod.spec.DataSpec`, a data set, a shape or an int (real numbers).
            Integers give a probability mass, real numbers a density.

    >>> from torch.distributions import Independent, Laplace
    >>> class LaplaceDecoder(Decoder):
    ...     def __init__(self, spec):
    ...         super().__init__(spec)
    ...         self.location = nn.Linear(2, self.spec.size)
    ...
    ...     def forward(self, state, context=None):
    ...         return Independent(Laplace(self.location(state), 0.1), 1)
    >>> LaplaceDecoder(5).measure
    <Measure.DENSITY: 'density'>
    """

    schedule: Schedule | None
    """The schedule of the diffusion whose state ``z_0`` it decodes; ``None`` for other decoders."""

    outputs: int | None = None
    """How many outputs a row it needs from its network; ``None`` where a decoder does not state it."""

    def __init__(self, spec: SpecLike) -> None:
        super().__init__()
        self.schedule = None
        self.spec = DataSpec.of(spec)

    @property
    def shape(self) -> Shape:
        """The event shape of ``x``."""
        return self.spec.shape

    @property
    def bins(self) -> int | None:
        """How many values integer data have; ``None``: real data."""
        return self.spec.bins

    @property
    def measure(self) -> Measure:
        """Whether ``p(x | z)`` is a probability mass or, with a single real entry, a density."""
        return Measure.MASS if self.spec.is_discrete else Measure.DENSITY

    if TYPE_CHECKING:  # torch's own call is untyped

        def __call__(self, state: Tensor, context: Tensor | None = None) -> Distribution: ...

    @abstractmethod
    def forward(self, state: Tensor, context: Tensor | None = None) -> Distribution:
        """The distribution of ``x`` given the state: batch shape ``(B,)``, one event a row."""

    def formula(self) -> str:
        """The decoder as it stands on paper."""
        return f"p(x | z) = {type(self).__name__}"

    def check(self, x: Tensor, observed: Tensor | None = None) -> None:
        """Require ``x`` to be data that this decoder can score.

        Raises:
            ValueError: a wrong shape, NaN or infinite values; for integers also fractions and values
                outside the range.
        """
        self.spec.check(x, observed)


def check_decoder(decoder: object) -> Decoder:
    """Require a decoder: a network alone gives no likelihood."""
    advice = "wrap a network: decoders.GaussianDecoder(network, spec)"
    return instance(decoder, Decoder, "decoder", advice)
