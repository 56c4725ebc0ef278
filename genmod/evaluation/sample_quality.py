"""Sample quality: Fréchet distance and class score, in the features of a fixed network."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from genmod import random
from genmod.arrays import Rows, as_context, as_tensor
from genmod.checks import check_integers, check_real, check_shape, instance, invalid, trusted
from genmod.chunks import by_rows, chunks, rows_per_chunk
from genmod.data import Dataset
from genmod.evaluation.batching import evaluating
from genmod.evaluation.perception import DIMS, SHA256, class_log_probs, features
from genmod.gaussian.full import wasserstein_squared_full
from genmod.model import LatentModel
from genmod.nn.mlp import check_context
from genmod.random import BLOCK
from genmod.signatures import checked

_COUNT = 2000
"""Samples that are drawn by default."""


@dataclass(frozen=True)
class Quality:
    """Sample quality: a Fréchet distance and a class score, beside those of real images.

    Args:
        name: the name of the samples.
        frechet: the Fréchet distance between ``N`` samples and the test images.
        zero: the same distance for ``N`` other real images, which is what a perfect model would have. They
            are validation images, and training images if these are too few. (The network of features was
            trained on the training images.)
        extrapolated: the distance of the samples, with its bias of order ``1 / N`` removed.
        classes: the class score of the samples.
        real_classes: the class score of the test images.
        samples: ``N``, how many samples were compared. There are at most as many as other real images,
            because the bias depends on ``N``.
        drawn: how many samples were given.
        real: how many test images were used.
        sha256: the hash of the network's weights. Numbers of different weights cannot be compared.
    """

    name: str
    frechet: float
    zero: float
    extrapolated: float
    classes: float
    real_classes: float
    samples: int
    drawn: int
    real: int
    sha256: str

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        of = "" if self.samples == self.drawn else f" of {self.drawn} samples"
        return (
            f"{self.name}: Fréchet distance {self.frechet:.2f} "
            f"(real against real {self.zero:.2f}; without its 1/N bias {self.extrapolated:.2f}), "
            f"class score {self.classes:.2f} (real {self.real_classes:.2f}); "
            f"N = {self.samples}{of} against {self.real} test images, "
            f"network {self.sha256[:12]}"
        )


@checked
def quality(
    model: LatentModel | Rows,
    data: Dataset,
    n: int | None = None,
    context: object = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    name: str | None = None,
) -> Quality:
    """Measure the quality of samples, given or drawn of a model, against the test images of a data set.

    Args:
        model: a model of gray images that can sample; or samples, ``(N, 1, H, W)``, integers
            ``0 .. bins - 1`` as in the data. The next arguments but ``name`` are for a model alone.
        data: integer images ``(1, H, W)``.
        n: the number of samples, and of test images at most; ``None``: 2000.
        context: what the model is conditioned on, ``(n, ...)``.
        seed: the seed of the noise.
        batch_size: samples drawn together; by default as many as fit.
        name: the name in the result; by default the model's class, or "samples".

    Returns:
        A :class:`Quality`: ``.frechet`` of the samples, ``.zero`` of real images, ``.classes``, and the
        hash of the weights.

    Raises:
        ValueError: a model that cannot sample, or settings of its draw beside given samples; data that are
            not gray images of integers; too few images for a covariance of 64 features.

    Reference: Heusel et al., "GANs trained by a two time-scale update rule" (2017), eq. 6.

    >>> from genmod.data import load
    >>> from genmod.models import VAE
    >>> data = load("digits")
    >>> found = quality(VAE(data, latents=2, width=16), data, n=100)  # an untrained model
    >>> found.frechet > found.zero
    True
    """
    if not isinstance(model, LatentModel):
        draw = {"n": n, "context": context, "seed": seed or None, "batch_size": batch_size}
        _refuse_settings([name for name, value in draw.items() if value is not None])
        return _measured(as_tensor(model, "samples"), data, name or "samples")
    n = _COUNT if n is None else n
    _require_images(data, n)
    contexts = as_context(context, n)
    if contexts is not None and len(contexts) != n:
        raise invalid(
            f"{len(contexts)} rows of context for n={n}",
            "one row per sample",
            "repeat the classes until there are n",
        )
    check_context(model, contexts)

    def run(rows: slice) -> Tensor:
        context = None if contexts is None else contexts[rows].to(model.device)
        return model.sample(rows.stop - rows.start, context).cpu()

    size = min(BLOCK, rows_per_chunk(data.shape, model.device, batch_size=batch_size))
    with evaluating(model):
        pieces = chunks(n, size)
        drawn = list(by_rows(pieces, lambda rows: random.keyed(seed, ids=range(n)[rows]), run))
    return _measured(torch.cat(drawn), data, name or type(model).__name__)


def _refuse_settings(idle: list[str]) -> None:
    """Refuse settings of a draw beside samples that are drawn."""
    if idle:
        raise invalid(
            f"{', '.join(idle)} beside samples",
            "settings of a draw with a model alone",
            f"leave {' and '.join(idle)} out, or pass the model",
        )


def _measured(samples: Tensor, data: Dataset, name: str) -> Quality:
    """The quality of samples as they are."""
    bins = _require_images(data, len(samples))
    check_shape(samples, data.shape, "samples")
    check_integers(samples, bins, name="samples")
    white = bins - 1
    others = torch.cat([_some(part, len(samples)) for part in (data.validation, data.train)])
    count = min(len(samples), len(others))
    drawn = features(samples[:count].float() / white)
    real = features(_some(data.test, count).float() / white)
    halves = min(count, len(real)) // 2 > DIMS  # enough for a covariance
    return Quality(
        name=name,
        frechet=frechet_distance(drawn, real),
        zero=frechet_distance(features(others[:count].float() / white), real),
        extrapolated=extrapolated_distance(drawn, real) if halves else math.nan,
        classes=class_score(drawn),
        real_classes=class_score(real),
        samples=count,
        drawn=len(samples),
        real=len(real),
        sha256=SHA256,
    )


def _require_images(data: Dataset, count: int) -> int:
    """Require enough images of integers to compare; returns their number of values."""
    data = instance(data, Dataset, "data")
    if data.bins is None:
        raise invalid(
            f"{data.name} with bins=None",
            "integer images, which can be scaled to [0, 1]",
            "load the data with bins=...",
        )
    others = len(data.validation) + len(data.train)
    if not min(count, len(data.test), others) > DIMS:
        raise invalid(
            f"{count} samples and {len(data.test)} test images (and {others} other ones)",
            f"at least {DIMS + 1} of each, and better ten times as many",
            "draw more samples: the covariance of few rows is singular, and its distance means "
            "nothing",
        )
    return data.bins


def _some(images: Tensor, count: int) -> Tensor:
    """At most ``count`` images in a fixed random order: the first half of MNIST's test part is easier."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[:count]]


