"""Codes for other estimators, and imputation beside closed conditionals and real data."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from genmod.models import Diffusion
from genmod.sklearn import GenerativeImputer, LatentTransformer
from genmod.sklearn.start import covariance
from tests.sklearn.cases import FAST, MEAN, ROOT, Table, gaussian, holes

COV = ROOT @ ROOT.T

# Checks of types on every call would take most of the time: each row is a forward pass.
pytestmark = pytest.mark.usefixtures("as_users_run")


def conditional(x: Table, missing: int) -> tuple[Table, float]:
    """The mean and the standard deviation of one column of :func:`gaussian` given the others."""
    others = [place for place in range(3) if place != missing]
    weight = np.linalg.solve(COV[np.ix_(others, others)], COV[others, missing])
    mean = MEAN[missing] + (x[:, others] - MEAN[others]) @ weight
    return mean, float(np.sqrt(COV[missing, missing] - weight @ COV[others, missing]))


# ------------------------------------------------------------------ codes


@pytest.mark.parametrize("model", ["vae", "hvae", "diffusion"])
def test_codes_lead_back_to_their_rows(model: str) -> None:
    x = gaussian(30)
    codes = LatentTransformer(model, **FAST).fit(x)
    z = codes.transform(x)
    assert z.shape == (30, {"vae": 2, "hvae": 2, "diffusion": 3}[model])
    assert len(codes.get_feature_names_out()) == z.shape[1]
    assert codes.inverse_transform(z).shape == x.shape
    np.testing.assert_allclose(codes.transform(x[::-1])[::-1], z, atol=1e-9)
    with pytest.raises(ValueError, match="codes of 1 numbers"):
        codes.inverse_transform(z[:, :1])


def test_codes_of_a_vae_are_near_principal_components() -> None:
    """Gaussian data: the best linear codes are the best codes, and training starts from them."""
    x = StandardScaler().fit_transform(gaussian(300))
    codes = LatentTransformer(latents=2, **FAST).fit(x)
    error = np.square(codes.inverse_transform(codes.transform(x)) - x).mean()
    pca = PCA(2).fit(x)
    best = np.square(pca.inverse_transform(pca.transform(x)) - x).mean()
    assert error < best + 0.05


def test_codes_work_in_a_pipeline() -> None:
    x, y = load_wine(return_X_y=True)
    x[::7, 3] = np.nan
    codes = LatentTransformer(latents=4, steps=60, width=16, random_state=0)
    pipeline = make_pipeline(codes, StandardScaler(), LogisticRegression()).fit(x[::2], y[::2])
    assert pipeline.score(x[1::2], y[1::2]) > 0.9
    assert pipeline[:-1].get_feature_names_out()[0] == "latenttransformer0"


# ------------------------------------------------------------------ imputation


def test_the_covariance_of_rows_with_holes_is_that_of_whole_rows() -> None:
    """EM adds the conditional covariances: filled in by means alone, variances are too small."""
    z = gaussian(2000)
    z = (z - z.mean(0)) / z.std(0)
    assert np.abs(covariance(holes(z, 0.4)) - z.T @ z / len(z)).max() < 0.06


def test_imputed_means_and_draws_are_the_closed_conditionals() -> None:
    x = gaussian(1500)
    imputer = GenerativeImputer(steps=300, width=16, random_state=0).fit(holes(x))
    fresh = gaussian(40, seed=1)
    for missing in (1, 2):
        given = fresh.copy()
        given[:, missing] = np.nan
        mean, std = conditional(fresh, missing)
        error = (imputer.transform(given)[:, missing] - mean) / std
        assert abs(error.mean()) < 0.2
        assert np.sqrt(np.square(error).mean()) < 0.5
        draws = (imputer.impute(given, n=25)[:, :, missing] - mean) / std
        assert 0.8 < draws.std() < 1.2


def test_imputation_of_wine_beats_the_mean() -> None:
    x, _ = load_wine(return_X_y=True)
    missing = np.random.default_rng(0).random(x.shape) < 0.2
    given = np.where(missing, np.nan, x)
    imputer = GenerativeImputer(steps=100, importance_samples=16, random_state=0)
    filled, plain = imputer.fit_transform(given), SimpleImputer().fit_transform(given)
    assert (filled[~missing] == x[~missing]).all()
    error, beside = (
        np.sqrt(np.square((each - x) / x.std(0))[missing].mean()) for each in (filled, plain)
    )
    assert error < 0.8 * beside, (error, beside)


def test_a_fill_depends_on_its_own_row_alone_and_draws_of_equal_rows_differ() -> None:
    x = holes(gaussian(25))
    imputer = GenerativeImputer(importance_samples=8, **FAST).fit(x)
    filled = imputer.transform(x)
    assert (imputer.transform(x[::-1])[::-1] == filled).all()
    assert (np.concatenate([imputer.transform(x[:7]), imputer.transform(x[7:])]) == filled).all()
    row = np.array([[5.0, np.nan, 0.02]])
    twice = np.concatenate([row, row])
    assert (imputer.transform(twice)[0] == imputer.transform(twice)[1]).all()
    draws = imputer.impute(twice, n=3)[:, :, 1]
    assert len(np.unique(draws)) == 6
    assert (imputer.impute(twice, n=3)[:, :, 1] == draws).all()
    assert (imputer.impute(twice, n=3, random_state=1)[:, :, 1] != draws).all()


def test_one_draw_in_place_of_the_mean() -> None:
    x = holes(gaussian(25))
    mean = GenerativeImputer(importance_samples=8, **FAST).fit(x)
    draw = GenerativeImputer(importance_samples=8, sample_posterior=True, **FAST).fit(x)
    assert (draw.transform(x) == draw.impute(x, n=1)[0]).all()
    missing = np.isnan(x)
    assert (draw.transform(x)[missing] != mean.transform(x)[missing]).all()


def test_complete_training_rows_and_rows_without_an_entry_will_do() -> None:
    x = gaussian(200)
    imputer = GenerativeImputer(importance_samples=256, **FAST).fit(x)
    empty = imputer.transform([[np.nan] * 3])[0]
    assert (np.abs(empty - x.mean(0)) < 0.5 * x.std(0)).all()
    assert imputer.get_feature_names_out().tolist() == ["x0", "x1", "x2"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "diffusion"}, "model='diffusion' for a GenerativeImputer; .*use model='vae'"),
        ({"model": lambda spec: Diffusion(spec, width=8)}, "Diffusion"),
        ({"importance_samples": 0}, "importance_samples=0"),
    ],
)
def test_what_cannot_impute_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerativeImputer(**{**FAST, **settings}).fit(gaussian(20))
