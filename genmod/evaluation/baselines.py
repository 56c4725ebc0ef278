r"""Baselines in closed form: the simple models that a trained model has to beat.

Each is fitted on ``train`` and gives every row of ``test`` a log-likelihood in nats, in float64 on the CPU.
A row is one sample ``x``, flattened to ``d`` entries: integers ``0 .. bins - 1``, or reals (``bins=None``)
where a baseline allows them.

A Gaussian is a density, and integers have a mass. Uniform dequantization joins the two: with
:math:`u \sim U[0, 1)^d`, Jensen's inequality gives

.. math:: \log P(x) = \log \int p(x + u)\, du \ge \mathbb{E}_u \log p(x + u).

So the expected log-density of ``x + u`` is a lower bound on the log-mass of ``x``. The noise has the width
of one value, hence no Jacobian; a density of the rescaled :math:`(x + u) / c` would need the term
:math:`-d \log c`.

Reference: Theis, van den Oord, Bethge, "A note on the evaluation of generative models" (2016), section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.arrays import Rows, as_tensor
from genmod.checks import invalid, whole_number
from genmod.data.values import check_values
from genmod.elbo import Stamp

__all__ = ["gaussian", "pixel_histogram", "ppca"]

KT = 0.5
"""Added to every count. With Krichevsky and Trofimov's 1/2 the code length of a sequence exceeds that of
the histogram fitted to the sequence itself by at most ``(bins - 1)/2 log N + O(1)`` nats, for every
sequence. No value has mass zero, so no test row costs infinitely many nats."""

BLOCK = 1 << 16
"""Entries that are counted together: their 64-bit indices take 0.5 MB, whatever the size of the data."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline's log-likelihoods of the test rows.

    Args:
        name: the name in reports.
        log_prob: nats of each row, ``(N,)``, float64.
        stamp: exact (a log-mass, or the log-density of real data) or a bound on the log-mass.
    """

    name: str
    log_prob: Tensor
    stamp: Stamp


def pixel_histogram(train: Rows, test: Rows, bins: int) -> Baseline:
    r"""The per-pixel histogram: each entry is independent and has a histogram of its own.

    .. math:: P(x) = \prod_{j=1}^{d} \frac{n_j(x_j) + 1/2}{N + \text{bins}/2}

    :math:`n_j(v)` counts the training rows whose entry ``j`` is ``v``.

    Args:
        train: integers ``(N, *event)``, the rows that are counted.
        test: integers ``(M, *event)``, the rows that are scored.
        bins: the number of values.

    Returns:
        Exact log-masses: ``.log_prob`` in nats, ``(M,)``.

    Raises:
        ValueError: values outside ``0 .. bins - 1``, or parts of different event shapes.

    Reference: Krichevsky, Trofimov, "The performance of universal encoding" (1981), for the added 1/2.

    >>> coins = torch.tensor([[0], [1], [1]])
    >>> pixel_histogram(coins, torch.tensor([[1]]), bins=2).log_prob.exp()  # (2 + 1/2) / (3 + 1)
    tensor([0.6250], dtype=torch.float64)
    """
    known, scored = _rows(train, test, bins)
    dims = known.shape[1]
    first = bins * torch.arange(dims)  # the place of each entry's value 0
    rows = max(1, BLOCK // dims)
    counts = torch.zeros(dims * bins, dtype=torch.long)
    for part in known.split(rows):
        counts += torch.bincount((part.long() + first).flatten(), minlength=len(counts))
    log_mass = torch.log((counts.double() + KT) / (len(known) + bins * KT))
    nats = [log_mass[part.long() + first].sum(-1) for part in scored.split(rows)]
    return Baseline("per-pixel histogram", torch.cat(nats), Stamp.EXACT)


def gaussian(train: Rows, test: Rows, bins: int | None, seed: int = 0) -> Baseline:
    r"""The full-covariance Gaussian of maximum likelihood, on dequantized rows if they are integers.

    For integers the mean ``m`` and the covariance ``S`` are those of ``train + u`` for one draw of the
    uniform noise ``u``. The noise gives even a constant pixel the variance 1/12, so ``S`` can be
    inverted. Test rows need no draws, because the expectation over ``u`` has a closed form (each entry
    has variance 1/12):

    .. math:: \mathbb{E}_u \log N(x + u; m, S)
        = \log N(x + \tfrac12; m, S) - \tfrac{1}{24} \mathrm{tr}(S^{-1}).

    Args:
        train: ``(N, *event)``, more rows than entries.
        test: ``(M, *event)``.
        bins: the number of values; ``None`` for real data.
        seed: the seed of the noise added to ``train``; unused if ``bins`` is ``None``.

    Returns:
        A bound on the log-mass, ``(M,)`` nats; for ``bins=None`` the exact log-density of the fitted
        Gaussian.

    Raises:
        ValueError: a singular covariance, or data that do not fit ``bins``.

    >>> x = torch.tensor([[-1.0], [1.0]])  # mean 0, variance 1
    >>> gaussian(x, x, bins=None).log_prob
    tensor([-1.4189, -1.4189], dtype=torch.float64)
    """
    return _spectral("full-covariance Gaussian", train, test, bins, None, seed)


def ppca(train: Rows, test: Rows, bins: int | None, rank: int, seed: int = 0) -> Baseline:
    r"""Probabilistic PCA of maximum likelihood: :math:`x \sim N(m, W W^\top + s^2 I)`.

    The covariance has eigenvalues :math:`l_1 \ge \dots \ge l_d`. The noise variance :math:`s^2` is the
    mean of the last ``d - rank``; :math:`W W^\top` adds what the first ``rank`` need to keep their own.
    No VAE with a linear decoder and a Gaussian likelihood of one variance has a higher marginal
    likelihood. Noise and bound are those of :func:`gaussian`.

    Args:
        train: ``(N, *event)``.
        test: ``(M, *event)``.
        bins: the number of values; ``None`` for real data.
        rank: the number of latent dimensions, 0 to ``d - 1``; ``d - 1`` is the full-covariance Gaussian.
        seed: the seed of the noise added to ``train``; unused if ``bins`` is ``None``.

    Returns:
        A bound on the log-mass, ``(M,)`` nats; for ``bins=None`` the exact log-density.

    Raises:
        ValueError: a rank out of range, or a noise variance of zero.

    Reference: Tipping, Bishop, "Probabilistic principal component analysis" (1999), eqs. 7 and 8.

    >>> x = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, -1.0], [0.0, 1.0]])  # variances 2 and 1/2
    >>> full, isotropic = ppca(x, x, bins=None, rank=1), ppca(x, x, bins=None, rank=0)
    >>> bool(full.log_prob.mean() > isotropic.log_prob.mean())
    True
    """
    train = as_tensor(train, "train")
    dims = math.prod(train.shape[1:])
    if not 0 <= whole_number(rank, "rank") < dims:
        raise invalid(
            f"rank={rank}",
            f"0 to {dims - 1} for data of {dims} entries",
            "use gaussian(...) for the full covariance",
        )
    return _spectral(f"pPCA of rank {rank}", train, test, bins, rank, seed)


def _spectral(
    name: str, train: Rows, test: Rows, bins: int | None, rank: int | None, seed: int
) -> Baseline:
    """A Gaussian whose covariance keeps ``rank`` eigenvalues and averages the others."""
    known, scored = (part.double() for part in _rows(train, test, bins))
    if bins is not None:
        generator = torch.Generator().manual_seed(whole_number(seed, "seed"))
        known = known + torch.rand(known.shape, generator=generator, dtype=torch.float64)
        scored = scored + 0.5
    mean = known.mean(0)
    centered = known - mean
    eigenvalues, directions = torch.linalg.eigh(centered.T @ centered / len(known))
    if rank is not None:
        # Ascending order: the discarded directions come first.
        discarded = len(eigenvalues) - rank
        eigenvalues = eigenvalues.clone()
        eigenvalues[:discarded] = eigenvalues[:discarded].mean()
    _check_spectrum(eigenvalues, len(known))
    square = (((scored - mean) @ directions).square() / eigenvalues).sum(-1)
    log_density = -0.5 * (square + eigenvalues.log().sum() + len(mean) * math.log(2 * math.pi))
    if bins is None:
        return Baseline(name, log_density, Stamp.EXACT)
    return Baseline(name, log_density - eigenvalues.reciprocal().sum() / 24, Stamp.BOUND)


def _check_spectrum(eigenvalues: Tensor, rows: int) -> None:
    """Require an invertible covariance: points on a line have no density in the plane."""
    largest, smallest = float(eigenvalues.max()), float(eigenvalues.min())
    floor = largest * len(eigenvalues) * torch.finfo(torch.float64).eps
    if not smallest > floor:
        raise invalid(
            f"a singular covariance: eigenvalues from {smallest:.3g} to {largest:.3g} in "
            f"{len(eigenvalues)} dimensions from {rows} rows",
            "a positive variance in every direction",
            "bring more rows than dimensions, drop constant or dependent columns, or use ppca of "
            "low rank",
        )


def _rows(train: Rows, test: Rows, bins: int | None) -> tuple[Tensor, Tensor]:
    """Checked matrices ``(N, d)`` on the CPU (not every device has float64), in the type they came in."""
    train, test = as_tensor(train, "train"), as_tensor(test, "test")
    if train.ndim < 2 or len(train) == 0 or train.shape[1:] != test.shape[1:]:
        raise invalid(
            f"train of shape {tuple(train.shape)} and test of shape {tuple(test.shape)}",
            "rows of one event shape, (N, *event), at least one of them in train",
            "cut both from one data set",
        )
    check_values(train, bins, "train")
    check_values(test, bins, "test")
    return train.detach().cpu().flatten(1), test.detach().cpu().flatten(1)