def frechet_distance(a: Rows, b: Rows) -> float:
    r"""The Fréchet distance of two sets of features, as in FID: that of two fitted Gaussians, squared.

    .. math:: \|m_a - m_b\|^2
        + \mathrm{tr}\big(S_a + S_b - 2 (S_a^{1/2} S_b S_a^{1/2})^{1/2}\big)

    ``m`` are means and ``S`` covariances. From ``N`` rows the estimate is too large by about ``c / N``.
    So compare only distances of the same ``N``, and put the distance between two sets of real images
    beside it.

    Args:
        a: features ``(N, d)``, more rows than dimensions.
        b: features ``(M, d)``, likewise.

    Raises:
        ValueError: too few rows for a covariance, different ``d``, or values that are not finite.

    Reference: Dowson, Landau (1982), "The Fréchet distance between multivariate normal distributions",
    eq. 4; Heusel et al., "GANs trained by a two time-scale update rule" (2017), eq. 6.

    >>> a = torch.randn(200, 3, dtype=torch.float64)
    >>> round(frechet_distance(a, a + 2.0), 6)  # means apart by 2 in each of 3 dimensions
    12.0
    """
    a, b = as_tensor(a, "a"), as_tensor(b, "b")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise invalid(
            f"features of shapes {tuple(a.shape)} and {tuple(b.shape)}",
            "(N, d) and (M, d)",
            "pass what evaluation.features gives for both sets",
        )
    (mean_a, tril_a), (mean_b, tril_b) = _moments(a), _moments(b)
    # Trusted: features that do not vary give a zero on the diagonal, which the distance allows.
    with trusted():
        return float(wasserstein_squared_full(mean_a, tril_a, mean_b, tril_b))


def extrapolated_distance(a: Tensor, b: Tensor) -> float:
    r"""The Fréchet distance with its bias of order ``1 / N`` removed, by extrapolation to infinite ``N``.

    .. math:: 2 \hat F_N - \tfrac12 (\hat F_{N/2}^{(1)} + \hat F_{N/2}^{(2)})

    It can be negative if the two sets have nearly the same distribution.

    Args:
        a: features ``(N, d)`` in random order, at least ``2 d + 2`` rows.
        b: features ``(M, d)``, likewise.

    Raises:
        ValueError: halves too small for a covariance.

    Reference: Chong, Forsyth, "Effectively unbiased FID and Inception Score and where to find them"
    (2020), section 3. They fit a line in ``1 / N`` to many points; here it goes through two.
    """
    half = [frechet_distance(*pair) for pair in zip(a.chunk(2), b.chunk(2), strict=True)]
    return 2 * frechet_distance(a, b) - sum(half) / len(half)


def class_score(found: Tensor) -> float:
    r"""The class score of a set of images: the formula of the Inception score, on this network's classes.

    .. math:: \exp \frac{1}{N} \sum_n \mathrm{KL}(p(y | x_n) \| \tfrac{1}{N} \sum_m p(y | x_m))

    It is 1 if all images are alike or none is clear, and at most the number of classes that the set shows.
    The classes are the ten digits and the ten clothes, so it cannot be compared with scores of Inception.

    Args:
        found: features ``(N, 64)`` from :func:`features`.

    Raises:
        ValueError: no rows, or values that are not finite.

    Reference: Salimans et al., "Improved techniques for training GANs" (2016), section 4.
    """
    if found.ndim != 2 or len(found) == 0 or found.shape[1] != DIMS:
        raise invalid(
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
    if rows <= dims:
        raise invalid(
            f"{rows} rows of {dims} features",
            f"at least {dims + 1} rows, and better ten times as many",
            "draw more samples: the covariance of few rows is singular, and its distance means "
            "nothing",
        )
    check_real(found, name="features")
    found = found.double()
    upper = torch.linalg.qr((found - found.mean(0)) / (rows - 1) ** 0.5, mode="r").R
    return found.mean(0), upper.mT.contiguous()
