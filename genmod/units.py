"""The units of real columns that models compute in: mean 0 and standard deviation 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from genmod.checks import invalid

Numbers: TypeAlias = Sequence[float] | np.ndarray
"""One number a column."""


@dataclass(frozen=True)
class Standardize:
    r"""Standardization of columns: :math:`z_i = (x_i - m_i) / s_i`, and back.

    Densities change by the determinant of the map,

    .. math:: \log p(x) = \log p(z) - \sum_i \log s_i.

    Args:
        mean: :math:`m_i`, one number a column, in the data's own units; none: ``z`` is ``x``.
        std: :math:`s_i`, positive, likewise.

    Raises:
        ValueError: another number of stds than of means; numbers that are not finite, stds that are not
            positive.

    >>> units = Standardize(mean=(170.0, 70.0), std=(10.0, 5.0))
    >>> units(torch.tensor([[180.0, 70.0]]))
    tensor([[1., 0.]])
    >>> round(units.log_det(), 3)  # minus log 10, minus log 5
    -3.912
    """

    mean: Numbers = ()
    std: Numbers = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        finite = all(math.isfinite(m) for m in self.mean)
        if not (
            len(self.mean) == len(self.std) and finite and all(0 < s < math.inf for s in self.std)
        ):
            raise invalid(
                f"mean={_short(self.mean)} and std={_short(self.std)}",
                "a finite mean and a positive std for each column",
                "take them from rows: Standardize.of(x)",
            )

    @classmethod
    def of(
        cls, x: Tensor, observed: Tensor | None = None, names: Sequence[str] | None = None
    ) -> Standardize:
        """The mean and the standard deviation of each column of rows.

        Args:
            x: rows, ``(N, D)``: the training rows alone, so that nothing is learned from the others.
            observed: which entries count, like ``x``; ``None``: all.
            names: of the columns, for messages.

        Raises:
            ValueError: a column without two different values.

        >>> Standardize.of(torch.tensor([[1.0], [3.0]]))
        Standardize(mean=(2.0,), std=(1.0,))
        """
        if x.ndim != 2:
            raise invalid(f"x of shape {tuple(x.shape)}", "rows (N, D)", "flatten the events")
        means, stds = [], []
        for place in range(x.shape[1]):
            column = x[:, place] if observed is None else x[observed[:, place], place]
            column = column.double()
            means.append(float(column.mean()) if len(column) else 0.0)
            stds.append(float(column.std(correction=0)) if len(column) else 0.0)
            # The sum of 0.1 and 0.2 is not 0.3 in floating point, but the same value.
            if not stds[-1] > 1e-12 * abs(means[-1]):
                raise invalid(
                    f"column {place if names is None else repr(names[place])} without two "
                    "different values",
                    "columns that vary in the training rows, because the density of a constant "
                    "has no bound",
                    "leave it out (in scikit-learn: VarianceThreshold)",
                )
        return cls(means, stds)

    @cached_property
    def is_identity(self) -> bool:
        """Whether ``z`` is ``x``."""
        return all(m == 0 for m in self.mean) and all(s == 1 for s in self.std)

    def moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The means and stds as tensors ``(D,)`` of another tensor's type, on its device."""
        return like.new_tensor(self.mean), like.new_tensor(self.std)

    def __call__(self, x: Tensor) -> Tensor:
        """``z`` of rows ``x``, ``(N, D)``."""
        if self.is_identity:
            return x
        mean, std = self.moments(x)
        return (x - mean) / std

    def inverse(self, z: Tensor) -> Tensor:
        """``x`` of rows ``z``, ``(N, D)``."""
        if self.is_identity:
            return z
        mean, std = self.moments(z)
        return mean + std * z

    def log_det(self, observed: Tensor | None = None) -> Tensor | float:
        """The log-determinant of the map from ``x`` to ``z``, minus the sum of ``log std``, in nats.

        Args:
            observed: which entries of each row count, ``(N, D)``; ``None``: all.

        Returns:
            One number for all rows; ``(N,)`` with a mask.
        """
        if self.is_identity:
            return 0.0
        logs = [math.log(std) for std in self.std]
        if observed is None:
            return -sum(logs)
        return -(observed * torch.tensor(logs, device=observed.device)).sum(1)


def _short(numbers: Numbers) -> str:
    """The first of many numbers."""
    return f"{tuple(numbers[:3])}" + (f" and {len(numbers) - 3} more" if len(numbers) > 3 else "")
