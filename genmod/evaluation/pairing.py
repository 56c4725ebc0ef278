"""Two models on the same rows: what differs, and how surely."""

from __future__ import annotations

from genmod.checks import require
from genmod.evaluation.report import Estimate
from genmod.evaluation.scoring import Scores


def paired(a: Scores, b: Scores) -> Estimate:
    r"""How many nats a row ``a`` says more than ``b``, with the standard error of the difference.

    .. math:: \frac{1}{N} \sum_n (a_n - b_n), \qquad
        \mathrm{se}^2 = \frac{\mathrm{Var}(a) + \mathrm{Var}(b) - 2\,\mathrm{Cov}(a, b)}{N}

    Rows that are dear to one model are dear to the other, and noise drawn from one seed moves both
    alike, so the difference is known far better than either mean. Two checkpoints whose means lie
    within each other's errors are often told apart by it.

    Args:
        a: of one model, from :func:`genmod.evaluation.score` (or ``report.scores``).
        b: of another, for the same rows in the same order; with the same ``seed`` and ``draws``, or
            the difference is right but noisier.

    Raises:
        ValueError: other numbers of rows, or values that are not of one kind.

    >>> import torch
    >>> from genmod.evaluation import score
    >>> from genmod.models import VAE
    >>> x = torch.randn(50, 2)
    >>> model = VAE(2, latents=1, width=8)
    >>> print(paired(score(model, x, seed=1), score(model, x, seed=1)))
    0.00 ± 0.00
    """
    require(
        len(a.value) == len(b.value),
        f"{len(a.value)} rows and {len(b.value)} rows",
        "scores of the same rows in the same order",
        "score both models on one tensor",
    )
    require(
        a.measure is b.measure,
        f"a {a.measure.value} and a {b.measure.value}",
        "values of one kind",
        "a mass of integers and a density of reals have no common zero",
    )
    return Estimate.of(a.value - b.value)
