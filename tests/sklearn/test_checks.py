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
"""Many passes over 300 rows: what they ask of shares and labels, test_outliers.py asks of fewer."""
SHARED = {
    "check_classifier_data_not_an_array",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_pickle",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
}
"""The longest checks of what the detector of outliers has from the density, on which they are not slow."""


def checks(estimators: list[GenerativeEstimator], long: bool = False) -> pytest.MarkDecorator:
    """Each estimator with each of its checks that is long, or is not."""
    found = []
    for estimator in estimators:
        for _, check in estimator_checks_generator(estimator, mark="skip"):
            detector = isinstance(estimator, GenerativeOutlierDetector)
            if long == (check.func.__name__ in (LONG | SHARED if detector else LONG)):
                settings = "".join(f", {name}={value}" for name, value in check.keywords.items())
                name = f"{estimator}-{check.func.__name__}{settings}"
                found.append(pytest.param(estimator, check, id=name))
    return pytest.mark.parametrize(("estimator", "check"), found)


# The checks also pass values of wrong types on purpose.
@pytest.mark.usefixtures("as_users_run")
@checks(ESTIMATORS)
def test_scikit_learns_checks(estimator: GenerativeEstimator, check: Callable[..., None]) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_run")
@checks(ESTIMATORS, long=True)
def test_scikit_learns_long_checks(
    estimator: GenerativeEstimator, check: Callable[..., None]
) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_run")
@checks(OTHERS)
def test_scikit_learns_checks_of_other_settings(
    estimator: GenerativeEstimator, check: Callable[..., None]
) -> None:
    check(estimator)
