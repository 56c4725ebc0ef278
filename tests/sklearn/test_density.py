"""Densities, their samples and standard errors; scores that depend on their own row alone."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy.stats import multivariate_normal
from sklearn.feature_selection import VarianceThreshold
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import genmod
from genmod.checks import trusted
from genmod.models import VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.sklearn import GenerativeDensity
from genmod.sklearn.rows import distinct
from genmod.sklearn.start import covariance, principal_vae
from genmod.spec import Column, DataSpec
from tests.sklearn.cases import FAST, gaussian, holes, truth

# Checks of types on every call would take most of the time: each row is a forward pass.
pytestmark = pytest.mark.usefixtures("as_users_run")


def test_scores_approach_the_true_log_density() -> None:
    """Also where columns have units far apart: they are standardized inside."""
    x, fresh = gaussian(1000), gaussian(60, seed=1)
    density = GenerativeDensity(steps=100, width=16, random_state=0).fit(x)
    difference = density.score_samples(fresh) - truth(fresh)
    # The Gaussian of maximum likelihood from 1000 rows is worse than the truth by 9 / 2000 nats.
    assert abs(difference.mean()) < 0.03
    assert np.abs(difference).mean() < 0.1


def test_an_untrained_vae_has_the_density_of_probabilistic_pca() -> None:
    """The bound is the closed form on every row: the posterior is the exact one."""
    z = np.random.default_rng(0).normal(size=(200, 5)) @ np.random.default_rng(1).normal(
        size=(5, 5)
    )
    mean, std = z.mean(0), z.std(0)
    spec = DataSpec((5,), columns=[Column(f"x{i}", mean=mean[i], std=std[i]) for i in range(5)])
    for latents in (2, 4):
        model = principal_vae(spec, (z - mean) / std, latents, width=8, depth=1).double()
        values, vectors = np.linalg.eigh(covariance((z - mean) / std))
        values[: 5 - latents] = values[: 5 - latents].mean()
        cov = std[:, None] * (vectors * values) @ vectors.T * std
        expected = multivariate_normal(mean, cov).logpdf(z)
        with torch.no_grad():
            found = model.log_weight(torch.tensor(z)).numpy()
        # Of one draw: the posterior is exact, so that every draw gives log p(x). Weights are in float32.
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("model", ["vae", "hvae", "diffusion"])
def test_a_score_depends_on_its_own_row_alone(model: str) -> None:
    """Not by a bit on the order, the number and the neighbors of the rows; equal rows score alike."""
    x = gaussian(16)
    x = np.concatenate([x, x[:5]])
    if model != "diffusion":
        x = holes(x)
    density = GenerativeDensity(model, **FAST).fit(x)
    scores = density.score_samples(x)
    assert scores.dtype == np.float64
    order = np.random.default_rng(2).permutation(len(x))
    assert (density.score_samples(x[order]) == scores[order]).all()
    assert (density.score_samples(np.repeat(x, 2, 0)) == np.repeat(scores, 2)).all()
    pieces = [density.score_samples(piece) for piece in np.array_split(x, 7)]
    assert (np.concatenate(pieces) == scores).all()
    assert (density.score_samples(pd.DataFrame(x[::-1].copy()).to_numpy()) == scores[::-1]).all()
    assert len(np.unique(scores)) == len(distinct(x)[0])


def test_minus_zero_is_zero() -> None:
    x = gaussian(40)
    density = GenerativeDensity(**FAST).fit(x)
    zero = density.score_samples([[0.0, -100.0, 0.0]])
    assert (density.score_samples([[-0.0, -100.0, -0.0]]) == zero).all()


def test_a_seed_repeats_the_estimator_and_leaves_global_noise_alone() -> None:
    x = gaussian(40)
    state, before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
    first, second = (GenerativeDensity(**FAST).fit(x).score_samples(x) for _ in range(2))
    assert (first == second).all()
    other = GenerativeDensity(**{**FAST, "random_state": 1}).fit(x).score_samples(x)
    assert (first != other).any()
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state(legacy=False)["state"]["key"] == before).all()


def test_equal_rows_count_once_in_the_standard_error() -> None:
    """A table that is repeated says as much as once; without equal rows the error is the usual one."""
    x = gaussian(30)
    density = GenerativeDensity(**FAST).fit(x)
    scores, once = density.score_samples(x), density.score_estimate(x)
    assert once.mean == pytest.approx(density.score(x))
    assert once.error == pytest.approx(scores.std(ddof=1) / np.sqrt(30))
    many = density.score_estimate(np.repeat(x, 4, 0))
    assert (many.mean, many.error) == pytest.approx((once.mean, once.error))
    assert np.isnan(density.score_estimate(np.repeat(x[:1], 9, 0)).error)


def test_other_units_shift_scores_by_the_log_determinant() -> None:
    """By a power of two nothing is rounded: the training is the same, and only the noise another."""
    x = gaussian(60)
    scores = GenerativeDensity(**FAST).fit(x).score_samples(x)
    scaled = GenerativeDensity(**FAST).fit(8 * x).score_samples(8 * x)
    assert np.abs(scaled + 3 * np.log(8) - scores).mean() < 0.1


def test_missing_entries_are_left_out() -> None:
    """The score of a row with holes is the marginal log-density of its observed entries."""
    x = gaussian(1500)
    density = GenerativeDensity(steps=150, width=16, random_state=0).fit(holes(x))
    fresh = gaussian(50, seed=1)
    fresh[:, 1] = np.nan
    cov = np.array([[4.0, 0.008], [0.008, 2.9e-5]])
    marginal = multivariate_normal([5.0, 0.02], cov).logpdf(fresh[:, [0, 2]])
    assert abs((density.score_samples(fresh) - marginal).mean()) < 0.05
    assert density.score_samples([[np.nan] * 3]).tolist() == [0.0]


def test_more_importance_samples_give_a_tighter_bound() -> None:
    x = gaussian(40)
    settings = {**FAST, "latents": 1}
    one, many = (
        GenerativeDensity("hvae", importance_samples=k, **settings).fit(x) for k in (1, 32)
    )
    assert one.score_kind_ == "bound"
    assert many.score_kind_ == "estimate"
    assert many.score(x) > one.score(x)


def test_samples_have_the_moments_of_the_data() -> None:
    x = gaussian(500)
    density = GenerativeDensity(steps=60, width=16, random_state=0).fit(x)
    drawn = density.sample(4000, random_state=0)
    assert drawn.shape == (4000, 3)
    assert drawn.dtype == np.float64
    assert (np.abs(drawn.mean(0) - x.mean(0)) < 0.15 * x.std(0)).all()
    assert np.abs(np.corrcoef(drawn.T) - np.corrcoef(x.T)).max() < 0.06
    assert (density.sample(5, random_state=3) == density.sample(5, random_state=3)).all()
    assert (density.sample(5) != density.sample(5)).any()


def test_grid_search_picks_the_model_with_the_higher_likelihood() -> None:
    """One latent cannot hold a covariance whose eigenvalues all differ; two can."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GenerativeDensity(**FAST)),
        {"generativedensity__latents": [1, 2]},
        cv=2,
    )
    search.fit(gaussian(80))
    assert search.best_params_ == {"generativedensity__latents": 2}


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (lambda spec: VAE(spec, latents=2, width=8), "estimate"),
        (lambda spec: Diffusion(spec, width=8, steps=20), "bound"),
        (lambda spec: LatentDiffusion(spec, latents=2, width=8), "estimate"),
    ],
    ids=["vae", "diffusion", "latent diffusion"],
)
def test_any_model_may_be_given(model: object, kind: str) -> None:
    density = GenerativeDensity(model, **FAST).fit(gaussian(40))
    assert density.score_kind_ == kind
    scores = density.score_samples(gaussian(5))
    assert (density.score_samples(gaussian(5)[2:]) == scores[2:]).all()


