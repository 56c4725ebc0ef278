"""The words for a number: how a rate was computed, what ``p(x)`` is, what a result may be called."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Kind(Enum):
    """How a rate was computed."""

    ANALYTIC = "analytic"
    """A KL divergence in closed form: never negative."""
    MONTE_CARLO = "monte carlo"
    """A log-ratio at the drawn latent: right in the mean, of either sign for one draw."""


class Measure(Enum):
    """What ``p(x)`` is."""

    MASS = "mass"
    """A probability of discrete data: minus its logarithm is a code length."""
    DENSITY = "density"
    """A probability density (or a mixed one): its value depends on the units of x."""
    NONE = "none"
    """No bound on anything: the posterior has no density, or the prior does not normalize."""


class Stamp(Enum):
    """What a reported number may be called, from the strongest claim to the weakest."""

    EXACT = "exact"
    """The log-likelihood itself."""
    BOUND = "bound"
    """A number whose mean is a lower bound on the log-likelihood, every level visited."""
    ESTIMATE = "estimate"
    """A random or approximate number near the log-likelihood or a bound on it: some levels visited,
    a numerical solver, or importance weights, whose bias falls with the number of draws."""
    NONE = "none"
    """It bounds nothing."""

    @classmethod
    def weakest(cls, stamps: Iterable[Stamp]) -> Stamp:
        """The weakest of several claims; ``NONE`` where there is no claim at all.

        >>> Stamp.weakest([Stamp.EXACT, Stamp.ESTIMATE, Stamp.BOUND])
        <Stamp.ESTIMATE: 'estimate'>
        """
        order = list(cls)
        return max(stamps, key=order.index, default=cls.NONE)
