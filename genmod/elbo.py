r"""The bound: what a model says of each sample, in nats, term by term.

.. math:: \log p(x) \ge \mathbb{E}_{q(z|x)}[\log p(x|z)]
    - \sum_{\text{rates}} \mathbb{E}\,[\text{nats paid for } z]

Nothing here is averaged over the batch, weighted for training, or negated: ``ELBO.value`` is to be
maximized. Weights live in :mod:`genmod.objectives`, averages in :mod:`genmod.evaluation`.

Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), eq. 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor

from genmod.checks import require
from genmod.types import PerLevel, PerSample, PerUnit


class Kind(Enum):
    """How a rate was priced."""

    ANALYTIC = "analytic"
    """A KL divergence in closed form: never negative."""
    MONTE_CARLO = "monte carlo"
    """A log-ratio at the drawn latent: right in the mean, of either sign for one draw."""


class Measure(Enum):
    """What ``p(x)`` is."""

    MASS = "mass"
    """A probability of discrete data: its code length is real."""
    DENSITY = "density"
    """A probability density (or a mixed one): its value depends on the units of x."""
    NONE = "none"
    """No bound on anything: the posterior has no density, or the prior does not normalize."""


class Stamp(Enum):
    """What a reported number is."""

    EXACT = "exact"
    """The log-likelihood itself."""
    BOUND = "bound"
    """A number whose mean is a lower bound on the log-likelihood, every level visited."""
    ESTIMATE = "estimate"
    """A random number near the log-likelihood or a bound on it: a few levels visited, or
    importance weights, whose bias falls with the number of draws."""
    NONE = "none"
    """It bounds nothing."""


@dataclass(frozen=True, eq=False)
class Rate:
    """Nats paid for one group of latents; each field is ``(B, L)`` for ``L`` visited levels.

    Args:
        nats: what each visited level costs.
        weight: the inverse rate at which a level is visited, and nothing else, so that
            ``(weight * nats).sum(-1)`` is unbiased for the sum over all levels.
        level: the place of each level: its time ``t`` in [0, 1] for a diffusion, else its number.
        kind: closed form, or log-ratio at a draw.
        log_snr, gap, error: for levels of a diffusion, what weightings need:
            ``nats = 1/2 gap error`` where the reverse variance is the posterior's.
        share: of time, for levels of a diffusion: one part in how many steps there are, or one in
            continuous time, so that ``(weight * share * f).sum(-1)`` is unbiased for the mean of
            ``f`` over time.
        units: nats of each dimension, ``(B, L, U)``, for free bits and reports of collapse.
        variance_nats: where a reverse variance is learned, the same nats with the mean held fixed:
            their gradient reaches the variance alone.
    """

    nats: PerLevel
    weight: PerLevel
    level: PerLevel
    kind: Kind
    log_snr: PerLevel | None = None
    gap: PerLevel | None = None
    error: PerLevel | None = None
    share: PerLevel | None = None
    units: PerUnit | None = None
    variance_nats: PerLevel | None = None

    @classmethod
    def single(cls, nats: PerSample, kind: Kind, units: PerUnit | None = None) -> Rate:
        """The rate of one level that is always visited."""
        column = nats[:, None]
        one = torch.ones_like(column)
        return cls(column, one, torch.zeros_like(column), kind, units=units)

    @property
    def total(self) -> PerSample:
        """Nats per sample: the (estimated) sum over all levels."""
        return (self.weight * self.nats).sum(-1)

    def detach(self) -> Rate:
        """The same numbers without gradients."""
        return Rate._over([self], lambda tensors: tensors[0].detach())

    @classmethod
    def join(cls, rates: Sequence[Rate], dim: int) -> Rate:
        """Rates of the same latents side by side: more rows (``dim=0``) or levels (``dim=1``)."""
        return cls._over(rates, lambda tensors: torch.cat(tensors, dim))

    @classmethod
    def _over(cls, rates: Sequence[Rate], act: Callable[[list[Tensor]], Tensor]) -> Rate:
        """Act on each field of several rates together; fields that are absent stay absent."""

        def optional(values: list[Tensor | None]) -> Tensor | None:
            present = [value for value in values if value is not None]
            return act(present) if len(present) == len(rates) else None

        return cls(
            nats=act([rate.nats for rate in rates]),
            weight=act([rate.weight for rate in rates]),
            level=act([rate.level for rate in rates]),
            kind=rates[0].kind,
            log_snr=optional([rate.log_snr for rate in rates]),
            gap=optional([rate.gap for rate in rates]),
            error=optional([rate.error for rate in rates]),
            share=optional([rate.share for rate in rates]),
            units=optional([rate.units for rate in rates]),
            variance_nats=optional([rate.variance_nats for rate in rates]),
        )


@dataclass(frozen=True, eq=False)
class ELBO:
    """The evidence lower bound of each sample, split into its terms, in nats, to be maximized.

    Args:
        reconstruction: ``log p(x | z)``, ``(B,)``.
        rates: the nats paid for the latents, by name: ``"prior"`` (prior matching), ``"steps"``
            (denoising matching), ``"z1"``, ``"z2"``, ... (levels of a hierarchy).
        measure: what ``p(x)`` is; ``NONE`` where the value bounds nothing.

    >>> import torch
    >>> rate = Rate.single(torch.tensor([1.5]), Kind.ANALYTIC)
    >>> ELBO(torch.tensor([-2.0]), {"prior": rate}, Measure.MASS).value
    tensor([-3.5000])
    """

    reconstruction: PerSample
    rates: Mapping[str, Rate]
    measure: Measure

    @property
    def value(self) -> PerSample:
        """``reconstruction`` minus the total of every rate, ``(B,)``."""
        value = self.reconstruction
        for rate in self.rates.values():
            value = value - rate.total
        return value

    def bits_per_dim(self, dims: int, bin_width: float | None = None) -> PerSample:
        r"""Bits per dimension, ``-value / (dims ln 2)``, and for a density its bin width counted in.

        Args:
            dims: how many numbers one sample holds (784 for 28x28, never a padded size).
            bin_width: the width of a bin in the units of ``x``: needed to turn a density into the
                mass of a bin, :math:`-\log_2 p(x) - \log_2 w` per dimension.

        Raises:
            ValueError: the value bounds nothing, or is a density whose bin width is not stated.
        """
        require(dims >= 1, f"dims={dims}", "at least one dimension", "count the entries of x")
        require(
            self.measure is not Measure.NONE,
            "a value that bounds nothing (its measure is NONE)",
            "a bound",
            "report the reconstruction of an autoencoder instead",
        )
        if self.measure is Measure.MASS:
            require(
                bin_width is None,
                f"bin_width={bin_width} for a probability mass",
                "no bin width",
                "leave it out: a mass needs none",
            )
            return -self.value / (dims * math.log(2))
        if bin_width is None or not bin_width > 0:
            raise ValueError(
                f"got a density with bin_width={bin_width}; expected its bin width stated; pass "
                "bin_width=1/256 for 8-bit data scaled to [0, 1], or report nats"
            )
        return -self.value / (dims * math.log(2)) - math.log2(bin_width)

    def detach(self) -> ELBO:
        """The same numbers without gradients."""
        rates = {name: rate.detach() for name, rate in self.rates.items()}
        return replace(self, reconstruction=self.reconstruction.detach(), rates=rates)

    @classmethod
    def join(cls, bounds: Sequence[ELBO]) -> ELBO:
        """The bounds of several batches as one."""
        first = bounds[0]
        return cls(
            torch.cat([bound.reconstruction for bound in bounds]),
            {n: Rate.join([bound.rates[n] for bound in bounds], dim=0) for n in first.rates},
            first.measure,
        )
