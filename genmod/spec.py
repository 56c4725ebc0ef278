"""What the data are: the shape of one event, and whether its entries are reals, integers or columns.

A :class:`DataSpec` is the one description of data that data sets, encoders, decoders and models share. A
:class:`~genmod.columns.Column` describes one column of a table. :class:`Bins` and
:class:`~genmod.units.Standardize` give the units that models compute in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, SupportsIndex, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from genmod import tensors
from genmod.checks import (
    check_at_least,
    check_integers,
    check_mask,
    check_real,
    check_shape,
    event_shape,
    invalid,
    whole_number,
)
from genmod.columns import Column as Column
from genmod.columns import ColumnKind as ColumnKind
from genmod.columns import as_columns, check_columns, count_features, features
from genmod.tensors import Shape
from genmod.units import Standardize as Standardize


@dataclass(frozen=True, repr=False)
class DataSpec:
    """The shape of one event and the kind of its entries: reals, integers ``0 .. bins - 1``, or columns.

    Args:
        shape: of one event, without the batch axis: ``(1, 28, 28)`` for gray images, ``(d,)`` for vectors.
        bins: how many values an integer entry can take; ``None`` for real data. It decides what a
            likelihood is: a probability mass for integers, a density otherwise.
        columns: of a table: one :class:`~genmod.columns.Column` for each of the ``d`` entries, each of a
            kind of its own. Data are then ``(B, d)`` floating point numbers in their own units.
        missing: whether entries can be missing. Default networks then get the mask as further inputs.

    Raises:
        ValueError: an empty shape, a side below 1, fewer than 2 values, columns of another number or
            with equal names.

    >>> spec = DataSpec((1, 28, 28), bins=256)
    >>> spec.size, spec.is_integer, str(spec)
    (784, True, '(1, 28, 28), integers 0..255')
    >>> print(DataSpec((2,), columns=[Column("age", "count"), Column("height")]))
    (2,), columns: 1 count, 1 real
    """

    shape: Shape
    bins: int | None = None
    columns: Sequence[Column] | None = None
    missing: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", event_shape(self.shape))
        if self.bins is not None:
            object.__setattr__(self, "bins", whole_number(self.bins, "bins"))
            Bins(self.bins)
        if self.columns is not None:
            object.__setattr__(self, "columns", as_columns(self.columns, self.shape, self.bins))

    @classmethod
    def of(cls, data: SpecLike, bins: SupportsIndex | None = None) -> DataSpec:
        """The spec of a data set, a spec, or a shape with ``bins`` beside it.

        Args:
            data: anything with a ``spec`` (a :class:`~genmod.data.Dataset`, a model), a spec, an event
                shape, or the length of a vector.
            bins: how many values integer data take; only beside a shape.

        Raises:
            ValueError: data in place of their spec or shape, or ``bins`` beside a spec.

        >>> DataSpec.of(3)
        DataSpec(shape=(3,), bins=None)
        """
        if isinstance(data, HasSpec):
            data = data.spec
        if isinstance(data, DataSpec):
            if bins is not None and bins != data.bins:
                raise invalid(
                    f"bins={bins} beside data of {data}",
                    "bins only beside a shape, because a data set or a spec has its own",
                    "leave bins out",
                )
            return data
        return cls(event_shape(data), None if bins is None else whole_number(bins, "bins"))

    @property
    def size(self) -> int:
        """The number of entries of one event."""
        return tensors.size(self.shape)

    @property
    def is_integer(self) -> bool:
        """Whether entries are integers, so that a likelihood is a probability mass."""
        return self.bins is not None

    @property
    def is_discrete(self) -> bool:
        """Whether every entry has a probability mass: integers, or columns without a real one."""
        if self.columns is None:
            return self.is_integer
        return not any(column.is_real for column in self.columns)

    @property
    def is_mixed(self) -> bool:
        """Whether it has columns of another kind than real."""
        return self.columns is not None and not all(column.is_real for column in self.columns)

    @property
    def width(self) -> float:
        """The distance of neighboring values on [-1, 1]; integer data only."""
        return self._bins.width

    def center(self, x: Tensor) -> Tensor:
        """The data as real numbers: integers on [-1, 1] (:meth:`Bins.center`), reals as they are."""
        return x if self.bins is None else self._bins.center(x)

    def edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of each integer's interval on [-1, 1]; see :meth:`Bins.edges`."""
        return self._bins.edges(x)

    def cast(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """A batch in the type to compute in: integers as ``torch.int64``, floating point as ``dtype``.

        Narrow integers are widened because their arithmetic wraps: ``2 * 200`` is 144 in one byte.
        Check the batch before: rounding to ``dtype`` may turn a fraction into a whole number.
        """
        return x.to(dtype if x.is_floating_point() else torch.int64)

    def check(self, x: Tensor, observed: Tensor | None = None, name: str = "x") -> None:
        """Require ``x`` to be a batch ``(B, *shape)`` of such data.

        Args:
            x: the batch, in any type.
            observed: which entries count, of the shape of ``x``; the others may hold anything.
            name: what messages call it.

        Raises:
            ValueError: no rows, a wrong shape, values that are not finite; for integers also fractions
                and values outside ``0 .. bins - 1``.
        """
        check_shape(x, self.shape, name)
        if len(x) == 0:
            raise invalid(
                f"{name} of shape {tuple(x.shape)}, without a row",
                "at least one row",
                "leave empty batches out",
            )
        if observed is not None:
            check_mask(observed, x)
        if self.columns is not None:
            check_columns(x, self.columns, observed, name)
            return
        if self.bins is not None:
            check_integers(x, self.bins, observed, name)
            return
        if not x.is_floating_point():
            raise invalid(
                f"{name} of type {x.dtype}",
                "real numbers, because the data are described without bins",
                f"pass bins=... for integer data, or {name}.float() for measurements on a scale",
            )
        check_real(x, observed, name)

    @cached_property
    def standardize(self) -> Standardize:
        """From the data's own units to those that a model computes in: real columns of mean 0 and std 1.

        Columns that are not real have mean 0 and std 1 there: their values are never rescaled. Without
        columns it changes nothing.
        """
        pairs = [(c.mean, c.std) if c.is_real else (0.0, 1.0) for c in self.columns or ()]
        return Standardize([mean for mean, _ in pairs], [std for _, std in pairs])

    @property
    def feature_shape(self) -> Shape:
        """The shape of :meth:`features`: what a network that reads the data takes."""
        shape = self.shape if self.columns is None else (count_features(self.columns),)
        if not self.missing:
            return shape
        added = self.shape[0] if self.columns is None else self.size
        return (shape[0] + added, *shape[1:])

    def features(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """What networks get of the data: real numbers of spread near one, and the mask.

        Integers lie on [-1, 1]; columns give :func:`genmod.columns.features`. Where entries can be
        missing, the mask follows as further channels (1: observed), and missing entries give 0.

        Args:
            x: a batch, floating point; real columns are standardized.
            observed: which entries were observed, like ``x``; ``None``: all.
        """
        if self.columns is not None:
            found = features(x, self.columns, observed)
        else:
            found = self.center(x)
            if self.missing and observed is not None:
                found = torch.where(observed, found, 0.0)
        if not self.missing:
            return found
        mask = torch.ones_like(x) if observed is None else observed.to(x.dtype)
        return torch.cat([found, mask.to(found.dtype)], 1)

    @cached_property
    def _bins(self) -> Bins:
        if self.bins is None:
            raise invalid(
                f"real data, {self}",
                "integer data, because only their values have intervals",
                "pass bins=... with the number of values",
            )
        return Bins(self.bins)

    def __repr__(self) -> str:
        columns = "" if self.columns is None else f", columns={self.columns!r}"
        missing = ", missing=True" if self.missing else ""
        return f"DataSpec(shape={self.shape}, bins={self.bins}{columns}{missing})"

    def __str__(self) -> str:
        kind = "real numbers" if self.bins is None else f"integers 0..{self.bins - 1}"
        if self.columns is not None:
            kinds = Counter(str(column.kind) for column in self.columns)
            kind = "columns: " + ", ".join(f"{count} {name}" for name, count in kinds.items())
        return f"{self.shape}, {kind}{', some missing' if self.missing else ''}"


@dataclass(frozen=True)
class Bins:
    """The integers ``0 .. count - 1`` as evenly spaced centers on [-1, 1].

    Value ``k`` has the center ``2 k / (count - 1) - 1``, and owns the interval of :attr:`width` around it.
    The first and the last interval are infinite, so that the masses of any density sum to one.

    >>> Bins(17).center(torch.tensor([0, 8, 16]))
    tensor([-1.,  0.,  1.])
    """

    count: int

    def __post_init__(self) -> None:
        advice = "pass the number of distinct integers: 17 for the digits, 256 for 8-bit images"
        check_at_least(self.count, 2, "bins", advice)

    @cached_property
    def width(self) -> float:
        """The distance between neighboring centers."""
        return 2.0 / (self.count - 1)

    def center(self, x: Tensor) -> Tensor:
        """The center of each integer; floating point tensors keep their type."""
        real = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        return (real * self.width).sub_(1.0)

    def value(self, real: Tensor) -> Tensor:
        """The integer whose interval holds each real number: the inverse of :meth:`center`."""
        return ((real + 1.0) / self.width).round().clamp(0, self.count - 1).long()

    def edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and upper end of each integer's interval; infinite for the first and the last."""
        real = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        # In half-widths centers are whole numbers, so neighbors share their edge to the last bit:
        # else a scale of 1e-5 in float32 loses or doubles 1e-3 of the mass between them.
        halves = 2 * real - (self.count - 1)
        lower = torch.where(x <= 0, -torch.inf, (halves - 1) * (self.width / 2))
        upper = torch.where(x >= self.count - 1, torch.inf, (halves + 1) * (self.width / 2))
        return lower, upper


@runtime_checkable
class HasSpec(Protocol):
    """An object with a spec: a data set, a model."""

    @property
    def spec(self) -> DataSpec:
        """What the data are."""
        ...


SpecLike: TypeAlias = HasSpec | DataSpec | Sequence[int] | SupportsIndex
