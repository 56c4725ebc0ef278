"""scikit-learn's own checks of estimators, all of them, each a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from genmod.sklearn import (
    GenerativeDensity,
    GenerativeImputer,
    GenerativeOutlierDetector,
    LatentTransformer,
)
from genmod.sklearn.base import GenerativeEstimator

SMALL: dict[str, Any] = {"steps": 3, "width": 8}
ESTIMATORS = [
    GenerativeDensity(**SMALL, importance_samples=2),
    GenerativeOutlierDetector(**SMALL, importance_samples=2),
    LatentTransformer(**SMALL),
    GenerativeImputer(**SMALL, importance_samples=2),
]
OTHERS = [
    GenerativeDensity("hvae", **SMALL, importance_samples=2),
    GenerativeDensity("diffusion", **SMALL, timesteps=4),
    GenerativeImputer(**SMALL, importance_samples=2, sample_posterior=True),
]


# The checks also pass values of wrong types on purpose.
@pytest.mark.usefixtures("as_users_run")
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks(estimator: GenerativeEstimator, check: Callable[..., None]) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_run")
@parametrize_with_checks(OTHERS)
def test_scikit_learns_checks_of_other_settings(
    estimator: GenerativeEstimator, check: Callable[..., None]
) -> None:
    check(estimator)
