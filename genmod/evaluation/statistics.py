"""Statistics of a table for predictive checks, and what to try where one of them is off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from genmod import decoders
from genmod.checks import invalid
from genmod.columns import Column, ColumnKind
from genmod.decoders import Columns, Decoder
from genmod.evaluation.batching import RowSet
from genmod.spec import DataSpec
from genmod.tensors import is_image

StatisticFunction: TypeAlias = Callable[[Tensor], Tensor | float]
"""From rows ``(N, *event)``, NaN where an entry is missing, to a number or a vector of numbers."""

Classes: TypeAlias = frozenset[type]
"""The classes of the modules of a decoder."""
Statistic: TypeAlias = tuple[str, "Group", float]
"""What it is, what a misfit in it calls for, and its value."""

_WIDEST = 64
"""Columns that are checked one by one, at most; of more, all entries together."""
_QUANTILES = {"5 % quantile": 0.05, "median": 0.5, "95 % quantile": 0.95}


@dataclass(frozen=True)
class _Plan:
    """Which statistics of a column are computed, and what a misfit in its spread or its tails is."""

    name: str
    column: Column | None
    zeros: bool
    integer: bool = False
    used: Classes = frozenset()

    @property
    def is_category(self) -> bool:
        return self.column is not None and self.column.kind is ColumnKind.CATEGORY

    @property
    def counted(self) -> bool:
        return self.column is not None and self.column.kind is ColumnKind.COUNT

    @property
    def groups(self) -> tuple[Group, Group]:
        """Of the standard deviation and outer quantiles, and of the extremes."""
        if self.counted:
            return Group.COUNTED_SPREAD, Group.COUNTED_SPREAD
        whole = self.integer if self.column is None else not self.column.is_real
        return (Group.SHARE, Group.SHARE) if whole else (Group.SPREAD, Group.TAIL)


class Summaries:
    """The statistics of rows as a vector, with their names.

    Args:
        spec: the data.
        missing: which entries are missing, like the rows; ``None``: none.
        plans: of the columns, or of all entries and the means of rows.
        own: the user's statistics.
    """

    def __init__(
        self,
        spec: DataSpec,
        missing: Tensor | None,
        plans: Sequence[_Plan],
        own: Mapping[str, StatisticFunction],
    ) -> None:
        self.spec, self.missing, self.plans, self.own = spec, missing, plans, own
        self.names: tuple[str, ...] = ()
        self.groups: tuple[Group, ...] = ()
        self.used: tuple[Classes, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """The statistics of rows, ``(M,)``, in float64."""
        x = x.cpu().double()
        if self.missing is not None:
            x = torch.where(self.missing, torch.nan, x)
        flat, wide = x.flatten(1), _together(self.spec)
        every = [flat.flatten(), flat.nanmean(1)] if wide else list(flat.T)
        found = [
            (*each, plan.used)
            for plan, values in zip(self.plans, every, strict=True)
            for each in _of_column(plan, values[~values.isnan()])
        ]
        pairs = () if wide else self._correlations(flat)
        own = (each for pair in self.own.items() for each in _of_function(*pair, x))
        found += [(*each, frozenset()) for each in (*pairs, *own)]
        names, groups, values, used = zip(*found, strict=True)
        if self.names and names != self.names:
            raise invalid(
                "statistics whose number changes from one data set to another",
                "a number, or a vector of one length",
                "return one number for each column, whatever the rows are",
            )
        self.names, self.groups, self.used = names, groups, used
        return torch.tensor(values, dtype=torch.float64)

    def _correlations(self, x: Tensor) -> Iterator[Statistic]:
        places = [place for place, plan in enumerate(self.plans) if not plan.is_category]
        table = correlations(x[:, places])
        for row in range(len(places)):
            for other in range(row):
                one, two = self.plans[places[other]].name, self.plans[places[row]].name
                value = float(table[row, other])
                yield f"correlation of {one} and {two}", Group.CORRELATION, value


def summaries(
    spec: DataSpec, rows: RowSet, own: Mapping[str, StatisticFunction], decoder: Decoder
) -> Summaries:
    """The statistics of data of a kind: of each column, of pairs of columns, and of one's own.

    Raises:
        ValueError: a column without two observed entries.
    """
    missing = None if rows.observed is None else ~rows.restore_order(rows.observed.cpu())
    x = rows.restore_order(rows.x.cpu()).flatten(1)
    seen = None if missing is None else ~missing.flatten(1)
    if _together(spec):
        whole = spec.is_integer
        both, made = (("all entries", whole), ("row means", False)), _classes(decoder)
        plans = [_Plan(name, None, zeros, whole, made) for name, zeros in both]
        return Summaries(spec, missing, plans, own)
    plans, used = [], _classes_by_column(decoder, x.shape[1])
    for place in range(x.shape[1]):
        column = None if spec.columns is None else spec.columns[place]
        name = f"x{place}" if column is None else column.name
        values = x[:, place] if seen is None else x[seen[:, place], place]
        if len(values) < 2:
            raise invalid(
                f"{len(values)} observed entries of {name}",
                "at least two",
                "pass more rows, or leave the column out",
            )
        coded = column is not None and column.kind in (ColumnKind.CATEGORY, ColumnKind.ORDINAL)
        zeros = not coded and bool((values == 0).any())
        plans.append(_Plan(name, column, zeros, spec.is_integer, used[place]))
    return Summaries(spec, missing, plans, own)


def _classes(decoder: nn.Module) -> Classes:
    """The classes of all modules of a decoder, and their base classes."""
    return frozenset(kind for part in decoder.modules() for kind in type(part).__mro__)


def _classes_by_column(decoder: Decoder, columns: int) -> list[Classes]:
    """The same for the decoder of each column."""
    if not isinstance(decoder, Columns):
        return [_classes(decoder)] * columns
    pairs = zip(decoder.places, decoder.parts, strict=True)
    found = {place: _classes(part) for places, part in pairs for place in places}
    return [found[place] for place in range(columns)]


def _together(spec: DataSpec) -> bool:
    """Whether all entries of a row are one sample: those of images, and of long vectors."""
    return spec.size > _WIDEST or is_image(spec.shape)


def _of_column(plan: _Plan, values: Tensor) -> Iterator[Statistic]:
    """The statistics of the observed entries of a column."""
    column = plan.column
    if column is not None and plan.is_category:
        for code, value in enumerate(column.values or ()):
            share = (values == code).double().mean().item()
            yield f"share of {plan.name}={value}", Group.SHARE, share
        return
    spread, tail = plan.groups
    yield f"mean of {plan.name}", Group.LEVEL, float(values.mean())
    deviation = float(values.std()) if len(values) > 1 else 0.0
    yield f"standard deviation of {plan.name}", spread, deviation
    at = np.quantile(values.numpy(), list(_QUANTILES.values()))
    for name, value in zip(_QUANTILES, at.tolist(), strict=True):
        group = Group.LEVEL if name == "median" else spread
        yield f"{name} of {plan.name}", group, value
    yield f"minimum of {plan.name}", tail, float(values.min())
    yield f"maximum of {plan.name}", tail, float(values.max())
    if plan.zeros:
        zeros = Group.ZEROS if tail is Group.TAIL else tail
        zeros = Group.COUNTED_ZEROS if plan.counted else zeros
        yield f"share of zeros of {plan.name}", zeros, (values == 0).double().mean().item()


def _of_function(name: str, function: StatisticFunction, x: Tensor) -> Iterator[Statistic]:
    """The numbers that a function of the user's returns."""
    values = torch.as_tensor(function(x)).double().flatten()
    if not values.isfinite().all() or len(values) == 0:
        raise invalid(
            f"a statistic {name!r} of {values.tolist()[:3]}",
            "finite numbers",
            "leave missing entries out, which are NaN: torch.nanmean, x[~x.isnan()]",
        )
    for place, value in enumerate(values.tolist()):
        yield name if len(values) == 1 else f"{name} {place}", Group.OWN, value


