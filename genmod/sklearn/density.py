"""Density estimation and outlier detection: scores of rows in nats."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import DensityMixin, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from genmod import random
from genmod.checks import check_at_least, invalid
from genmod.evaluation.batching import evaluating
from genmod.evaluation.scoring import Estimate
from genmod.model import LatentModel
from genmod.signatures import checked
from genmod.sklearn.base import GenerativeEstimator
from genmod.sklearn.rows import Array, check_scores, estimate, score_rows
from genmod.sklearn.start import central_rows


@dataclass(eq=False, repr=False)
class _Scoring(GenerativeEstimator):
    """Scores of rows by a trained model."""

    importance_samples: int = 64
    timesteps: int = 64

    def _check_settings(self) -> None:
        for name in ("importance_samples", "timesteps"):
            check_at_least(getattr(self, name), 1, name, "64 is the default")

    def _check_model(self, model: LatentModel) -> None:
        check_scores(model)

    def _score_kind(self, x: Array) -> str:
        """What the scores are: the same for all rows, so one row without holes shows it."""
        return self._scores(np.where(np.isnan(x[:1]), 0.0, x[:1]))[1]

    def _scores(self, x: Array) -> tuple[Array, str]:
        if np.isnan(x).any():
            self.model_.check_missing()
        scores, stamp = score_rows(
            self.model_, x, self._seed, self.importance_samples, self.timesteps
        )
        return scores, str(stamp.value)

    def score_samples(self, X: Any) -> Array:
        """The log-density of each row, ``(N,)`` nats in float64: what ``score_kind_`` states.

        Args:
            X: ``(N, D)``. Where entries are missing, the score is the log-density of the observed ones.

        Raises:
            ValueError: rows that cannot be scored.
        """
        return self._scores(self._validated(X))[0]


@dataclass(eq=False, repr=False)
class GenerativeDensity(DensityMixin, _Scoring):
    r"""Density estimation by a generative model: :math:`\log p(x)` of each row, and samples.

    With latents, the score is the importance-weighted bound

    .. math:: \log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x, z_k)}{q(z_k | x)}, \qquad z_k \sim q(z | x),

    whose mean is below :math:`\log p(x)` and approaches it as ``K`` grows. For a diffusion the score is an
    unbiased estimate of the bound from some noise levels. ``score_kind_`` is ``"exact"``, ``"bound"`` or
    ``"estimate"``; an estimate can exceed :math:`\log p(x)` by chance.

    Args:
        model: ``"vae"`` starts from probabilistic PCA and is then trained; ``"hvae"`` is a hierarchical
            VAE of two levels; ``"diffusion"`` takes complete rows only. Or a function that builds a
            model from a :class:`~genmod.spec.DataSpec`: ``lambda spec: VAE(spec, latents=4)``.
        latents: how many dimensions the latent has (of the first level); by default ``D - 1``, at most 32.
        width: of the networks' hidden layers.
        depth: residual blocks of each network.
        steps: training steps.
        batch_size: rows in a batch; 128 by default, or all rows where there are fewer.
        learning_rate: its peak.
        weight_decay: of AdamW; by default 0, but 1 for ``"vae"``: small tables then stay near its start.
        validation_fraction: the fraction of the rows, at random, that choose the best weights; 0: none.
            Fewer than 5 validation rows are not used.
        device: where to train: ``"cpu"``, ``"cuda"``.
        random_state: a seed, a ``RandomState``, or ``None``, which draws a seed from NumPy's generator.
        verbose: whether to show a progress bar.
        importance_samples: ``K``, draws of the latents for each row; 1 is the evidence lower bound.
        timesteps: noise levels of a diffusion that each row visits, stratified within the row.

    Reference: Burda, Grosse, Salakhutdinov, "Importance weighted autoencoders" (2016), eq. 8.

    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> density = GenerativeDensity(steps=20, random_state=0).fit(X)
    >>> density.score_samples(X).shape, density.sample(5, random_state=0).shape, density.score_kind_
    ((100,), (5, 2), 'estimate')
    """

    def _finish(self, x: Array) -> None:
        self.score_kind_ = self._score_kind(x)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean log-density of the rows, in nats: higher is better, as grid search needs.

        Args:
            X: ``(N, D)``.
            y: ignored.
        """
        return float(self.score_samples(X).mean())

    def score_estimate(self, X: Any) -> Estimate:
        """The mean log-density with its standard error, in which equal rows count once.

        Args:
            X: ``(N, D)``.
        """
        x = self._validated(X)
        return estimate(x, self._scores(x)[0])

    @checked
    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """Draws of rows, ``(n_samples, D)``, in the data's own units.

        Args:
            n_samples: how many.
            random_state: a seed, a ``RandomState``, or ``None``: a seed from NumPy's generator.
        """
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
        with evaluating(self.model_), random.keyed(seed):
            drawn: Array = self.model_.sample(n_samples).numpy()
        return drawn


@dataclass(eq=False, repr=False)
class GenerativeOutlierDetector(OutlierMixin, _Scoring):
    """Outlier (anomaly) detection: rows of a low log-density under a generative model.

    The model is trained without the rows that a robust Gaussian finds least likely, a fraction
    ``contamination`` of all, so that it does not learn the outliers. Then every row is scored. Rows whose
    score lies below ``offset_`` are outliers; ``offset_`` is the quantile ``contamination`` of the scores.
    Rows with missing entries are refused, because the densities of rows with different observed entries
    cannot be compared.

    Args:
        model, latents, width, depth, steps, batch_size: see :class:`GenerativeDensity`.
        learning_rate, weight_decay, validation_fraction: see :class:`GenerativeDensity`.
        device, random_state, verbose: see :class:`GenerativeDensity`.
        importance_samples, timesteps: see :class:`GenerativeDensity`.
        contamination: the fraction of outliers among the training rows, in (0, 0.5].

    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> detector = GenerativeOutlierDetector(steps=20, contamination=0.05, random_state=0)
    >>> int((detector.fit_predict(X) == -1).sum())
    5
    >>> detector.predict([[0.0, 0.0], [9.0, -9.0]]).tolist()
    [1, -1]
    """

    contamination: float = 0.1

    _without_missing = "fill the rows first, by GenerativeImputer in a pipeline for example"

    def _takes_missing(self) -> bool:
        return False

    def _training_rows(self, x: Array) -> Array:
        """The rows without the fraction that a robust Gaussian finds least likely."""
        share = self.contamination
        if not isinstance(share, Real) or not 0 < share <= 0.5:
            raise invalid(
                f"contamination={share!r}",
                "a number in (0, 0.5]",
                "0.1 marks a tenth of the training rows",
            )
        return x[central_rows(x, share)]

    def _finish(self, x: Array) -> None:
        self.score_kind_ = self._score_kind(x)
        self.offset_: float = float(np.percentile(self._scores(x)[0], 100 * self.contamination))

    def decision_function(self, X: Any) -> Array:
        """The score of each row minus ``offset_``, ``(N,)`` nats: negative for outliers.

        Args:
            X: ``(N, D)``.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Array:
        """1 for inliers and -1 for outliers, ``(N,)``.

        Args:
            X: ``(N, D)``.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)
