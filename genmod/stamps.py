"""What a rate or a bound states about itself: how it was computed, what it is, its noise levels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from genmod.tensors import PerLevel


class Kind(Enum):
    """How a rate was computed."""

    ANALYTIC = "analytic"
    """A KL divergence in closed form: never negative."""
    MONTE_CARLO = "monte carlo"
    """A log-ratio ``log q(z) - log p(z)`` at a draw of z: its mean is the KL, one draw may be negative."""


class Measure(Enum):
    """What ``p(x)`` is."""

    MASS = "mass"
    """The probability of discrete data: minus its logarithm is a code length."""
    DENSITY = "density"
    """A probability density, also of data that are partly discrete: it depends on the units of x."""
    NONE = "none"
    """No bound on anything: the posterior has no density, or the prior does not normalize."""


class Stamp(Enum):
    """What a reported number may be called, from the strongest claim to the weakest."""

    EXACT = "exact"
    """The log-likelihood itself."""
    BOUND = "bound"
    """A number whose mean is a lower bound on the log-likelihood, every level visited."""
    ESTIMATE = "estimate"
    """A random or approximate number near the log-likelihood, or near a bound on it. It visited some levels
    only, or used a numerical solver, or importance weights, whose bias falls with the number of draws."""
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


@dataclass(frozen=True, eq=False)
class NoiseLevels:
    r"""The levels that a diffusion visited: what objectives compute their weights from.

    Each field is ``(B, L)``. ``nats = 1/2 gap error`` where the reverse variance is the posterior's.

    Args:
        log_snr: the log signal-to-noise ratio of each level.
        gap: :math:`\mathrm{SNR}_s / \mathrm{SNR}_t - 1` of each step; in continuous time
            :math:`-d\lambda / dt`.
        error: :math:`\|\varepsilon - \hat\varepsilon\|^2`, summed over the event.
        dt: the length of each time step; one in continuous time. So ``(weight * dt * f).sum(-1)`` is
            unbiased for the mean of ``f`` over time.
        variance_nats: where a reverse variance is learned, the nats with the mean held fixed. Their
            gradient reaches the variance alone.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), eqs. 13 and 18.
    """

    log_snr: PerLevel
    gap: PerLevel
    error: PerLevel
    dt: PerLevel
    variance_nats: PerLevel | None = None
