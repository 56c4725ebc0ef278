"""Gaussians to test with: Hypothesis strategies, Cholesky factors, and the test profile."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

PROFILE = settings(deadline=None, derandomize=True, max_examples=40, database=None)
"""Deterministic: the same examples in each run, on each machine."""

FEW = settings(PROFILE, max_examples=12)
"""For oracles that integrate numerically, which are slow."""

moderate_means = st.floats(-5, 5)
moderate_log_stds = st.floats(-2, 2)
sizes = st.integers(1, 4)
seeds = st.integers(0, 2**31)


def double(*values: float) -> tuple[Tensor, ...]:
    """Numbers as float64 scalars."""
    return tuple(torch.tensor(value, dtype=torch.float64) for value in values)


def generator(seed: int) -> torch.Generator:
    """The source of one test's random numbers."""
    return torch.Generator().manual_seed(seed)


def vector(draw: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def tril_from(free: Tensor) -> Tensor:
    """Any square matrix as a Cholesky factor: exponential on the diagonal, zero above it."""
    return free.tril(-1) + torch.diag_embed(free.diagonal(dim1=-2, dim2=-1).exp())


def factor(draw: torch.Generator, dims: int, *batch: int) -> Tensor:
    """A random Cholesky factor in float64."""
    return tril_from(0.5 * vector(draw, *batch, dims, dims))


def covariance(tril: Tensor) -> Tensor:
    """What a Cholesky factor is the factor of."""
    return tril @ tril.mT


def assert_same(got: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    """Equal up to rounding, relative for large numbers and absolute for small ones."""
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
