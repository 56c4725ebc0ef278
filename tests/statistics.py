"""Statistical assertions: a z-test in float64, with one false-alarm budget for every test.

A test that compares a mean of samples with a number fixes its seed and calls :func:`assert_mean`;
one that compares two independent sets of samples calls :func:`assert_equal_means`. Were the seed
free, either would fail by chance once in a million runs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_Z = 4.9
"""The two-sided normal quantile at a false-alarm probability of 1e-6 (4.8916), rounded up."""


def assert_mean(samples: Tensor, expected: float | Tensor, *, name: str = "") -> None:
    """Assert that the mean of independent samples lies within 4.9 standard errors of a number.

    Args:
        samples: ``(N, *shape)``, independent along the first dimension, N at least 2.
        expected: the mean under test, a number or ``shape``; each entry is tested.
        name: what is averaged, for the message.
    """
    mean, error = _mean_and_error(samples)
    _assert_close(mean - _like(expected, mean), error, name or "mean", expected)


def assert_equal_means(a: Tensor, b: Tensor, *, name: str = "") -> None:
    """Assert that two independent sets of samples have means within 4.9 standard errors.

    Args:
        a: ``(N, *shape)``, independent along the first dimension, N at least 2.
        b: ``(M, *shape)``, independent of ``a``.
        name: what is averaged, for the message.
    """
    mean_a, error_a = _mean_and_error(a)
    mean_b, error_b = _mean_and_error(b)
    _assert_close(mean_a - mean_b, torch.hypot(error_a, error_b), name or "means", mean_b)


def _mean_and_error(samples: Tensor) -> tuple[Tensor, Tensor]:
    samples = samples.detach().double()
    assert samples.ndim >= 1, "samples need a first dimension to average over"
    assert len(samples) >= 2, "one sample has no standard error"
    assert bool(torch.isfinite(samples).all()), "samples that are not finite have no mean"
    return samples.mean(0), samples.std(0) / math.sqrt(len(samples))


def _like(expected: float | Tensor, mean: Tensor) -> Tensor:
    target = torch.as_tensor(expected, dtype=torch.float64, device=mean.device).detach()
    assert torch.broadcast_shapes(target.shape, mean.shape) == mean.shape, "expected: wrong shape"
    return target


def _assert_close(gap: Tensor, error: Tensor, name: str, expected: float | Tensor) -> None:
    # Samples that do not vary (an exact bound) have no error but their rounding.
    slack = 1e-12 * torch.as_tensor(expected, dtype=torch.float64, device=gap.device).abs()
    z = (gap.abs() - slack).clamp_min(0) / error.clamp_min(torch.finfo(torch.float64).tiny)
    worst = int(z.argmax())
    assert float(z.max()) < MAX_Z, (
        f"{name}: off by {float(gap.flatten()[worst]):.6g}, "
        f"{float(z.max()):.2f} standard errors of {float(error.flatten()[worst]):.3g}"
    )
