"""The result of :func:`genmod.evaluation.collapse`: a table, and a verdict in words with the remedy."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

from torch import Tensor

from genmod.elbo import Kind
from genmod.evaluation.scoring import Estimate
from genmod.evaluation.spectrum import LinearForecast

ACTIVE = 0.01
"""The activity above which a unit is active: the threshold of Burda et al."""
_SHOWN = 6
"""How many units the table lists, largest first."""


@dataclass(frozen=True, eq=False)
class LatentUse:
    r"""What one level of latents carries; means over samples, in nats.

    Args:
        name: the name of its rate.
        kl: its rate: the mean KL divergence of the posterior from the prior.
        kind: whether the rate is a KL in closed form, or a log-ratio at draws, which may be negative.
        activity: the variance over the data of each unit's posterior mean, ``(D,)``.
        per_unit: the nats of each unit, ``(D,)``, where the laws factorize; else ``None``.
    """

    name: str
    kl: Estimate
    kind: Kind
    activity: Tensor
    per_unit: Tensor | None

    @property
    def units(self) -> int:
        """``D``, the number of units."""
        return len(self.activity)

    @property
    def active(self) -> int:
        """How many units are active: those with an activity above 0.01."""
        return int((self.activity > ACTIVE).sum())


@dataclass(frozen=True, eq=False, repr=False)
class Collapse:
    r"""The use of a model's latents over some data: what :func:`collapse` returns. It prints as a table.

    Args:
        name: the name of the model.
        samples: ``N``, how many rows were used.
        value: the bound, nats per sample.
        levels: each level of latents, in the order in which the posterior draws them.
        information: the mutual information of data and latent in nats, at most ``log N``.
        aggregate: :math:`\mathrm{KL}(q(z) \| p(z))` of the aggregate posterior from the prior, in nats:
            the rate minus the mutual information. Its error is that of the differences.
        informed: the latents that these two are of. In an aligned hierarchy, the level drawn first.
        forecast: what a linear VAE would do on these rows, for a VAE with a Gaussian decoder whose
            variance is one number; else ``None``.
        variance: this variance.
        linear_bound: the bound of a linear VAE with as many latents on these rows: with the same variance
            if that is fixed, else with the best one. ``None`` for fewer than 4 rows an entry.
        shared: whether the prior has parameters of the encoder, as a VampPrior has.
    """

    name: str
    samples: int
    value: Estimate
    levels: tuple[LatentUse, ...]
    information: Estimate
    aggregate: Estimate
    informed: str = "the latent"
    forecast: LinearForecast | None = None
    variance: float | None = None
    linear_bound: float | None = None
    shared: bool = False

    @property
    def limit(self) -> float:
        """``log N``: the largest mutual information that ``N`` rows can show."""
        return math.log(self.samples)

    @property
    def saturated(self) -> bool:
        """Whether the mutual information is so near ``log N`` that it may be far larger.

        A draw then fits fewer than two of the rows, on the geometric average.
        """
        return self.information.mean > self.limit - math.log(2)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The names of the levels without an active unit."""
        return tuple(level.name for level in self.levels if level.active == 0)

    @property
    def verdict(self) -> tuple[str, ...]:
        """What was found, in sentences, each with what to do."""
        dead = self.collapsed
        if dead:
            every = len(dead) == len(self.levels)
            what = "Collapsed: no unit is active, so the decoder ignores the latents."
            if not every:
                what = f"Collapsed: no unit of {', '.join(dead)} is active."
            return (f"{what} {self._remedy()}", *self._by_forecast())
        units = sum(level.units for level in self.levels)
        active = sum(level.active for level in self.levels)
        if active == units:
            found = "Not collapsed: every unit is active."
            return (found, *self._by_forecast(), *self._by_prior())
        unused = (
            f"Not collapsed: {active} of {units} units are active. The others cost nothing; if more "
            f"should live: {self._remedy()[0].lower()}{self._remedy()[1:]}"
        )
        return (unused, *self._by_forecast(), *self._by_prior())

    def _remedy(self) -> str:
        """What keeps latents alive in a model of this kind."""
        if self.shared:
            return (
                "Train with a KL warm-up of a thousand steps or more, objectives.WarmUp(1000). This prior "
                "follows the posteriors, so that nothing holds them apart, and a short one changes nothing."
            )
        if any(level.kind is Kind.MONTE_CARLO for level in self.levels):
            warm_up = (
                "Train with a KL warm-up, objectives.WarmUp(steps). (Free bits need a KL in closed form, "
                "and this model has sampled rates.)"
            )
            hierarchy = len(self.levels) > 1
            return warm_up + " HVAE(..., level_std=0.5) keeps z2 alive, too." * hierarchy
        nats = 0.5 if len(self.levels) > 1 else 1.0
        return (
            f"Train with free bits, objectives.FreeBits({nats}), or a KL warm-up, "
            "objectives.WarmUp(steps)."
        )

    def _by_forecast(self) -> tuple[str, ...]:
        """What follows from the eigenvalues of the data, where units or nats could be more."""
        if self.forecast is None or self.variance is None:
            return ()
        expected, found = self.forecast.live(self.variance), []
        if expected < min(self.levels[0].units, len(self.forecast.eigenvalues)):
            std = math.sqrt(float(self.forecast.eigenvalues[expected]))
            found.append(
                f"With a decoder std of {math.sqrt(self.variance):.3g} a linear VAE has {expected} "
                f"active units on these data: the next one needs a std below {std:.3g}."
            )
        ahead = -math.inf if self.linear_bound is None else self.linear_bound - self.value.mean
        if ahead > max(0.1, 2 * self.value.error):
            found.append(
                f"A linear VAE has a bound of {self.linear_bound:.1f} nats on these data, above the "
                f"{self.value.mean:.1f} here: train longer. The best std of a decoder is found at "
                "once by decoders.CalibratedGaussianDecoder."
            )
        return tuple(found)

    def _by_prior(self) -> tuple[str, ...]:
        """What follows from the mutual information for the prior."""
        if self.saturated:
            return (
                f"The mutual information is saturated: {self.samples} rows show at most "
                f"{self.limit:.2f} nats. Pass more rows to tell information from a prior that does "
                "not fit.",
            )
        if self.aggregate.mean - 2 * self.aggregate.error <= max(1.0, 0.1 * self.information.mean):
            return ()
        return (
            f"{self.aggregate.mean:.1f} nats of the rate are the distance of the aggregate posterior "
            "from the prior, not information: a prior that learns could save them.",
        )

    def __str__(self) -> str:
        """A table of 80 columns: each level, the mutual information, the linear forecast, the verdict."""
        lines = [
            f"{self.name}: {self.samples} samples, nats a sample"[:80],
            f"  {'latent':<10} {'units':>6} {'active':>7} {'KL':>15}  largest units",
        ]
        lines += [self._line(level) for level in self.levels]
        full = ", saturated" if self.saturated else ""
        lines += [
            f"  mutual information of x and {self.informed}:"[:56].ljust(57)
            + f"{self.information}",
            f"    at most ln N = {self.limit:.2f}{full}",
            "  aggregate posterior from the prior:".ljust(57) + f"{self.aggregate}",
        ]
        if self.forecast is not None and self.variance is not None:
            nats = self.forecast.kl(self.variance)
            head = f"  a linear VAE, decoder std {math.sqrt(self.variance):.3g}:"
            lines.append(f"{head:<56} {len(nats)} units, {float(nats.sum()):.2f}")
        for sentence in self.verdict:
            lines += textwrap.wrap(
                sentence, 78, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
            )
        return "\n".join(lines)

    __repr__ = __str__

    def _line(self, level: LatentUse) -> str:
        largest = ""
        if level.per_unit is not None:
            ordered = level.per_unit.sort(descending=True).values[:_SHOWN]
            largest = " ".join(f"{float(nats):z.2f}" for nats in ordered)
        return (
            f"  {level.name[:10]:<10} {level.units:>6} {level.active:>7} {level.kl!s:>15}  {largest}"
        ).rstrip()[:80]
