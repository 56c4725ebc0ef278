"""Statistics of a table for predictive checks: moments, quantiles, zeros, shares and correlations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from genmod.checks import invalid
from genmod.columns import Column, ColumnKind
from genmod.decoders import Columns, Decoder
from genmod.evaluation.batching import RowSet
from genmod.evaluation.misfits import Classes, Group
from genmod.shapes import is_image
from genmod.spec import DataSpec

StatisticFunction: TypeAlias = Callable[[Tensor], Tensor | float]
"""From rows ``(N, *event)``, NaN where an entry is missing, to a number or a vector of numbers."""

_WIDEST = 64
"""Columns that are checked one by one, at most; of more, all entries together."""
_QUANTILES = {"5 % quantile": 0.05, "median": 0.5, "95 % quantile": 0.95}


@dataclass
class _Collected:
    """Statistics in the order in which they were computed."""

    names: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    used: list[Classes] = field(default_factory=list)
    column: Classes = frozenset()  # those of the column whose statistics are being added

    def add(self, name: str, group: Group, value: float) -> None:
        self.names.append(name)
        self.groups.append(group)
        self.values.append(value)
        self.used.append(self.column)


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
        found = _Collected()
        flat = x.flatten(1)
        wide = _together(self.spec)
        every = [flat.flatten(), flat.nanmean(1)] if wide else list(flat.T)
        for plan, values in zip(self.plans, every, strict=True):
            found.column = plan.used
            _of_column(found, plan, values[~values.isnan()])
        found.column = frozenset()
        if not wide:
            self._correlations(found, flat)
        for name, function in self.own.items():
            _of_function(found, name, function, x)
        names = tuple(found.names)
        if self.names and names != self.names:
            raise invalid(
                "statistics whose number changes from one data set to another",
                "a number, or a vector of one length",
                "return one number for each column, whatever the rows are",
            )
        self.names, self.groups, self.used = names, tuple(found.groups), tuple(found.used)
        return torch.tensor(found.values, dtype=torch.float64)

    def _correlations(self, found: _Collected, x: Tensor) -> None:
        places = [place for place, plan in enumerate(self.plans) if not plan.is_category]
        table = correlations(x[:, places])
        for row in range(len(places)):
            for other in range(row):
                one, two = self.plans[places[other]].name, self.plans[places[row]].name
                value = float(table[row, other])
                found.add(f"correlation of {one} and {two}", Group.CORRELATION, value)


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


def _of_column(found: _Collected, plan: _Plan, values: Tensor) -> None:
    """The statistics of the observed entries of a column."""
    column = plan.column
    if column is not None and plan.is_category:
        for code, value in enumerate(column.values or ()):
            share = float((values == code).double().mean())
            found.add(f"share of {plan.name}={value}", Group.SHARE, share)
        return
    spread, tail = plan.groups
    found.add(f"mean of {plan.name}", Group.LEVEL, float(values.mean()))
    deviation = float(values.std()) if len(values) > 1 else 0.0
    found.add(f"standard deviation of {plan.name}", spread, deviation)
    at = np.quantile(values.numpy(), list(_QUANTILES.values()))
    for name, value in zip(_QUANTILES, at.tolist(), strict=True):
        group = Group.LEVEL if name == "median" else spread
        found.add(f"{name} of {plan.name}", group, value)
    found.add(f"minimum of {plan.name}", tail, float(values.min()))
    found.add(f"maximum of {plan.name}", tail, float(values.max()))
    if plan.zeros:
        zeros = Group.ZEROS if tail is Group.TAIL else tail
        zeros = Group.COUNTED_ZEROS if plan.counted else zeros
        share = float((values == 0).double().mean())
        found.add(f"share of zeros of {plan.name}", zeros, share)


def _of_function(found: _Collected, name: str, function: StatisticFunction, x: Tensor) -> None:
    """The numbers that a function of the user's returns."""
    values = torch.as_tensor(function(x)).double().flatten()
    if not values.isfinite().all() or len(values) == 0:
        raise invalid(
            f"a statistic {name!r} of {values.tolist()[:3]}",
            "finite numbers",
            "leave missing entries out, which are NaN: torch.nanmean, x[~x.isnan()]",
        )
    for place, value in enumerate(values.tolist()):
        found.add(name if len(values) == 1 else f"{name} {place}", Group.OWN, value)


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
