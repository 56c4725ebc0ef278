r"""Baselines in closed form: simple models that a trained model should beat.

Every one is fitted on ``train`` and scores each row of ``test`` in nats, in float64 on the CPU.
``x`` are integers ``0 .. bins - 1`` (or reals, where ``bins=None`` is allowed), flattened to ``d``
entries. A density ``p`` bounds a mass through uniform dequantization: with
``u ~ U[0, 1)^d``, by Jensen's inequality,

    log P(x) = log int p(x + u) du >= E_u log p(x + u).

The bins have width 1 here, so the change from density to mass has Jacobian 1 and no term; a density
of the rescaled ``(x + u) / c`` would need the term ``d log c``.

Reference:
    Theis, van den Oord and Bethge 2016, A note on the evaluation of generative models, section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.checks import require
from genmod.data.values import check_values
from genmod.elbo import Stamp

KT = 0.5
"""Added to every count. With Krichevsky and Trofimov's 1/2 the code length of a whole sequence is
within ``(bins - 1)/2 log N + O(1)`` of the best histogram's in hindsight, for EVERY sequence; and
every level keeps a positive mass, so that no test value costs infinity."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """The log-likelihoods that a baseline gives the rows of the test part.

    Args:
        name: what reports call it.
        log_prob: ``(N,)`` nats, float64.
        stamp: exact (log-mass, or log-density of continuous data) or a bound on the log-mass.
    """

    name: str
    log_prob: Tensor
    stamp: Stamp


def pixel_histogram(train: Tensor, test: Tensor, bins: int) -> Baseline:
    r"""Independent histograms of each entry, ``P(x) = prod_j (n_j(x_j) + 1/2) / (N + bins / 2)``.

    Args:
        train: integers ``(N, *event)``, the rows that are counted.
        test: integers ``(M, *event)``, the rows that are scored.
        bins: the number of levels.

    Returns:
        Exact log-masses.

    Raises:
        ValueError: for values outside ``0 .. bins - 1``, or parts of different event shapes.

    Reference:
        Krichevsky and Trofimov 1981, The performance of universal encoding (the added 1/2).

    >>> coins = torch.tensor([[0], [1], [1]])
    >>> pixel_histogram(coins, torch.tensor([[1]]), bins=2).log_prob.exp()  # (2 + 1/2) / (3 + 1)
    tensor([0.6250], dtype=torch.float64)
    """
    seen, asked = _integers(train, test, bins)
    dims = seen.shape[1]
    offset = bins * torch.arange(dims)
    counts = torch.bincount((seen + offset).flatten(), minlength=bins * dims).double()
    log_mass = torch.log((counts + KT) / (len(seen) + bins * KT))
    return Baseline("per-pixel histogram", log_mass[asked + offset].sum(-1), Stamp.EXACT)


def global_histogram(train: Tensor, test: Tensor, bins: int) -> Baseline:
    r"""One histogram for all entries, ``P(x) = prod_j (n(x_j) + 1/2) / (N d + bins / 2)``.

    Args:
        train: integers ``(N, *event)``.
        test: integers ``(M, *event)``.
        bins: the number of levels.

    Returns:
        Exact log-masses.

    Raises:
        ValueError: for values outside ``0 .. bins - 1``, or parts of different event shapes.
    """
    seen, asked = _integers(train, test, bins)
    counts = torch.bincount(seen.flatten(), minlength=bins).double()
    log_mass = torch.log((counts + KT) / (seen.numel() + bins * KT))
    return Baseline("global histogram", log_mass[asked].sum(-1), Stamp.EXACT)


def gaussian(train: Tensor, test: Tensor, bins: int | None, seed: int = 0) -> Baseline:
    r"""The full-covariance Gaussian of greatest likelihood, of (dequantized) training rows.

    For integers the mean ``m`` and covariance ``S`` are those of ``train + u``, one draw of uniform
    noise. No ridge is needed: noise gives even a constant pixel variance 1/12. Test rows are scored
    without noise: the expectation over it has a closed form, with ``Var u = 1/12``:

        ``E_u log N(x + u; m, S) = log N(x + 1/2; m, S) - tr(S^-1) / 24``.

    Args:
        train: ``(N, *event)``; more rows than entries.
        test: ``(M, *event)``.
        bins: the number of levels; ``None`` for continuous data, which are taken as they are.
        seed: of the training noise, unused if ``bins`` is ``None``.

    Returns:
        A bound on the log-mass; with ``bins=None`` the exact log-density of the fitted Gaussian.

    Raises:
        ValueError: if the covariance is singular, or the data do not fit ``bins``.

    >>> x = torch.tensor([[-1.0], [1.0]])  # mean 0, variance 1
    >>> gaussian(x, x, bins=None).log_prob
    tensor([-1.4189, -1.4189], dtype=torch.float64)
    """
    return _spectral("full-covariance Gaussian", train, test, bins, None, seed)


def ppca(train: Tensor, test: Tensor, bins: int | None, rank: int, seed: int = 0) -> Baseline:
    r"""Probabilistic principal components of greatest likelihood: ``x ~ N(m, W W' + s^2 I)``.

    With eigenvalues ``l_1 >= ... >= l_d`` of the covariance, ``s^2`` is the mean of the last
    ``d - rank`` and ``W W'`` lifts the first ``rank`` directions to their own. This is the marginal
    likelihood of the best VAE with a linear decoder. Noise and bound as in :func:`gaussian`.

    Args:
        train: ``(N, *event)``.
        test: ``(M, *event)``.
        bins: the number of levels; ``None`` for continuous data.
        rank: latent dimensions, 0 to ``d - 1``; ``d - 1`` is the full-covariance Gaussian.
        seed: of the training noise.

    Returns:
        A bound on the log-mass; with ``bins=None`` the exact log-density.

    Raises:
        ValueError: for a rank out of range, or a noise variance of zero.

    Reference:
        Tipping and Bishop 1999, Probabilistic principal component analysis, eqs. 7 and 8.
    """
    dims = math.prod(train.shape[1:])
    require(
        0 <= rank < dims,
        f"rank={rank}",
        f"0 to {dims - 1} for data of {dims} entries",
        "use gaussian(...) for the full covariance",
    )
    return _spectral(f"pPCA of rank {rank}", train, test, bins, rank, seed)


def _spectral(
    name: str, train: Tensor, test: Tensor, bins: int | None, rank: int | None, seed: int
) -> Baseline:
    """A Gaussian whose covariance keeps ``rank`` eigenvalues and averages the others."""
    seen, asked = _rows(train, test, bins)
    if bins is not None:
        generator = torch.Generator().manual_seed(seed)
        seen = seen + torch.rand(seen.shape, generator=generator, dtype=torch.float64)
        asked = asked + 0.5
    mean = seen.mean(0)
    centered = seen - mean
    eigenvalues, directions = torch.linalg.eigh(centered.T @ centered / len(seen))
    if rank is not None:
        # Ascending order: the discarded directions come first.
        discarded = len(eigenvalues) - rank
        eigenvalues = eigenvalues.clone()
        eigenvalues[:discarded] = eigenvalues[:discarded].mean()
    _check_spectrum(eigenvalues, len(seen))
    square = (((asked - mean) @ directions).square() / eigenvalues).sum(-1)
    log_density = -0.5 * (square + eigenvalues.log().sum() + len(mean) * math.log(2 * math.pi))
    if bins is None:
        return Baseline(name, log_density, Stamp.EXACT)
    return Baseline(name, log_density - eigenvalues.reciprocal().sum() / 24, Stamp.BOUND)


def _check_spectrum(eigenvalues: Tensor, rows: int) -> None:
    """Require a covariance that can be inverted: a line has no density on the plane."""
    largest, smallest = float(eigenvalues.max()), float(eigenvalues.min())
    floor = largest * len(eigenvalues) * torch.finfo(torch.float64).eps
    require(
        smallest > floor,
        f"a singular covariance: eigenvalues from {smallest:.3g} to {largest:.3g} in "
        f"{len(eigenvalues)} dimensions from {rows} rows",
        "a positive variance in every direction",
        "bring more rows than dimensions, drop constant or dependent columns, or use ppca of low "
        "rank",
    )


def _integers(train: Tensor, test: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    seen, asked = _rows(train, test, bins)
    return seen.long(), asked.long()


def _rows(train: Tensor, test: Tensor, bins: int | None) -> tuple[Tensor, Tensor]:
    """Checked float64 matrices ``(N, d)`` on the CPU (not every device has float64)."""
    require(
        train.ndim >= 2 and len(train) >= 1 and train.shape[1:] == test.shape[1:],
        f"train of shape {tuple(train.shape)} and test of shape {tuple(test.shape)}",
        "rows of one event shape, (N, *event), at least one of them in train",
        "cut both from one data set",
    )
    check_values(train, bins, "train")
    check_values(test, bins, "test")
    return train.detach().cpu().double().flatten(1), test.detach().cpu().double().flatten(1)
