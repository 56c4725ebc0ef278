r"""The evidence interval: bounds on ``log p(x)`` from both sides, from importance weights alone.

The ``K`` draws of a row are two halves. With :math:`a` and :math:`b` the log of the mean weight of each,
both estimates of :math:`\log p(x)` that are too low in the mean, every :math:`c` has

.. math:: \log p(x) \le c + p(x)\, e^{-c} - 1,

the tangent of the logarithm at :math:`e^c`. Take :math:`c = a`, and for :math:`p(x)` the unbiased
:math:`e^b`, which is independent of it; then swap the halves, and average both results:

.. math:: \text{floor} = \frac{a + b}{2}, \qquad
    \text{ceiling} = \frac{a + b}{2} + \cosh(a - b) - 1.

The tails of the weights decide whether the ceiling has a mean. They are summarized by the shape ``k`` of a
generalized Pareto distribution, fitted to the largest of the terms :math:`w e^{-c}` that it averages.

Reference: Struski et al., "Bounding evidence and estimating log-likelihood in VAE" (2022); Vehtari,
Simpson, Gelman, Yao, Gabry, "Pareto smoothed importance sampling" (2024), section 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.elbo import Measure
from genmod.evaluation.scoring import Estimate

HEAVY = 0.7
"""The Pareto shape ``k`` above which a mean of weights cannot be trusted at any practical sample size."""
_FEWEST = 5
"""Terms in the tail that a fit needs at least."""
_EQUAL = 1e-6
"""The largest weights over the others, relative, that count as equal: no mean depends on them."""
_GROUP = 2**22
"""Weights that are held in memory at a time."""


class Evidence:
    """The evidence interval of some rows, from importance log-weights that arrive group by group.

    Only two numbers a row are kept, and the largest terms of the ceiling.

    Args:
        rows: how many rows will arrive.
        samples: ``K``, the number of draws of each row, even.
    """

    def __init__(self, rows: int, samples: int) -> None:
        terms = rows * samples
        self.samples = samples
        self.tail = min(terms // 5, math.ceil(3 * math.sqrt(terms)))
        self.halves: list[Tensor] = []
        self._largest = torch.empty(0, dtype=torch.float64)
        self._sum = 0.0

    @staticmethod
    def rows_at_a_time(samples: int) -> int:
        """How many rows of weights to compute together, so that memory stays bounded."""
        return max(1, _GROUP // samples)

    def add(self, weights: Tensor) -> None:
        """Take the log-weights of a group of rows, ``(n, K)``.

        Raises:
            ValueError: log-weights that are NaN or plus infinity.
        """
        broken = int((weights.isnan() | (weights == math.inf)).any(1).sum())
        if broken > 0:
            raise invalid(
                f"importance weights that are NaN or infinite in {broken} of {len(weights)} rows",
                "finite log-weights",
                "check these rows, and the model's parameters (a diverged training)",
            )
        split = torch.stack(weights.chunk(2, 1), 1)
        halves = split.logsumexp(2) - math.log(split.shape[2])
        ratios = (split - halves.flip(1)[:, :, None]).exp().flatten()
        largest = torch.cat([self._largest, ratios])
        self._largest = largest.topk(min(self.tail + 1, len(largest)), sorted=True).values
        self._sum += float(ratios.sum())
        self.halves.append(halves)

    @property
    def importance(self) -> Estimate:
        """The importance-weighted bound from all draws."""
        return Estimate.of(torch.cat(self.halves).logsumexp(1) - math.log(2))

    @property
    def floors(self) -> Tensor:
        """The floor of each row, ``(N,)`` nats."""
        return torch.cat(self.halves).mean(1)

    @property
    def ceilings(self) -> Tensor:
        """The ceiling of each row, ``(N,)`` nats."""
        return self.floors + torch.cosh(self._difference()) - 1

    @property
    def pareto_k(self) -> float | None:
        """The shape ``k`` of the ceiling's tail; ``None`` for too few draws, or weights that are equal."""
        excess, threshold = self._largest[:-1] - self._largest[-1], float(self._largest[-1])
        # An exact posterior: what is left are rounding errors, which have a heavy tail of their own.
        equal = float(excess.max()) <= _EQUAL * threshold if len(excess) else True
        return None if equal else pareto_shape(excess)

    @property
    def heavy(self) -> bool:
        """Whether the ceiling cannot be estimated: ``k`` above 0.7, or a draw that outweighs all others."""
        k = self.pareto_k
        # Written so that NaN, of a half whose weights are all zero, counts as heavy.
        dominated = not float(self._largest[0]) <= self._sum / 2
        return dominated or (k is not None and k > HEAVY)

    def interval(self, measure: Measure) -> tuple[Estimate, Estimate]:
        """The means of floor and ceiling; errors count rows and draws. Infinite for heavy weights."""
        low, high = Estimate.of(self.floors), Estimate(math.inf, math.inf)
        if not self.heavy:
            high = Estimate.of(self.ceilings)
        if measure is Measure.MASS and math.isfinite(high.mean):
            # Only the mean is cut at 0. Cutting each row would remove errors of one sign alone: a bias.
            high = Estimate(min(high.mean, 0.0), high.error)
        return low, high

    def _difference(self) -> Tensor:
        halves = torch.cat(self.halves)
        return halves[:, 0] - halves[:, 1]


def pareto_shape(excess: Tensor) -> float | None:
    r"""The shape ``k`` of a generalized Pareto distribution, fitted to exceedances over a threshold.

    Moments of order below ``1 / k`` exist. A weak prior at 1/2 steadies fits to few numbers.

    Args:
        excess: the exceedances, ``(M,)``, in any order, at least 0.

    Returns:
        ``k``; ``None`` for fewer than 5 numbers, or without a positive spread.

    Reference: Zhang, Stephens, "A new and efficient estimation method for the generalized Pareto
    distribution" (2009), section 2; Vehtari et al. (2024), appendix C.

    >>> u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    >>> round(pareto_shape((u**-0.4 - 1) / 0.4), 2), pareto_shape(torch.zeros(9))
    (0.4, None)
    """
    x = excess.double().sort().values
    count = len(x)
    if count < _FEWEST or not (x[-1] > 0 and x[-1].isfinite()):
        return None
    quartile = x[int(count / 4 + 0.5) - 1].clamp_min(x[-1] * 1e-12)
    size = 30 + math.isqrt(count)
    grid = torch.arange(size, dtype=x.dtype) + 0.5
    theta = 1 / x[-1] + (1 - (size / grid).sqrt()) / (3 * quartile)
    shape = torch.stack([torch.log1p(-each * x).mean() for each in theta])
    likelihood = count * ((-theta / shape).log() - shape - 1)
    mean = (likelihood.softmax(0) * theta).sum()
    fitted = float(torch.log1p(-mean * x).mean())
    return (count * fitted + 10 * 0.5) / (count + 10)
