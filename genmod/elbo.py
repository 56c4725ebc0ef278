r"""The evidence lower bound (ELBO) of each sample, in nats, term by term.

.. math:: \log p(x) \ge \mathbb{E}_{q(z|x)}[\log p(x|z)]
    - \sum_{\text{rates}} \mathbb{E}\,[\text{rate}]

Nothing here is averaged over the batch, weighted for training, or negated. ``ELBO.value`` is to be
maximized. Weights live in :mod:`genmod.objectives`, averages in :mod:`genmod.evaluation`.

Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), eq. 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from genmod.checks import check_at_least, invalid, whole_number
from genmod.stamps import Kind as Kind
from genmod.stamps import Measure as Measure
from genmod.stamps import NoiseLevels as NoiseLevels
from genmod.stamps import Stamp as Stamp
from genmod.tensors import PerLevel, PerSample, constant


@dataclass(frozen=True, eq=False)
class Rate:
    r"""The rate of one group of latents: the KL divergence from the prior to the posterior, in nats.

    .. math:: \mathrm{KL}(q(z|x) \,\|\, p(z)) \quad\text{or, at a draw,}\quad \log q(z|x) - \log p(z)

    Each tensor is ``(B, L)``: ``B`` rows, and the ``L`` levels that were visited. A VAE has one level; a
    hierarchy or a diffusion has several, and a diffusion may visit some of them only.

    Args:
        nats: the rate of each visited level.
        weight: one over the expected number of visits to the level (in continuous time: per unit of
            time), and nothing else. So ``(weight * nats).sum(-1)`` is unbiased for the sum over all
            levels.
        level: which level it is: its time ``t`` in [0, 1] for a diffusion, else its number.
        kind: a KL in closed form, or a log-ratio at a draw.
        claim: what a bound that contains this rate may be called. ``BOUND`` for a KL or a log-ratio of
            all levels; ``ESTIMATE`` for some of the levels, a numerical solver or a stochastic
            trace; ``EXACT`` only where q is known to be the posterior.
        names: the names of the ``L`` levels of an aligned hierarchy.
        per_dim: the nats of each dimension, ``(B, D_l)`` for each level, where they are known.
        noise: the noise levels, where the latents are those of a diffusion.

    Raises:
        ValueError: tensors of different shapes, or not ``(B, L)``.

    Reference: Alemi et al., "Fixing a Broken ELBO" (2018), eq. 5, for the word.

    >>> two_of_ten = torch.tensor([[0.3, 0.1]])
    >>> weight = torch.full((1, 2), 10 / 2)
    >>> level = torch.tensor([[0.2, 0.7]])
    >>> rate = Rate(two_of_ten, weight, level, Kind.ANALYTIC, Stamp.ESTIMATE)
    >>> rate.total
    tensor([2.])
    """

    nats: PerLevel
    weight: PerLevel
    level: PerLevel
    kind: Kind
    claim: Stamp
    names: tuple[str, ...] | None = None
    per_dim: tuple[Tensor, ...] | None = None
    noise: NoiseLevels | None = None

    def __post_init__(self) -> None:
        shape = self.nats.shape
        if len(shape) != 2 or self.weight.shape != shape or self.level.shape != shape:
            raise invalid(
                f"a rate with nats of shape {tuple(shape)}, weight {tuple(self.weight.shape)} and "
                f"level {tuple(self.level.shape)}",
                "(B, L) for all three",
                "sum each row's event first, and use Rate.single for one level",
            )

    @classmethod
    def single(
        cls, nats: PerSample, kind: Kind, claim: Stamp, per_dim: Tensor | None = None
    ) -> Rate:
        """The rate of one level that every row visits; ``nats`` is ``(B,)``, ``per_dim`` is ``(B, D)``."""
        if nats.ndim != 1:
            advice = (
                "sum over the event, or wrap the distribution in torch.distributions.Independent"
            )
            raise invalid(f"nats of shape {tuple(nats.shape)}", "(B,), one number a row", advice)
        column = nats[:, None]
        each = None if per_dim is None else (per_dim,)
        return cls(
            column, torch.ones_like(column), torch.zeros_like(column), kind, claim, per_dim=each
        )

    @property
    def total(self) -> PerSample:
        """Nats per sample: the (estimated) sum over all levels."""
        return (self.weight * self.nats).sum(-1)

    def detach(self) -> Rate:
        """The same numbers without gradients."""
        return _combine([self], lambda tensors: constant(tensors[0]))

    @classmethod
    def join(cls, rates: Sequence[Rate], dim: int) -> Rate:
        """Rates of the same latents side by side: more rows (``dim=0``) or more levels (``dim=1``)."""
        if len(rates) == 1:
            return rates[0]
        joined = _combine(rates, lambda tensors: torch.cat(tensors, dim))
        if dim == 0:
            return joined
        named = [rate.names for rate in rates if rate.names is not None]
        split = [rate.per_dim for rate in rates if rate.per_dim is not None]
        return replace(
            joined,
            names=sum(named, ()) if len(named) == len(rates) else None,
            per_dim=sum(split, ()) if len(split) == len(rates) else None,
        )


def _combine(rates: Sequence[Rate], act: Callable[[list[Tensor]], Tensor]) -> Rate:
    """Apply ``act`` to each tensor of several rates together. A field that one rate lacks is ``None``."""

    def together(parts: Sequence[Tensor | None]) -> Tensor | None:
        present = [part for part in parts if part is not None]
        return act(present) if len(present) == len(parts) else None

    levels = [rate.noise for rate in rates if rate.noise is not None]
    noise = None
    if len(levels) == len(rates):
        noise = NoiseLevels(
            act([one.log_snr for one in levels]),
            act([one.gap for one in levels]),
            act([one.error for one in levels]),
            act([one.dt for one in levels]),
            together([one.variance_nats for one in levels]),
        )
    split = [rate.per_dim for rate in rates if rate.per_dim is not None]
    whole = len(split) == len(rates) and len({len(each) for each in split}) == 1
    first = rates[0]
    return Rate(
        act([rate.nats for rate in rates]),
        act([rate.weight for rate in rates]),
        act([rate.level for rate in rates]),
        Kind.MONTE_CARLO if any(rate.kind is Kind.MONTE_CARLO for rate in rates) else first.kind,
        first.claim if len(rates) == 1 else Stamp.weakest(rate.claim for rate in rates),
        first.names,
        tuple(act(list(each)) for each in zip(*split, strict=True)) if whole else None,
        noise,
    )


class Level(NamedTuple):
    """One line of :meth:`ELBO.levels`: a name, its nats, ``(B,)``, and how they were computed."""

    name: str
    nats: PerSample
    kind: Kind


@dataclass(frozen=True, eq=False, repr=False)
class ELBO:
    r"""The evidence lower bound of each sample, split into its terms, in nats, to be maximized.

    .. math:: \text{value} = \log p(x|z) - \sum_\text{name} \text{rates[name].total},
        \qquad \mathbb{E}_q[\text{value}] \le \log p(x)

    Args:
        reconstruction: ``log p(x | z)``, ``(B,)``.
        rates: the rates of the latents, by name. ``"prior"``: prior matching. ``"steps"``: the
            denoising steps of a diffusion. ``"levels"``: an aligned hierarchy. ``"z1"``, ``"z2"``, ...:
            the levels of a nested hierarchy.
        measure: whether ``p(x)`` is a mass or a density; ``NONE`` if the value is no bound.

    Raises:
        ValueError: a term that does not have one number (or ``L`` of them) for each row.

    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes" (2014), eq. 3.

    >>> import torch
    >>> rate = Rate.single(torch.tensor([1.5]), Kind.ANALYTIC, Stamp.BOUND)
    >>> elbo = ELBO(torch.tensor([-2.0]), {"prior": rate}, Measure.MASS)
    >>> elbo.value, elbo.stamp
    (tensor([-3.5000]), <Stamp.BOUND: 'bound'>)
    """

    reconstruction: PerSample
    rates: Mapping[str, Rate]
    measure: Measure

    def __post_init__(self) -> None:
        shape = self.reconstruction.shape
        if len(shape) != 1 or any(r.nats.shape[0] != shape[0] for r in self.rates.values()):
            rows = {name: len(rate.nats) for name, rate in self.rates.items()}
            raise invalid(
                f"a reconstruction of shape {tuple(shape)} beside rates of {rows} rows",
                "(B,) and B rows: one number a sample in every term",
                "give distributions one event a row (Independent), and networks one output a row",
            )

    @property
    def value(self) -> PerSample:
        """``reconstruction`` minus the total of every rate, ``(B,)``."""
        value = self.reconstruction
        for rate in self.rates.values():
            value = value - rate.total
        return value

    @property
    def stamp(self) -> Stamp:
        """What :attr:`value` may be called: the weakest claim of its rates."""
        if self.measure is Measure.NONE:
            return Stamp.NONE
        return Stamp.weakest(rate.claim for rate in self.rates.values())

    def levels(self) -> list[Level]:
        """``(name, nats, kind)`` of each group of latents, and of each level of an aligned hierarchy."""
        found = []
        for name, rate in self.rates.items():
            if rate.names is None:
                found.append(Level(name, rate.total, rate.kind))
                continue
            totals = (rate.weight * rate.nats).unbind(1)
            pairs = zip(rate.names, totals, strict=True)
            found.extend(Level(level, nats, rate.kind) for level, nats in pairs)
        return found

    def bits_per_dim(self, dims: int, bin_width: float | None = None) -> PerSample:
        r"""Bits per dimension: ``-value / (dims ln 2)``, and for a density minus the log of a bin's width.

        Args:
            dims: how many numbers one sample holds (784 for 28x28, never a padded size).
            bin_width: ``w``, the width of a bin in the units of ``x``. It turns a density into the
                mass of a bin: :math:`-\log_2 p(x) - \log_2 w` per dimension.

        Raises:
            ValueError: the value bounds nothing, or is a density whose bin width is not stated.
        """
        check_at_least(whole_number(dims, "dims"), 1, "dims", "count the entries of x")
        if self.measure is Measure.NONE:
            expected, advice = "a bound on a mass or a density", "report the reconstruction instead"
            raise invalid("a value that bounds nothing", expected, advice)
        if self.measure is Measure.MASS:
            if bin_width is not None:
                got, expected = f"bin_width={bin_width} for a probability mass", "no bin width"
                raise invalid(got, expected, "leave it out: a mass needs none")
            return -self.value / (dims * math.log(2))
        if bin_width is None or not bin_width > 0:
            advice = "pass bin_width=1/256 for 8-bit data scaled to [0, 1], or report nats"
            raise invalid(f"a density with bin_width={bin_width}", "its bin width stated", advice)
        return -self.value / (dims * math.log(2)) - math.log2(bin_width)

    def detach(self) -> ELBO:
        """The same numbers without gradients."""
        rates = {name: rate.detach() for name, rate in self.rates.items()}
        return ELBO(constant(self.reconstruction), rates, self.measure)

    def mean_over(self, samples: int) -> ELBO:
        """The mean over ``K`` draws: from ``K B`` rows, all rows of a draw together, to ``B`` rows."""

        def mean(values: Tensor) -> Tensor:
            return values.reshape(samples, -1, *values.shape[1:]).mean(0)

        rates = {n: _combine([r], lambda tensors: mean(tensors[0])) for n, r in self.rates.items()}
        return ELBO(mean(self.reconstruction), rates, self.measure)

    @classmethod
    def join(cls, bounds: Sequence[ELBO]) -> ELBO:
        """The bounds of several batches as one."""
        first = bounds[0]
        return cls(
            torch.cat([bound.reconstruction for bound in bounds]),
            {n: Rate.join([bound.rates[n] for bound in bounds], dim=0) for n in first.rates},
            first.measure,
        )

    def __repr__(self) -> str:
        lines = [("reconstruction", self.reconstruction, "log p(x | z)")]
        lines += [(name, -nats, kind.value) for name, nats, kind in self.levels()]
        lines += [("value", self.value, self.stamp.value)]
        rows = len(self.reconstruction)
        head = f"ELBO of {rows} {'row' if rows == 1 else 'rows'}, mean nats per row:"
        table = [f"  {n:<16.16}{float(v.detach().mean()):>12.3f}  {note}" for n, v, note in lines]
        return "\n".join([head, *table])
