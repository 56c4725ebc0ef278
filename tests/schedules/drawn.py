"""Schedules for Hypothesis: every kind, with drawn parameters, from moderate to far ends."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from genmod.schedules import (
    Cosine,
    CosineBeta,
    Laplace,
    LinearBeta,
    LinearLogSNR,
    Logistic,
    LogNormal,
    MonotoneNetwork,
    Polynomial,
    RectifiedFlow,
    ScaledLinearBeta,
    Schedule,
    Shifted,
    Sigmoid,
    SigmoidBeta,
    Table,
    VarianceExploding,
    ZeroTerminalSNR,
)


def _bent(clean: float, noisy: float, features: int, seed: int) -> MonotoneNetwork:
    """A learned schedule away from where it starts."""
    schedule = MonotoneNetwork(clean, noisy, features)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in schedule.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return schedule


_clean, _noisy, _steps = st.floats(3, 20), st.floats(-15, -2), st.integers(2, 1000)
_middle, _spread = st.floats(-3, 3), st.floats(0.5, 3)

TABLES: st.SearchStrategy[Table] = st.one_of(
    st.builds(LinearBeta, _steps, st.floats(1e-5, 1e-3), st.floats(2e-3, 0.03)),
    st.builds(ScaledLinearBeta, _steps, st.floats(1e-5, 1e-3), st.floats(2e-3, 0.03)),
    st.builds(SigmoidBeta, _steps, st.floats(1e-5, 1e-3), st.floats(2e-3, 0.03)),
    st.builds(CosineBeta, _steps, st.floats(0, 0.1)),
)
PRESERVING: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(LinearLogSNR, _clean, _noisy),
    st.builds(Cosine, st.floats(0, 0.2), _clean, _noisy),
    st.builds(Sigmoid, st.floats(-4, -0.5), st.floats(0, 4), st.floats(0.3, 2), _clean, _noisy),
    st.builds(Laplace, _middle, _spread, _clean, _noisy),
    st.builds(Logistic, _middle, _spread, _clean, _noisy),
    st.builds(LogNormal, _middle, _spread, _clean, _noisy),
    st.builds(Polynomial, st.floats(1e-4, 0.3), st.floats(1, 1e3), st.floats(1, 12)),
    st.builds(_bent, _clean, _noisy, st.integers(1, 16), st.integers(0, 99)),
    TABLES,
)
TERMINAL: st.SearchStrategy[Schedule] = st.builds(ZeroTerminalSNR, TABLES)
"""Whose end of -40 not every target can be read at."""
FINITE: st.SearchStrategy[Schedule] = st.one_of(
    PRESERVING,
    st.builds(VarianceExploding, PRESERVING),
    st.builds(RectifiedFlow, PRESERVING),
    st.builds(Shifted, PRESERVING, st.floats(-3, 3)),
)
EVERY: st.SearchStrategy[Schedule] = st.one_of(FINITE, TERMINAL)
