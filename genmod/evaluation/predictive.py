r"""Posterior predictive checks: statistics of the data beside those of data sets that the model draws.

Symbols: ``R`` replicated data sets of as many rows as the data, ``M`` statistics :math:`T_m`.

A replicate has the contexts of the data and the same missing entries. Its latents are drawn anew, and the
parameters stay at their fitted values. So if the data are draws of the model, data and replicates are
exchangeable, and a tail probability is uniform on the ranks.

Reference: Gelman, Meng, Stern, "Posterior predictive assessment of model fitness via realized
discrepancies" (1996), section 2; Westfall, Young, "Resampling-based multiple testing" (1993), chapter 2.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genmod.checks import invalid
from genmod.columns import shorten
from genmod.evaluation.batching import Ids, RowSet, in_chunks
from genmod.evaluation.statistics import Classes, Group, StatisticFunction, summaries
from genmod.model import LatentModel
from genmod.signatures import checked

ALPHA = 0.05
"""The adjusted tail probability up to which a statistic counts as a misfit."""
_SHOWN = 12
"""Statistics in the printed table, the least likely first."""


@dataclass(frozen=True, eq=False, repr=False)
class PredictiveCheck:
    """Statistics of data beside those of replicated data sets; it prints as a table with a verdict.

    Args:
        name: the model's class.
        rows: how many rows the data and each replicate have.
        names: what each statistic is, ``M`` of them, such as ``"maximum of visits"``.
        observed: of the data, ``(M,)``.
        replicated: of the replicates, ``(R, M)``.
        tail: the two-sided tail probability of each statistic, ``(M,)``.
        adjusted: the same, adjusted for the number of statistics: the chance that a draw of the model is
            as far out in any of them.
        overall: the tail probability of all statistics together: the share of replicates whose mean
            ``-log`` tail probability is at least as large.
        groups: the kind of each statistic, which decides the advice.
        used: the classes in the decoder of its column, which are not advised again.
    """

    name: str
    rows: int
    names: tuple[str, ...]
    observed: Tensor
    replicated: Tensor
    tail: Tensor
    adjusted: Tensor
    overall: float
    groups: tuple[Group, ...]
    used: tuple[Classes, ...] = ()

    @property
    def misfits(self) -> tuple[str, ...]:
        """The statistics whose adjusted tail probability is at most 0.05, the least likely first."""
        return tuple(self.names[place] for place in self.order() if self._misses(place))

    @property
    def verdict(self) -> str:
        """Whether the model's data look like the data, in words, with what to try."""
        count, draws = len(self.names), len(self.replicated)
        found = [place for place in self.order() if self._misses(place)]
        if not found and self.overall > ALPHA:
            return (
                f"No misfit: none of {count} statistics, nor all together, is farther from {draws} "
                f"replicates than chance allows (adjusted tail probabilities above {ALPHA})."
            )
        lines = [f"Misfit in {len(found)} of {count} statistics."]
        if not found:
            few = ", ".join(self.names[place] for place in self.order()[:3])
            lines = [
                f"Misfit of all {count} statistics together (tail probability {self.overall:.2g}), though "
                f"none stands out alone; the farthest are {few}. Train longer, or with more latents."
            ]
        seen: dict[str, str] = {}
        for place in found:
            low = float(self.observed[place]) > float(self.replicated[:, place].median())
            used = self.used[place] if self.used else frozenset()
            advice = self.groups[place].advice(self.names[place], low, used)
            seen.setdefault(advice, self.names[place])
        return " ".join([*lines, *(f"{name}: {advice}." for advice, name in seen.items())])

    def order(self) -> list[int]:
        """Places of the statistics, the least likely first, by the adjusted probability."""
        pairs = zip(self.adjusted.tolist(), self.tail.tolist(), strict=True)
        found = sorted((*pair, place) for place, pair in enumerate(pairs))
        return [place for *_, place in found]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: each statistic with its value, the replicates' quantiles, and both probabilities."""
        low, middle, high = self._quantiles()
        return {
            name: {
                "data": float(self.observed[place]),
                "replicates": [float(low[place]), float(middle[place]), float(high[place])],
                "tail_probability": float(self.tail[place]),
                "adjusted": float(self.adjusted[place]),
            }
            for place, name in enumerate(self.names)
        }

    def _misses(self, place: int) -> bool:
        return float(self.adjusted[place]) <= ALPHA

    def _quantiles(self) -> tuple[Tensor, Tensor, Tensor]:
        at = torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64)
        low, middle, high = torch.quantile(self.replicated, at, dim=0)
        return low, middle, high

    def __repr__(self) -> str:
        low, _, high = self._quantiles()
        order = self.order()[:_SHOWN]
        wide = max(len("statistic"), *(len(shorten(self.names[place], 34)) for place in order))
        head = (
            f"Predictive check of {self.name}: {self.rows} rows, {len(self.replicated)} replicates"
        )
        title = f"  {'statistic':<{wide}}  {'data':>8}  {'95 % of replicates':>19}  tail  adj."
        lines = [head, title]
        for place in order:
            ends = f"{_number(low[place])} to {_number(high[place])}"
            lines.append(
                f"  {shorten(self.names[place], 34):<{wide}}  {_number(self.observed[place]):>8}  "
                f"{ends:>19}  {self.tail[place]:.2f}  {self.adjusted[place]:.2f}"
            )
        rest = len(self.names) - len(order)
        if rest:
            lines.append(f"  and {rest} more, with larger probabilities")
        lines.append(f"  all together: tail probability {self.overall:.2g}")
        lines += [f"  {line}" for line in textwrap.wrap(self.verdict, 76)]
        return "\n".join(lines)


