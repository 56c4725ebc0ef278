"""One call: how samples of a model look beside real images, with the zero of the scale told along."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from genmod import random
from genmod.checks import check_integers, check_shape, require
from genmod.data import Dataset
from genmod.evaluation.perception.network import DIMS, SHA256, features
from genmod.evaluation.perception.scores import (
    class_score,
    extrapolated_distance,
    frechet_distance,
)
from genmod.evaluation.scoring import BATCH, evaluating
from genmod.model import LatentModel


@dataclass(frozen=True)
class Quality:
    """How samples look beside the real images of a data set's test part.

    Args:
        name: whose samples.
        frechet: their Fréchet distance from test images.
        zero: the distance of as many other real images from the same test images: what a perfect model
            would have at this ``N``, and the zero of the scale. Validation images, and training images
            where these do not suffice, which the network of features has seen and finds clearer.
        extrapolated: the samples' distance with the ``1 / N`` bias taken off.
        classes: the samples' class score.
        real_classes: that of the test images.
        samples: how many samples.
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
            f"N = {self.samples} against {self.real} test images, network {self.sha256[:12]}"
        )


def quality(
    model: LatentModel,
    data: Dataset,
    n: int = 2000,
    context: Tensor | None = None,
    *,
    seed: int = 0,
    name: str | None = None,
) -> Quality:
    """Draw samples and compare how they look with a data set's test images.

    Args:
        model: any model of gray images, one that can sample.
        data: integer images ``(1, H, W)``.
        n: how many samples; at most as many test images stand beside them.
        context: what the model is told beside each sample, ``(n, ...)``.
        seed: the key of the noise.
        name: what the result calls them; the model's class by default.

    Raises:
        ValueError: a model that cannot sample; data that are no gray images of integers; too few
            images for a covariance of 64 features.
    """
    require(
        context is None or len(context) == n,
        f"{0 if context is None else len(context)} rows of context for n={n}",
        "one row a sample",
        "repeat the classes until there are n",
    )
    _require_images(data, n)
    drawn = []
    with evaluating(model):
        for start in range(0, n, BATCH):
            rows = slice(start, min(start + BATCH, n))
            told = None if context is None else context[rows].to(model.device)
            with random.keyed(seed, start=start, block=BATCH):
                drawn.append(model.sample(rows.stop - start, told).cpu())
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
    count, white = len(samples), bins - 1
    drawn = features(samples.float() / white)
    real = features(_some(data.test, count).float() / white)
    others = torch.cat([_some(data.validation, count), _some(data.train, count)])[:count]
    return Quality(
        name=name,
        frechet=frechet_distance(drawn, real),
        zero=frechet_distance(features(others.float() / white), real),
        extrapolated=extrapolated_distance(drawn, real) if _halves(drawn, real) else float("nan"),
        classes=class_score(drawn),
        real_classes=class_score(real),
        samples=count,
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
    require(
        min(count, len(data.test)) > DIMS,
        f"{count} samples and {len(data.test)} test images",
        f"at least {DIMS + 1} of each, and better ten times as many",
        "draw more samples: the covariance of few rows is singular, and its distance idle",
    )
    return data.bins


def _some(images: Tensor, count: int) -> Tensor:
    """At most so many images, in a fixed random order: MNIST's test part begins with the easy half."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[:count]]


def _halves(*sets: Tensor) -> bool:
    """Whether halves of every set have a covariance."""
    return all(len(each) // 2 > DIMS for each in sets)
