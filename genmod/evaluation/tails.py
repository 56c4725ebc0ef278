r"""The cost of ``x`` beyond the clean end of a diffusion, in closed form: tails of the I-MMSE integral.

Symbols: :math:`\lambda` the log-SNR at the end, :math:`v = e^\lambda`, ``D`` dimensions, ``e`` the error
:math:`v\,\mathbb{E}\|x - \hat x\|^2` that a tail assumes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from genmod.checks import check_positive
from genmod.elbo import Measure


class Tail(ABC):
    """The cost of ``x`` that remains when it is known up to the noise of the clean end."""

    measure: Measure
    """What the integral is with this ending."""

    @abstractmethod
    def nats(self, log_snr: float, dims: int) -> float:
        """Nats a sample beyond a log-SNR."""


@dataclass(frozen=True)
class GaussianTail(Tail):
    r"""For data with a density: beyond the end, the noised state is taken for ``x``, :math:`e = D`.

    .. math:: \tfrac{D}{2} \log \frac{2 \pi e}{v}

    The true remainder differs from it by about :math:`\tfrac{D}{2 v}` where the density is flat over the
    noise that is left.
    """

    measure = Measure.DENSITY

    def nats(self, log_snr: float, dims: int) -> float:
        """Nats a sample beyond a log-SNR."""
        return 0.5 * dims * (math.log(2 * math.pi) + 1 - log_snr)


@dataclass(frozen=True)
class NoTail(Tail):
    """For points that are known without error at the clean end: nothing is left."""

    measure = Measure.MASS

    def nats(self, log_snr: float, dims: int) -> float:
        """None."""
        return 0.0


@dataclass(frozen=True)
class IntegerTail(Tail):
    r"""For integer entries: beyond the end, each is rounded to the nearest value.

    With ``Q`` the upper tail of N(0, 1), :math:`\phi` its density, and
    :math:`w_k = (k - \tfrac12) \cdot \text{width} \cdot \sqrt{v}`, rounding costs an entry

    .. math:: \sum_{k \ge 1} \frac{2}{k - 1/2}
        \left[(1 - w_k^2)\, Q(w_k) + w_k\, \phi(w_k)\right].

    Args:
        width: the distance of neighboring values, in the units of what is noised.
    """

    width: float
    measure = Measure.MASS

    def __post_init__(self) -> None:
        check_positive(self.width, "width")

    def nats(self, log_snr: float, dims: int) -> float:
        """Nats a sample beyond a log-SNR."""
        # Until w passes 40 standard deviations, where the tail is below the smallest number.
        count = max(1, math.ceil(40 / (self.width * math.exp(log_snr / 2)) + 0.5))
        middle = torch.arange(1, count + 1, dtype=torch.float64) - 0.5
        w = middle * self.width * math.exp(log_snr / 2)
        density = torch.exp(-0.5 * w.square()) / math.sqrt(2 * math.pi)
        # Not ndtr(-w), which is zero from w = 9 on: the density beside it is not.
        upper = 0.5 * torch.special.erfc(w * math.sqrt(0.5))
        left = (1 - w.square()) * upper + w * density
        return dims * float((2 / middle * left).sum())