def _number(value: Tensor) -> str:
    """Three digits, and whole numbers from 1000 on."""
    return f"{float(value):.3g}" if abs(float(value)) < 1000 else f"{float(value):.0f}"


@checked
def predictive_check(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    replicates: int = 200,
    statistics: Mapping[str, StatisticFunction] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    observed: object = None,
    progress: bool = False,
) -> PredictiveCheck:
    r"""Posterior predictive check: do data sets that the model draws look like the data?

    For each statistic :math:`T` and replicates :math:`x^{(1)}, \dots, x^{(R)}` of the model,

    .. math:: p = \min\Big(1,\; 2 \min_{\pm} \frac{1 + \#\{r : \pm T(x^{(r)}) \ge \pm T(x)\}}{R + 1}\Big)

    If the data are draws of the model, :math:`P(p \le a) \le a`, with equality at whole ranks of continuous
    statistics. Of many statistics some are small by chance: the adjusted probability is that of the largest
    standardized distance among all of them (max-T; minima and maxima apart, because of their long tails).

    All together are judged by their mean :math:`-\log p`, which is compared with that of each replicate.

    The statistics of each column are its mean, standard deviation, 5 %, 50 % and 95 % quantiles, minimum,
    maximum and share of zeros; the shares of the values of a category; and all correlations. Rows of more
    than 64 numbers, such as images, are checked by all their entries together and by the means of rows.

    Args:
        model: any model with samples.
        data: a data set, whose test part is used, or rows ``(N, *event)``. Rows that the model was
            trained on look better than they should.
        context: what the model is conditioned on, one row per sample; replicates get the same.
        replicates: ``R``. The smallest probability is ``2 / (R + 1)``.
        statistics: more statistics by name: functions of rows ``(N, *event)`` in float64, NaN where an
            entry is missing, that return a number or a vector of numbers.
        seed: the seed of the replicates.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its noise depends.
        observed: which entries are not missing, like the rows; by default what the data state.
            Replicates lack the same entries.
        progress: whether to show a progress bar.

    Returns:
        A :class:`PredictiveCheck`: ``.verdict`` in words, ``.misfits``, ``.tail``. It prints as a table,
        and :func:`genmod.plots.predictive_check` draws it.

    Raises:
        ValueError: an autoencoder, which has no samples; a statistic that is not finite, or not of one
            shape; fewer than 39 replicates.

    Reference: Gelman, Meng, Stern, "Posterior predictive assessment of model fitness via realized
    discrepancies" (1996), section 2; Rubin, "Bayesianly justifiable and relevant frequency calculations
    for the applied statistician" (1984), section 5.

    >>> from genmod.models import VAE
    >>> found = predictive_check(VAE(2, latents=1, width=8), torch.randn(50, 2), replicates=39)
    >>> found.replicated.shape[0], "mean of x0" in found.names
    (39, True)
    """
    fewest = math.ceil(2 / ALPHA) - 1
    if replicates < fewest:
        advice = "with fewer no probability is small enough for a verdict; 200 is the default"
        raise invalid(f"replicates={replicates}", f"at least {fewest}", advice)
    rows = RowSet.of(model, data, context, ids=ids, observed=observed, masked=True)

    def run(x: Tensor, context: Tensor | None, seen: Tensor | None = None) -> Tensor:
        # Always chunks of the same rows, so that the noise is that of their ids.
        return model.draw(model.prior.sample(len(x), context), context).cpu()

    summarize = summaries(model.spec, rows, statistics or {}, model.decoder)
    found = []
    for step in range(replicates):
        label = f"replicate {step + 1} of {replicates}" if progress else None
        pieces = in_chunks(
            model, rows, run, seed=seed, step=step, batch_size=batch_size, progress=label
        )
        found.append(summarize(rows.restore_order(torch.cat(pieces))))
    replicated, values = torch.stack(found), summarize(rows.restore_order(rows.x))
    names = summarize.names
    tail, adjusted, overall = probabilities(values, replicated, names)
    kind = type(model).__name__
    return PredictiveCheck(
        kind, len(rows), names, values, replicated, tail, adjusted, overall, summarize.groups,
        summarize.used,
    )  # fmt: skip


def probabilities(
    observed: Tensor, replicated: Tensor, names: Sequence[str]
) -> tuple[Tensor, Tensor, float]:
    """The two-sided tail probability of each statistic, the adjusted ones, and that of all together.

    Data and replicates are treated alike: each of the ``R + 1`` is compared with all of them.
    """
    every = torch.cat([observed[None], replicated])
    tails = _tails(every)
    spread = every.std(0, correction=0)
    z = (every - every.mean(0)).abs() / torch.where(spread > 0, spread, 1.0)
    # Extremes have long tails, in which the largest of all distances would lie almost always.
    extreme = torch.tensor([name.startswith(("minimum", "maximum")) for name in names])
    families = [family for family in (extreme, ~extreme) if bool(family.any())]
    adjusted = torch.ones(len(names), dtype=torch.float64)
    for family in families:
        largest = z[:, family].amax(1)
        share = (largest[:, None] >= z[0, family]).double().mean(0)
        adjusted[family] = (len(families) * share).clamp(max=1)
    surprise = -tails.log().mean(1)
    overall = float((surprise >= surprise[0]).double().mean())
    return tails[0], torch.maximum(adjusted, tails[0]), overall


def _tails(every: Tensor) -> Tensor:
    """The two-sided tail probability of each row among all, ``(R + 1, M)``."""
    found = []
    for values in every.T.contiguous():
        ordered = values.sort().values
        below = torch.searchsorted(ordered, values, right=True)
        above = len(values) - torch.searchsorted(ordered, values)
        found.append((2 * torch.minimum(below, above).double() / len(values)).clamp(max=1))
    return torch.stack(found, 1)
