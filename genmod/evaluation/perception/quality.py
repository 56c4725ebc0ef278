"""Sample quality: Fréchet distance and class score, in the features of a fixed network."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from genmod import random
from genmod.arrays import as_context
from genmod.checks import check_integers, check_real, check_shape, require, trusted
from genmod.chunks import chunks, rows_per_chunk
from genmod.data import Dataset
from genmod.evaluation.batching import evaluating
from genmod.evaluation.perception.network import DIMS, SHA256, class_log_probs, features
from genmod.gaussian import wasserstein_squared_full
from genmod.model import LatentModel
from genmod.nn import check_context


@dataclass(frozen=True)
class Quality:
    """How samples look beside the real images of a data set's test part.

    Args:
        name: whose samples.
        frechet: the Fréchet distance of ``samples`` of them from test images.
        zero: the distance of the same number of other real images from the same test images: what a
            perfect model has, the zero of the scale. They are validation images, and training images
            where these do not suffice. (The network of features was trained on the latter.)
        extrapolated: the samples' distance with the ``1 / N`` bias taken off.
        classes: the samples' class score.
        real_classes: that of the test images.
        samples: ``N``, how many samples were compared: no more than there are other real images, because
            a distance falls with ``N`` and both are measured at the same one.
        drawn: how many samples were given.
        real: how many test images.
        sha256: of the network's weights; numbers of other weights do not compare.
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
        """As JSON has it."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.name}: Fréchet distance {self.frechet:.2f} "
            f"(real against real {self.zero:.2f}; without its 1/N bias {self.extrapolated:.2f}), "
            f"class score {self.classes:.2f} (real {self.real_classes:.2f}); "
            f"N = {self.samples}{self._of()} against {self.real} test images, "
            f"network {self.sha256[:12]}"
        )

    def _of(self) -> str:
        return "" if self.samples == self.drawn else f" of {self.drawn} samples"


def quality(
    model: LatentModel,
    data: Dataset,
    n: int = 2000,
    context: object = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    name: str | None = None,
) -> Quality:
    """Draw samples and compare how they look with a data set's test images.

    Args:
        model: any model of gray images, one that can sample.
        data: integer images ``(1, H, W)``.
        n: how many samples; at most as many test images stand beside them.
        context: what the model is conditioned on, ``(n, ...)``.
        seed: the key of the noise.
        batch_size: samples drawn together; by default as many as fit.
        name: what the result calls them; the model's class by default.

    Raises:
        ValueError: a model that cannot sample; data that are no gray images of integers; too few
            images for a covariance of 64 features.
    """
    _require_images(data, n)
    given = as_context(context, n)
    require(
        given is None or len(given) == n,
        f"{0 if given is None else len(given)} rows of context for n={n}",
        "one row a sample",
        "repeat the classes until there are n",
    )
    check_context(model, given)

    def run(rows: slice) -> Tensor:
        context = None if given is None else given[rows].to(model.device)
        return model.sample(rows.stop - rows.start, context).cpu()

    size = min(random.BLOCK, rows_per_chunk(data.shape, model.device, batch_size=batch_size))
    with evaluating(model):
        pieces = chunks(n, size)
        drawn = list(random.by_rows(pieces, lambda rows: random.keyed(seed, ids=_range(rows)), run))
    return quality_of(torch.cat(drawn), data, name=name or type(model).__name__)


def quality_of(samples: Tensor, data: Dataset, *, name: str = "samples") -> Quality:
    """Compare how images look with a data set's test images.

    Args:
        samples: integers of the data's levels, ``(N, 1, H, W)``.
        data: integer images ``(1, H, W)``.
        name: what the result calls them.

    Raises:
        ValueError: data that are no gray images of integers; fewer than 65 images on a side.
    """
    bins = _require_images(data, len(samples))
    check_shape(samples, data.shape, "samples")
    check_integers(samples, bins, name="samples")
    white = bins - 1
    others = torch.cat([_some(part, len(samples)) for part in (data.validation, data.train)])
    count = min(len(samples), len(others))
    drawn = features(samples[:count].float() / white)
    real = features(_some(data.test, count).float() / white)
    return Quality(
        name=name,
        frechet=frechet_distance(drawn, real),
        zero=frechet_distance(features(others[:count].float() / white), real),
        extrapolated=extrapolated_distance(drawn, real) if _halves(drawn, real) else float("nan"),
        classes=class_score(drawn),
        real_classes=class_score(real),
        samples=count,
        drawn=len(samples),
        real=len(real),
        sha256=SHA256,
    )


def _require_images(data: Dataset, count: int) -> int:
    """Require enough images of integers to compare; how many levels they have."""
    if data.bins is None:
        raise ValueError(
            f"got {data.name} with bins=None; expected integer images; the network of features sees "
            "gray levels in [0, 1] and needs to know which level is white"
        )
    others = len(data.validation) + len(data.train)
    require(
        min(count, len(data.test), others) > DIMS,
        f"{count} samples and {len(data.test)} test images (and {others} other ones)",
        f"at least {DIMS + 1} of each, and better ten times as many",
        "draw more samples: the covariance of few rows is singular, and its distance idle",
    )
    return data.bins


def _range(rows: slice) -> Tensor:
    return torch.arange(rows.start, rows.stop)


def _some(images: Tensor, count: int) -> Tensor:
    """At most so many images, in a fixed random order: MNIST's test part begins with the easy half."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[:count]]


def _halves(*sets: Tensor) -> bool:
    """Whether halves of every set have a covariance."""
    return all(len(each) // 2 > DIMS for each in sets)


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
