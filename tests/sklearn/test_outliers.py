"""Outlier detection: known outliers, the contamination, and real data beside an isolation forest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from genmod.sklearn import GenerativeDensity, GenerativeOutlierDetector
from genmod.sklearn.start import central_rows
from tests.sklearn.cases import FAST, ROOT, gaussian, holes, truth

# Checks of types on every call would take most of the time: each row is a forward pass.
pytestmark = pytest.mark.usefixtures("as_users_run")


def test_rows_that_break_a_correlation_are_outliers() -> None:
    """Each entry is usual by itself; the pair is not."""
    x = gaussian(200)
    odd = x.mean(0) + x.std(0) * np.array([[1.5, -1.5, 0.5], [-1.5, 1.5, 0.0], [1.0, -1.4, -1.0]])
    assert truth(odd).max() < truth(x).min()
    detector = GenerativeOutlierDetector(contamination=0.02, importance_samples=4, **FAST).fit(x)
    assert (detector.predict(odd) == -1).all()
    assert np.mean(detector.predict(gaussian(100, seed=3)) == -1) < 0.06


def test_the_contamination_is_the_share_of_the_training_rows() -> None:
    x = gaussian(40)
    for share in (0.05, 0.5):
        detector = GenerativeOutlierDetector(contamination=share, importance_samples=4, **FAST)
        labels = detector.fit_predict(x)
        assert (labels == -1).sum() == round(40 * share)
        assert (labels == detector.predict(x)).all()
        scores = detector.score_samples(x)
        assert (detector.decision_function(x) == scores - detector.offset_).all()
    assert detector.score_kind_ == "estimate"


def test_outliers_among_the_training_rows_do_not_hide_each_other() -> None:
    """A tenth of the rows lies together, five deviations away: trained on, they would widen the density."""
    x = gaussian(180)
    direction = np.linalg.svd(ROOT)[0][:, -1] * np.linalg.svd(ROOT)[1][-1]
    far = gaussian(20, seed=5) + 5 * direction
    rows, known = np.r_[x, far], np.r_[np.zeros(180), np.ones(20)]
    assert (central_rows(rows, 0.1) < 180).mean() > 0.97
    detector = GenerativeOutlierDetector(contamination=0.1, importance_samples=4, **FAST).fit(rows)
    assert roc_auc_score(known, -detector.score_samples(rows)) > 0.97
    hidden = GenerativeDensity(importance_samples=4, **FAST).fit(rows)
    assert roc_auc_score(known, -hidden.score_samples(rows)) < 0.96


def test_the_central_rows_are_the_same_in_other_units() -> None:
    x = gaussian(60) ** 3
    kept = central_rows(x, 0.25)
    assert len(kept) == 45
    assert (central_rows(x * [1e3, 1.0, 1e-4] + [0.0, 5.0, -1.0], 0.25) == kept).all()


def test_rows_are_not_set_aside_where_a_column_would_be_constant_without_them() -> None:
    x = np.c_[gaussian(20), np.r_[np.zeros(19), 1.0]]
    assert (central_rows(x, 0.1) == np.arange(20)).all()


def test_malignant_tumors_stand_out_from_benign_ones() -> None:
    """Novelty detection on real data; trained on benign rows alone."""
    x, benign = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(np.flatnonzero(benign == 1))
    train, test = order[:250], np.r_[order[250:], np.flatnonzero(benign == 0)]
    detector = GenerativeOutlierDetector(steps=100, importance_samples=8, random_state=0)
    detector.fit(x[train])
    malignant = benign[test] == 0
    area = roc_auc_score(malignant, -detector.decision_function(x[test]))
    forest = IsolationForest(random_state=0).fit(x[train])
    beside = roc_auc_score(malignant, -forest.score_samples(x[test]))
    assert area > 0.93, (area, beside)
    assert area > beside - 0.03, (area, beside)


def test_missing_entries_are_refused_and_can_be_filled_first() -> None:
    x = holes(gaussian(60))
    with pytest.raises(ValueError, match=r"NaN.*GenerativeImputer"):
        GenerativeOutlierDetector(**FAST).fit(x)
    filled = make_pipeline(SimpleImputer(), GenerativeOutlierDetector(**FAST))
    assert set(filled.fit_predict(x)) == {-1, 1}


@pytest.mark.parametrize("contamination", [0, 0.6, -0.1, "auto"])
def test_a_contamination_out_of_range_is_refused(contamination: Any) -> None:
    with pytest.raises(ValueError, match=r"contamination=.*expected a number in \(0, 0.5\]"):
        GenerativeOutlierDetector(contamination=contamination, **FAST).fit(gaussian(20))