def correlations(x: Tensor) -> Tensor:
    """Pearson correlations of columns ``(N, D)`` from the rows where both are observed, ``(D, D)``.

    A column that is constant on these rows has the correlation 0.
    """
    seen = (~x.isnan()).double()
    filled = torch.where(seen > 0, x, 0.0)
    mean = filled.sum(0) / seen.sum(0).clamp(min=1)
    # Around the column's own mean first, so that far from zero no digits are lost.
    filled = (filled - mean) * seen
    count = (seen.T @ seen).clamp(min=1)
    sums, squares = filled.T @ seen, filled.square().T @ seen
    cross = filled.T @ filled - sums * sums.T / count
    spread = (squares - sums.square() / count).clamp(min=0)
    scale = (spread * spread.T).sqrt()
    tiny = 1e-12 * (squares * squares.T).sqrt()
    return torch.where(scale > tiny, cross / scale.clamp(min=1e-300), 0.0).clamp(-1, 1)


_LOWER = ("minimum", "5 % quantile")
"""How the names of statistics begin that fall as the spread grows."""


class Group(Enum):
    """The kind of a statistic, with what a misfit in it calls for."""

    LEVEL = "level"
    SPREAD = "spread"
    COUNTED_SPREAD = "spread of counts"
    TAIL = "tail"
    ZEROS = "zeros"
    COUNTED_ZEROS = "zeros of counts"
    SHARE = "share"
    CORRELATION = "correlation"
    OWN = "own"

    def advice(self, name: str, model_too_low: bool, used: Classes = frozenset()) -> str:
        """What to do where the replicates are below the data (or above them).

        Args:
            name: of the statistic. A larger minimum or lower quantile means a smaller spread.
            model_too_low: whether the replicates are below the data.
            used: the classes in the decoder of the column, which are not advised again.
        """
        side = "below" if model_too_low else "above"
        short = model_too_low != name.startswith(_LOWER)
        options = _ADVICE[self][0 if short else 1]
        fresh = [each for each in options if not used & each.tried] or _TRAIN
        return f"the replicates are {side} the data; {', or '.join(each.words for each in fresh)}"


