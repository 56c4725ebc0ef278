"""The quality of a model's samples: distances to real images, and between real images."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from genmod import random
from genmod.arrays import as_context
from genmod.checks import check_integers, check_shape, require
from genmod.chunks import by_rows, chunks, rows_per_chunk
from genmod.data import Dataset
from genmod.evaluation.batching import evaluating
from genmod.evaluation.perception.network import DIMS, SHA256, features
from genmod.evaluation.perception.scores import (
    class_score,
    extrapolated_distance,
    frechet_distance,
)
from genmod.model import LatentModel
from genmod.nn.mlp import check_context


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
        drawn = list(by_rows(pieces, lambda rows: random.keyed(seed, ids=_range(rows)), run))
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
