"""Distances between sets of images, and how many classes a set shows, in the network's features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genmod.checks import check_real, require, trusted
from genmod.evaluation.perception.network import DIMS, class_log_probs
from genmod.gaussian import wasserstein_squared_full


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""The squared Fréchet distance of two sets of features, each fitted by a Gaussian (as in FID).

    .. math:: \|m_a - m_b\|^2
        + \mathrm{tr}\big(S_a + S_b - 2 (S_a^{1/2} S_b S_a^{1/2})^{1/2}\big)

    Estimated from few rows it is too large by about ``c / N``: compare at one ``N`` only, and with what
    real rows have among themselves; or see :func:`extrapolated_distance`.

    Args:
        a: features ``(N, d)``, more rows than dimensions.
        b: features ``(M, d)``, likewise.

    Raises:
        ValueError: too few rows for a covariance, other numbers of features, values that are not finite.

    Reference: Dowson, Landau (1982), "The Fréchet distance between multivariate normal distributions",
    eq. 4; Heusel et al., "GANs trained by a two time-scale update rule" (2017), eq. 6.

    >>> a = torch.randn(200, 3, dtype=torch.float64)
    >>> round(frechet_distance(a, a + 2.0), 6)  # means apart by 2 in each of 3 dimensions
    12.0
    """
    require(
        a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[1],
        f"features of shapes {tuple(a.shape)} and {tuple(b.shape)}",
        "(N, d) and (M, d)",
        "pass what evaluation.features gives for both sets",
    )
    (mean_a, tril_a), (mean_b, tril_b) = _moments(a), _moments(b)
    # Trusted: a factor's diagonal is zero where images do not vary, and the distance still stands.
    with trusted():
        return float(wasserstein_squared_full(mean_a, tril_a, mean_b, tril_b))


def extrapolated_distance(a: Tensor, b: Tensor) -> float:
    r"""The Fréchet distance with its ``1 / N`` bias taken off: two times all rows minus their halves.

    .. math:: 2 \hat F_N - \tfrac12 (\hat F_{N/2}^{(1)} + \hat F_{N/2}^{(2)})

    It may come out negative where two sets are alike.

    Args:
        a: features ``(N, d)``, in an order without meaning, at least ``2 d + 2`` rows.
        b: features ``(M, d)``, likewise.

    Raises:
        ValueError: halves too small for a covariance.

    Reference: Chong, Forsyth, "Effectively unbiased FID and Inception Score and where to find them"
    (2020), section 3, for distance against ``1 / N``; two points of the line are used here.
    """
    halves = zip(a.chunk(2), b.chunk(2), strict=True)
    half = [frechet_distance(*pair) for pair in halves]
    return 2 * frechet_distance(a, b) - sum(half) / len(half)


def class_score(found: Tensor) -> float:
    r"""The number of classes that a set of images shows, by the formula of the Inception score.

    .. math:: \exp \frac{1}{N} \sum_n \mathrm{KL}(p(y | x_n) \| \tfrac{1}{N} \sum_m p(y | x_m))

    From 1 (all images alike, or none clear) to the number of classes. It knows only the classes of the
    package's own network, digits and clothes, and does not compare with scores of Inception.

    Args:
        found: features ``(N, 64)`` from :func:`features`.

    Raises:
        ValueError: no rows, or values that are not finite.

    Reference: Salimans et al., "Improved techniques for training GANs" (2016), section 4.
    """
    require(
        found.ndim == 2 and len(found) >= 1 and found.shape[1] == DIMS,
        f"features of shape {tuple(found.shape)}",
        f"(N, {DIMS})",
        "pass what evaluation.features gives",
    )
    check_real(found, name="features")
    log_p = class_log_probs(found)
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))
    return float((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp())


def _moments(found: Tensor) -> tuple[Tensor, Tensor]:
    """The mean, and a lower-triangular factor of the unbiased covariance."""
    rows, dims = found.shape
    require(
        rows > dims,
        f"{rows} rows of {dims} features",
        f"at least {dims + 1} rows, and better ten times as many",
        "draw more samples: the covariance of few rows is singular, and its distance idle",
    )
    check_real(found, name="features")
    found = found.double()
    mean = found.mean(0)
    upper = torch.linalg.qr((found - mean) / (rows - 1) ** 0.5, mode="r").R
    return mean, upper.mT.contiguous()
