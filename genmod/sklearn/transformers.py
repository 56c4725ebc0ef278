"""Transformers: codes of rows, and imputation of missing entries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import (
    ClassNamePrefixFeaturesOutMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_array, check_is_fitted

from genmod.checks import check_at_least, invalid
from genmod.chunks import chunks
from genmod.evaluation.batching import evaluating
from genmod.model import LatentModel
from genmod.signatures import checked
from genmod.sklearn.base import GenerativeEstimator
from genmod.sklearn.rows import Array, check_scores, impute_rows_alone

_TOGETHER = 1024
"""Rows whose codes are computed together."""
_HIDDEN = (0.2, 0.4, 0.6)
"""Fractions of entries that are hidden in the further copies of the rows that an imputer is trained on."""


@dataclass(eq=False, repr=False)
class LatentTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, GenerativeEstimator):
    """Codes of rows, as features for another estimator: the posterior mean of the latents.

    Those of a hierarchical VAE are the level next to the data (of a top-down hierarchy, all levels side by
    side). A diffusion's are the noise that its probability flow maps the row to.

    Args:
        model, latents, width, depth, steps, batch_size: see :class:`~genmod.sklearn.GenerativeDensity`.
        learning_rate, weight_decay, validation_fraction: see :class:`~genmod.sklearn.GenerativeDensity`.
        device, random_state, verbose: see :class:`~genmod.sklearn.GenerativeDensity`.

    >>> X = np.random.default_rng(0).normal(size=(100, 5))
    >>> codes = LatentTransformer(latents=2, steps=20, random_state=0).fit(X)
    >>> codes.transform(X).shape, codes.get_feature_names_out().tolist()
    ((100, 2), ['latenttransformer0', 'latenttransformer1'])
    """

    def _finish(self, x: Array) -> None:
        parts = self._encode(x[:1])
        self._shapes = [tuple(part.shape[1:]) for part in parts]
        self._n_features_out = sum(math.prod(shape) for shape in self._shapes)

    def _encode(self, x: Array) -> tuple[torch.Tensor, ...]:
        given = torch.tensor(x)
        observed = None if not np.isnan(x).any() else ~given.isnan()
        if observed is not None:
            self.model_.check_missing()
        with evaluating(self.model_):
            found = self.model_.encode(given.nan_to_num(), observed=observed)
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)

    def transform(self, X: Any) -> Array:
        """The code of each row, ``(N, latents)``, given its observed entries.

        Args:
            X: ``(N, D)``.
        """
        x = self._validated(X)
        parts = [self._encode(x[piece]) for piece in chunks(len(x), _TOGETHER)]
        rows = [torch.cat([level.flatten(1) for level in part], 1) for part in parts]
        codes: Array = torch.cat(rows).numpy()
        return codes

    def inverse_transform(self, X: Any) -> Array:
        """The mean of the rows that codes stand for, ``(N, D)``, in the data's own units.

        Args:
            X: codes, ``(N, latents)``, as :meth:`transform` gives them.
        """
        check_is_fitted(self)
        z = torch.tensor(check_array(X, dtype=np.float64))
        width = self._n_features_out
        if z.shape[1] != width:
            raise invalid(
                f"codes of {z.shape[1]} numbers",
                f"{width}, as transform gives them",
                "pass codes of this estimator",
            )
        sizes = [math.prod(shape) for shape in self._shapes]
        pieces = zip(z.split(sizes, 1), self._shapes, strict=True)
        levels = tuple(piece.reshape(-1, *shape) for piece, shape in pieces)
        with evaluating(self.model_):
            law = self.model_.decode(levels[0] if len(levels) == 1 else levels)
        mean: Array = law.mean.numpy()
        return mean


@dataclass(eq=False, repr=False)
class GenerativeImputer(OneToOneFeatureMixin, TransformerMixin, GenerativeEstimator):
    r"""Imputation of missing entries (NaN) given the observed ones, single and multiple.

    The model is a VAE or a hierarchical VAE whose encoder gets the mask. It is trained on the observed
    entries, and on copies of the rows with further entries hidden at random, so that its encoder knows rows
    with holes. Then latents are drawn given the observed entries and resampled by their importance weights.
    :meth:`transform` fills in the conditional mean, :meth:`impute` several joint draws. Entries that were
    observed stay as they are.

    Multiple imputation is *improper*: all draws are from one trained model. Fit on several bootstrap
    samples of the rows to include the uncertainty of the model.

    Args:
        model: ``"vae"``, ``"hvae"``, or a function; see :class:`~genmod.sklearn.GenerativeDensity`.
        latents, width, depth, steps, batch_size: see :class:`~genmod.sklearn.GenerativeDensity`.
        learning_rate, weight_decay, validation_fraction: see :class:`~genmod.sklearn.GenerativeDensity`.
        device, random_state, verbose: see :class:`~genmod.sklearn.GenerativeDensity`.
        importance_samples: ``K``, draws of the latents for each row; exact as ``K`` grows.
        sample_posterior: whether :meth:`transform` fills in one joint draw in place of the mean.

    Reference: Mattei, Frellsen, "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data
    Sets" (2019), section 3 on single and multiple imputation.

    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> X[::4, 1] = np.nan
    >>> imputer = GenerativeImputer(steps=20, importance_samples=8, random_state=0).fit(X)
    >>> bool(np.isnan(imputer.transform(X)).any()), imputer.impute(X, n=5).shape
    (False, (5, 100, 3))
    """

    importance_samples: int = 64
    sample_posterior: bool = False

    _without_missing = (
        "use model='vae' or 'hvae', whose encoders leave entries out; a diffusion's is fixed"
    )

    def _check_settings(self) -> None:
        count = self.importance_samples
        check_at_least(count, 1, "importance_samples", "64 is the default")
        if not self._takes_missing():
            got = f"model='diffusion' for a {type(self).__name__}"
            raise invalid(got, "'vae', 'hvae' or a function", self._without_missing)

    def _prepared(self, rows: Array) -> Array:
        """The rows, and copies of them with further entries missing at random."""
        generator = np.random.default_rng([self._seed, len(rows)])
        copies = [np.where(generator.random(rows.shape) < share, np.nan, rows) for share in _HIDDEN]
        return np.concatenate([rows, *copies])

    def _check_model(self, model: LatentModel) -> None:
        check_scores(model)
        model.weighable()

    def transform(self, X: Any) -> Array:
        """The rows with each missing entry filled in, ``(N, D)``.

        Args:
            X: ``(N, D)``; NaN where an entry is missing. A row of NaN alone gets the mean of the
                model's draws.
        """
        x = self._validated(X)
        draws, means = impute_rows_alone(self.model_, x, self._seed, 1, self.importance_samples)
        filled: Array = draws[0] if self.sample_posterior else means
        return filled

    @checked
    def impute(self, X: Any, n: int = 5, random_state: Any = None) -> Array:
        """Multiple imputation: completed copies of the rows, ``(n, N, D)``, each one joint draw.

        Args:
            X: ``(N, D)``; NaN where an entry is missing.
            n: how many copies.
            random_state: a seed or a ``RandomState`` of other draws; ``None``: the estimator's own.
        """
        x = self._validated(X)
        seed = self._seed
        if isinstance(random_state, np.random.RandomState):
            seed = int(random_state.randint(np.iinfo(np.int32).max))
        elif random_state is not None:
            seed = int(random_state)
        return impute_rows_alone(self.model_, x, seed, n, self.importance_samples)[0]
