r"""scikit-learn estimators: density, outliers, codes and imputation of tables by generative models.

Symbols: ``N`` rows of ``D`` columns, real numbers, in their own units; NaN is a missing entry. Every score
is :math:`\log p(x)` in nats or an estimate of it, as ``score_kind_`` states.

The score of a row depends on the bytes of that row alone. It is computed by itself in float64, under noise
whose key is a hash of the row. So it does not change by a bit with the order of the rows, their number or
their neighbors, and equal rows have equal scores.

>>> import numpy as np
>>> from genmod.sklearn import GenerativeDensity
>>> X = np.random.default_rng(0).normal(size=(50, 3))
>>> density = GenerativeDensity(steps=20, random_state=0).fit(X)
>>> bool((density.score_samples(X[::-1])[::-1] == density.score_samples(X)).all())
True
"""

from genmod.sklearn.density import GenerativeDensity as GenerativeDensity
from genmod.sklearn.density import GenerativeOutlierDetector as GenerativeOutlierDetector
from genmod.sklearn.transformers import GenerativeImputer as GenerativeImputer
from genmod.sklearn.transformers import LatentTransformer as LatentTransformer

__all__ = [
    "GenerativeDensity",
    "GenerativeImputer",
    "GenerativeOutlierDetector",
    "LatentTransformer",
]
