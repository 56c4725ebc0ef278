"""scikit-learn's own checks of its estimators, each a test; those of hundreds of rows are slow tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

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
LONG = {"check_outliers_fit_predict", "check_outliers_train"}
"""Several passes over 300 rows; the second one stays in the default suite on memory that is read-only."""


def checks(estimators: list[GenerativeEstimator], slow: bool) -> list[Any]:
    """Each estimator with each of its checks that is slow, or is not."""
    found = []
    for estimator in estimators:
        for _, check in estimator_checks_generator(estimator, mark="skip"):
            settings = ",".join(f"{name}={value}" for name, value in check.keywords.items())
            name = f"{check.func.__name__}[{settings}]" if settings else check.func.__name__
            if slow == (name in LONG):
                found.append(pytest.param(estimator, check, id=f"{estimator}-{name}"))
    return found


# The checks also pass values of wrong types on purpose.
@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(("estimator", "check"), checks(ESTIMATORS, slow=False))
def test_scikit_learns_checks(estimator: GenerativeEstimator, check: Callable[..., None]) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [*checks(ESTIMATORS, slow=True), *checks(OTHERS, slow=False)],
)
def test_scikit_learns_checks_of_many_rows_and_of_other_settings(
    estimator: GenerativeEstimator, check: Callable[..., None]
) -> None:
    check(estimator)
