"""A decoder: from the state that the prior hands down to a distribution over data, ``p(x | z)``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import check_integers, check_mask, check_real, check_shape, require
from genmod.elbo import Measure
from genmod.schedules import Schedule
from genmod.types import Shape


class Decoder(nn.Module, ABC):
    """``p(x | z)``; it knows the data it scores, so it is also where data are checked.

    One that is made for the first state of a diffusion knows its ``schedule``.

    Args:
        shape: the event shape of ``x``.
        measure: whether it gives masses or densities.
        bins: how many levels the data have, for a mass.
    """

    schedule: Schedule | None

    def __init__(self, shape: Shape, measure: Measure, bins: int | None = None) -> None:
        super().__init__()
        self.schedule = None
        self.shape, self.measure, self.bins = tuple(shape), measure, bins

    @abstractmethod
    def forward(self, state: Tensor, context: Tensor | None = None) -> Distribution:
        """The distribution of ``x`` given the state, one event a row."""

    @abstractmethod
    def formula(self) -> str:
        """The decoder as it would stand on paper."""

    def check(self, x: Tensor, observed: Tensor | None = None) -> None:
        """Require ``x`` to be data that this decoder can score.

        Raises:
            ValueError: a wrong shape, NaN or infinite values, or for a mass values that are not whole
                numbers or lie outside the bins.
        """
        check_shape(x, self.shape)
        if observed is not None:
            check_mask(observed, x)
        if self.bins is None:
            require(
                x.is_floating_point(),
                f"x of type {x.dtype}",
                "real numbers, because this decoder gives a density",
                "build the model with bins=... for integer data, or convert x to floating point",
            )
            check_real(x, observed)
        else:
            check_integers(x, self.bins, observed)
