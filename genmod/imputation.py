r"""Multiple imputation by importance resampling: missing entries drawn given the observed ones.

Symbols: ``B`` rows, ``K`` draws of the latents of each, with normalized weights

.. math:: w_k \propto \frac{p(x_{\text{obs}} | z_k)\, p(z_k)}{q(z_k | x_{\text{obs}})}.

The effective sample size of a row is :math:`1 / \sum_k w_k^2`, between 1 and ``K``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsIndex

import torch
from torch import Tensor

from genmod import random
from genmod.checks import check_at_least, invalid
from genmod.chunks import by_rows, chunks, rows_per_chunk
from genmod.columns import CODED
from genmod.distributions.base import elementwise, masked_log_prob
from genmod.spec import DataSpec
from genmod.tensors import PerSample, expand_like

if TYPE_CHECKING:
    from torch.distributions import Distribution

    from genmod.model import LatentModel

_KEY = 0x1A7
"""The seed of the noise where rows have seeds: a row's own seed is its id."""
_LOW = 3.0
"""Effective sample sizes below which a report warns."""


@dataclass(frozen=True, eq=False, repr=False)
class Imputation:
    """Multiple imputation: completed copies of rows with missing entries. It is a sequence of the copies.

    Args:
        draws: ``(n, B, *event)``: in each copy the missing entries are one joint draw.
        mean: ``(B, *event)``: each missing entry is its mean given the observed ones; of a category or an
            ordinal, the most probable code. Use it for display or prediction; use ``draws`` for inference,
            because means have too little variance.
        effective_sample_size: of each row, ``(B,)``, between 1 and ``importance_samples``. Near 1 a single
            draw of the latents has all the weight: pass more ``importance_samples``.
        importance_samples: ``K``.
    """

    draws: Tensor
    mean: Tensor
    effective_sample_size: PerSample
    importance_samples: int

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, index: int) -> Tensor:
        """One completed copy, ``(B, *event)``."""
        return self.draws[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.draws)

    def __repr__(self) -> str:
        n, rows = self.draws.shape[:2]
        size = self.effective_sample_size
        low = int((size < _LOW).sum())
        text = (
            f"Imputation({n} cop{'y' if n == 1 else 'ies'} of {rows} rows; effective sample size "
            f"{float(size.median()):.1f} of {self.importance_samples} in the median, "
            f"{float(size.min()):.1f} at least"
        )
        few = f"; {low} rows below {_LOW:g}: pass more importance_samples" if low else ""
        return f"{text}{few})"


def impute_rows(
    model: LatentModel,
    x: Tensor,
    observed: Tensor,
    n: int,
    importance_samples: int,
    context: Tensor | None,
    seeds: Sequence[SupportsIndex] | None,
) -> Imputation:
    """Imputation of all rows, in chunks: see :meth:`genmod.model.LatentModel.impute`."""
    check_at_least(n, 1, "n", "n=1 fills the table once")
    check_at_least(importance_samples, 1, "importance_samples", "64 is the default")
    model.spec.check(x, observed)
    most = max(1, rows_per_chunk(model.spec.shape, model.device) // importance_samples)
    keys = None if seeds is None else torch.tensor([int(seed) for seed in seeds])
    if keys is not None and len(keys) != len(x):
        raise invalid(f"{len(keys)} seeds for {len(x)} rows", "one seed a row", "pass one a row")

    def some(rows: slice) -> Imputation:
        given = None if context is None else context[rows].to(model.device)
        return _impute(
            model,
            x[rows].to(model.device),
            observed[rows].to(model.device),
            n,
            importance_samples,
            given,
        )

    pieces = chunks(len(x), most)
    if keys is None:
        found = [some(piece) for piece in pieces]
    else:
        found = list(by_rows(pieces, lambda piece: random.keyed(_KEY, ids=keys[piece]), some))
    return Imputation(
        torch.cat([part.draws for part in found], 1),
        torch.cat([part.mean for part in found]),
        torch.cat([part.effective_sample_size for part in found]),
        importance_samples,
    )


def _impute(
    model: LatentModel, x: Tensor, observed: Tensor, n: int, count: int, context: Tensor | None
) -> Imputation:
    """Imputation of the rows of one chunk."""

    def copies(rows: Tensor, times: int) -> Tensor:
        return rows.repeat(times, *[1] * (rows.ndim - 1))

    filled = torch.where(observed, x, torch.zeros_like(x))
    wide, seen = copies(filled, count), copies(observed, count)
    given = None if context is None else copies(context, count)
    state, path = model.prior.draw_path(model.posterior(wide, given, seen), given, count)
    law = model.law(state, given)
    log_w = masked_log_prob(law, wide, seen).reshape(count, -1) + path.log_ratio()
    empty = ~observed.flatten(1).any(1)
    prior = model.prior.sample(len(state), given)
    # Nothing was observed: the draws are the model's own, whatever the encoder makes of an empty row.
    state = torch.where(expand_like(copies(empty, count), state).bool(), prior, state)
    log_w = torch.where(empty, torch.zeros_like(log_w), log_w)
    law = model.law(state, given)
    weights = log_w.softmax(0)
    chosen = _resample(weights, n)
    at = torch.arange(len(x), device=x.device)
    rows = (chosen * len(x) + at).flatten()
    drawn = random.draw(
        model.law(state[rows], None if given is None else given[rows]), gradients=False
    )
    drawn = drawn.reshape(n, *x.shape).to(_kind(x, drawn))
    keep = filled.to(drawn.dtype)
    return Imputation(
        torch.where(observed, keep, drawn),
        torch.where(observed, keep.to(log_w.dtype), _mean(law, weights, model.spec)),
        1 / weights.square().sum(0),
        count,
    )


def _kind(x: Tensor, drawn: Tensor) -> torch.dtype:
    """The type of the completed rows: the data's own."""
    return x.dtype if x.is_floating_point() == drawn.is_floating_point() else drawn.dtype


def _resample(weights: Tensor, n: int) -> Tensor:
    """``n`` draws of ``0 .. K - 1`` for each row by its weights ``(K, B)``: ``(n, B)``."""
    u = random.uniform((weights.shape[1], n), torch.float64, weights.device)
    below = weights.double().cumsum(0)
    return torch.searchsorted(below.T.contiguous() / below[-1][:, None], u, right=True).T.clamp(
        max=len(weights) - 1
    )


def _mean(law: Distribution, weights: Tensor, spec: DataSpec) -> Tensor:
    """The weighted mean of the decoder's means; of coded columns, the most probable code."""
    count, rows = weights.shape

    def weighted(values: Tensor) -> Tensor:
        values = values.reshape(count, rows, *values.shape[1:])
        return (weights.reshape(count, rows, *[1] * (values.ndim - 2)) * values).sum(0)

    mean = weighted(law.mean)
    coded = [place for place, c in enumerate(spec.columns or ()) if c.kind in CODED]
    if not coded:
        return mean
    columns = [(spec.columns or ())[place] for place in coded]
    counts = torch.tensor([column.count for column in columns], device=mean.device)
    best, most = torch.zeros_like(mean[:, coded]), torch.zeros_like(mean[:, coded])
    for code in range(int(counts.max())):
        x = law.mean.clone()
        x[:, coded] = torch.minimum(torch.tensor(code), counts - 1).to(x)
        mass = weighted(elementwise(law, x).exp()[:, coded]) * (code < counts)
        best = torch.where(mass > most, code, best)
        most = torch.maximum(mass, most)
    mean[:, coded] = best
    return mean
