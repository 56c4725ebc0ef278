"""What the data are: the shape of one event, and whether its entries are reals or integers.

A :class:`DataSpec` is the one description of data that data sets, encoders, decoders and models share.
:class:`Bins` places integers on the real line.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, SupportsIndex, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from genmod import shapes
from genmod.checks import check_integers, check_mask, check_real, check_shape, require
from genmod.shapes import Shape


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
        require(
            self.count >= 2,
            f"bins={self.count}",
            "at least 2 values",
            "pass the number of distinct integers the data can hold (17 for the digits, 256 for "
            "8-bit images)",
        )

    @property
    def width(self) -> float:
        """The distance between neighboring centers."""
        return 2.0 / (self.count - 1)

    def center(self, x: Tensor) -> Tensor:
        """The center of each integer; floating point tensors keep their type."""
        real = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        return real * self.width - 1.0

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


@dataclass(frozen=True)
class DataSpec:
    """The shape of one event and the kind of its entries: reals, or integers ``0 .. bins - 1``.

    Args:
        shape: of one event, without the batch axis: ``(1, 28, 28)`` for gray images, ``(d,)`` for vectors.
        bins: how many values an integer entry can take; ``None`` for real data. It decides what a
            likelihood is: a probability mass for integers, a density otherwise.

    Raises:
        ValueError: an empty shape, a side below 1, fewer than 2 values.

    >>> spec = DataSpec((1, 28, 28), bins=256)
    >>> spec.size, spec.is_integer, str(spec)
    (784, True, '(1, 28, 28), integers 0..255')
    """

    shape: Shape
    bins: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _as_shape(self.shape))
        if self.bins is not None:
            object.__setattr__(self, "bins", _as_index(self.bins, "bins"))
            Bins(self.bins)

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
            require(
                bins is None or bins == data.bins,
                f"bins={bins} beside data of {data}",
                "bins only beside a shape, because a data set or a spec has its own",
                "leave bins out",
            )
            return data
        return cls(_as_shape(data), None if bins is None else _as_index(bins, "bins"))

    @property
    def size(self) -> int:
        """The number of entries of one event."""
        return shapes.size(self.shape)

    @property
    def is_integer(self) -> bool:
        """Whether entries are integers, so that a likelihood is a probability mass."""
        return self.bins is not None

    @property
    def width(self) -> float:
        """The distance of neighboring values on [-1, 1]; integer data only."""
        return self._bins().width

    def center(self, x: Tensor) -> Tensor:
        """The data as real numbers: integers on [-1, 1] (:meth:`Bins.center`), reals as they are."""
        return x if self.bins is None else Bins(self.bins).center(x)

    def edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of each integer's interval on [-1, 1]; see :meth:`Bins.edges`."""
        return self._bins().edges(x)

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
        require(
            len(x) >= 1,
            f"{name} of shape {tuple(x.shape)}, without a row",
            "at least one row",
            "leave empty batches out",
        )
        if observed is not None:
            check_mask(observed, x)
        if self.bins is not None:
            check_integers(x, self.bins, observed, name)
            return
        require(
            x.is_floating_point(),
            f"{name} of type {x.dtype}",
            "real numbers, because the data are described without bins",
            f"pass bins=... for integer data, or {name}.float() for measurements on a scale",
        )
        check_real(x, observed, name)

    def _bins(self) -> Bins:
        require(
            self.bins is not None,
            f"real data, {self}",
            "integer data, because only their values have intervals",
            "pass bins=... with the number of values",
        )
        return Bins(self.bins or 0)

    def __str__(self) -> str:
        kind = "real numbers" if self.bins is None else f"integers 0..{self.bins - 1}"
        return f"{self.shape}, {kind}"


@runtime_checkable
class HasSpec(Protocol):
    """An object with a spec: a data set, a model."""

    @property
    def spec(self) -> DataSpec:
        """What the data are."""
        ...


SpecLike: TypeAlias = HasSpec | DataSpec | Sequence[int] | SupportsIndex


def _as_index(value: object, name: str) -> int:
    """A whole number of any library as Python's own."""
    if isinstance(value, SupportsIndex):
        return operator.index(value)
    raise ValueError(f"got {name}={value!r}; expected a whole number; convert it with int()")


def _as_shape(shape: object) -> Shape:
    """A shape as a tuple; one number is the length of a vector."""
    if isinstance(shape, int | np.integer) and not isinstance(shape, bool):
        shape = (shape,)
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes):
        what = repr(shape) if isinstance(shape, str | type) else f"a {type(shape).__name__}"
        raise ValueError(
            f"got {what} for the shape of the data; expected a data set, a DataSpec, a shape such as "
            "(1, 28, 28), or the length of a vector; pass genmod.data.load(x) for data, or "
            "tuple(x.shape[1:]) for their shape alone"
        )
    found = tuple(_as_index(side, "side") for side in shape)
    require(
        len(found) > 0 and all(side >= 1 for side in found),
        f"shape={shape}",
        "an event shape of positive sides",
        "leave the batch axis out: (1, 28, 28) for gray images, (d,) for vectors",
    )
    return found
