"""Tables with known laws, and models of every kind, for the tests of the estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

Table = NDArray[Any]
FAST: dict[str, Any] = {"steps": 30, "width": 16, "random_state": 0}
"""Settings where the quality of a model does not matter."""
MEAN = np.array([5.0, -100.0, 0.02])
ROOT = np.array([[2.0, 0.0, 0.0], [15.0, 8.0, 0.0], [0.004, -0.003, 0.002]])


def gaussian(rows: int, seed: int = 0) -> Table:
    """Correlated rows of three columns in units far apart."""
    return MEAN + np.random.default_rng(seed).normal(size=(rows, 3)) @ ROOT.T


def truth(x: Table) -> Table:
    """The log-density of :func:`gaussian`, nats."""
    nats: Table = multivariate_normal(MEAN, ROOT @ ROOT.T).logpdf(x)
    return nats


def holes(x: Table, share: float = 0.2, seed: int = 1) -> Table:
    """The rows with entries missing completely at random; each keeps its first entry."""
    missing = np.random.default_rng(seed).random(x.shape) < share
    missing[:, 0] = False
    return np.where(missing, np.nan, x)