def test_its_owner_can_pickle_it_and_save_its_model(tmp_path: Path) -> None:
    x = gaussian(40)
    density = GenerativeDensity(**FAST).fit(x)
    again = pickle.loads(pickle.dumps(density))
    assert (again.score_samples(x) == density.score_samples(x)).all()
    loaded = genmod.load(density.model_.save(tmp_path / "model"))
    with torch.no_grad(), trusted():
        found, kept = (
            m.encode(torch.tensor(x)) for m in (loaded.double(), density.model_.double())
        )
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(kept))


def test_the_package_does_not_hide_scikit_learn() -> None:
    """The two packages have one name: ``import sklearn`` gives scikit-learn."""
    assert sklearn.__version__.count(".") >= 1
    assert genmod.sklearn is not sklearn


@pytest.mark.parametrize(
    ("settings", "x", "message"),
    [
        ({"model": "vea"}, gaussian(20), r"did you mean 'vae'\?"),
        ({"model": "diffusion"}, holes(gaussian(20)), "NaN.*complete rows; use model='vae'"),
        ({"model": lambda spec: Diffusion(spec, width=8)}, holes(gaussian(20)), "use VAE, HVAE"),
        ({"model": lambda spec: Autoencoder(spec, width=8)}, gaussian(20), "use model='vae'"),
        ({"model": lambda spec: VAE(3, width=8)}, gaussian(20), "build it with the DataSpec"),
        ({"latents": 0}, gaussian(20), "latents=0"),
        ({"latents": "a"}, gaussian(20), "latents='a'"),
        ({"width": 0}, gaussian(20), "width=0"),
        ({"importance_samples": "a"}, gaussian(20), "importance_samples='a'"),
        ({"device": "gpu"}, gaussian(20), "device='gpu'.*expected cpu"),
        ({"validation_fraction": 1.0}, gaussian(20), "validation_fraction=1.0"),
        ({"importance_samples": 0}, gaussian(20), "importance_samples=0"),
        (
            {},
            np.c_[gaussian(20), np.ones(20)],
            "'x3' without two different values.*VarianceThreshold",
        ),
        ({}, np.c_[gaussian(20), np.full(20, np.nan)], "'x3' without two different values"),
        ({}, gaussian(1), "1 sample"),
    ],
)
def test_what_cannot_be_right_is_refused(
    settings: dict[str, object], x: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        GenerativeDensity(**{**FAST, **settings}).fit(x)


def test_the_remedy_for_columns_of_one_value_works() -> None:
    x = np.c_[gaussian(30), np.ones(30)]
    assert np.isfinite(
        make_pipeline(VarianceThreshold(), GenerativeDensity(**FAST)).fit(x).score(x)
    )