class _Option(NamedTuple):
    """One advice: what to try. A decoder with a module of one of the classes ``tried`` has it already."""

    words: str
    tried: Classes = frozenset()


def _use(before: str, kind: type, *alike: type) -> _Option:
    """The advice to use a class of :mod:`genmod.decoders`; those ``alike`` have what it has."""
    return _Option(f"{before} decoders.{kind.__name__}", frozenset((kind, *alike)))


_LONGER = _Option("train longer")
_TRAIN = (_LONGER, _Option("with more latents"))
_OVERDISPERSED = (
    _use(
        "counts vary more than the model's: use",
        decoders.NegativeBinomialDecoder,
        decoders.ZeroInflatedNegativeBinomialDecoder,
    ),
    _use("for more zeros use", decoders.ZeroInflatedNegativeBinomialDecoder),
)
_PREDICTED = _use("let the decoder predict its scale by", decoders.PredictedScale)
_ADVICE: dict[Group, tuple[tuple[_Option, ...], tuple[_Option, ...]]] = {
    **dict.fromkeys((Group.LEVEL, Group.SHARE, Group.CORRELATION), (_TRAIN, _TRAIN)),
    Group.SPREAD: (
        (_PREDICTED, _Option("use more latents")),
        (_Option("its noise is too wide: train longer"), _PREDICTED),
    ),
    Group.COUNTED_SPREAD: (
        _OVERDISPERSED,
        (_LONGER, _use("use a law with less spread such as", decoders.PoissonDecoder)),
    ),
    Group.TAIL: (
        (_use("use a law with heavier tails, such as", decoders.StudentTDecoder),),
        (_use("use a law with lighter tails, such as", decoders.GaussianDecoder),),
    ),
    Group.ZEROS: ((_Option("describe the column as a count or as integers"),), _TRAIN),
    Group.COUNTED_ZEROS: (_OVERDISPERSED, (_Option("use a law without added zeros"),)),
    Group.OWN: ((_Option("see what this statistic measures"),),) * 2,
}
