"""Features of vectors and tables in units of the data: their means under a law, and their spreads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.columns import CODED, ColumnKind
from genmod.distributions.base import elementwise
from genmod.evaluation.batching import RowSet
from genmod.spec import DataSpec


@dataclass(frozen=True, eq=False)
class Features:
    """One number for each column, and one for each value of a category: whether it has that value.

    Args:
        spec: the data.
        names: of the features.
        std: the standard deviation of each over the data, ``(F,)``; one where it is constant.
    """

    spec: DataSpec
    names: tuple[str, ...]
    std: Tensor

    @classmethod
    def of(cls, spec: DataSpec, rows: RowSet) -> Features:
        """The features of some data, and their spreads; missing entries are left out."""
        x = rows.x.flatten(1).double().cpu()
        seen = torch.ones_like(x)
        if rows.observed is not None:
            seen = rows.observed.flatten(1).double().cpu()
            x = torch.where(seen > 0, x, 0.0)
        seen = torch.cat([seen[:, [place]] for place, _, _ in _slots(spec)], 1)
        values = torch.cat(
            [
                x[:, [place]] if code is None else (x[:, [place]] == code).double()
                for place, code, _ in _slots(spec)
            ],
            1,
        )
        count = seen.sum(0).clamp(min=1)
        mean = (values * seen).sum(0) / count
        std = (((values - mean) * seen).square().sum(0) / count).sqrt()
        return cls(spec, names_of(spec), torch.where(std > 0, std, 1.0))

    def means(self, law: Distribution) -> Tensor:
        """The mean of each feature under a law of data, ``(B, F)``, in float64.

        Of a category it is the probability of a value; of an ordinal, the mean code.
        """
        mean = law.mean.double().cpu()
        flat = mean.flatten(1)
        masses = {
            place: code_masses(law, self.spec, place)
            for place, column in enumerate(self.spec.columns or ())
            if column.kind in CODED
        }
        found = []
        for place, code, _ in _slots(self.spec):
            if place not in masses:
                found.append(flat[:, place])
            elif code is not None:
                found.append(masses[place][:, code])
            else:
                codes = torch.arange(masses[place].shape[1], dtype=torch.float64)
                found.append(masses[place] @ codes)
        return torch.stack(found, 1)


def names_of(spec: DataSpec) -> tuple[str, ...]:
    """The names of the features: of columns, of values of categories, or numbers of entries."""
    return tuple(name for _, _, name in _slots(spec))


def code_masses(law: Distribution, spec: DataSpec, place: int) -> Tensor:
    """The probability of each value of a category or ordinal, ``(B, n)``, in float64."""
    columns = spec.columns or ()
    x = law.mean.clone()
    for other, column in enumerate(columns):
        if column.kind in CODED:
            x[:, other] = 0
    nats = []
    for code in range(columns[place].count):
        x[:, place] = code
        nats.append(elementwise(law, x)[:, place].double().cpu())
    return torch.stack(nats, 1).exp()


def _slots(spec: DataSpec) -> list[tuple[int, int | None, str]]:
    """Place, code and name of each feature; the code is ``None`` but for categories."""
    if spec.columns is None:
        return [(place, None, f"x{place}") for place in range(spec.size)]
    found: list[tuple[int, int | None, str]] = []
    for place, column in enumerate(spec.columns):
        if column.kind is not ColumnKind.CATEGORY:
            found.append((place, None, column.name))
            continue
        values = column.values or ()
        found += [(place, code, f"{column.name}={value}") for code, value in enumerate(values)]
    return found
