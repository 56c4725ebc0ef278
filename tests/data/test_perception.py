"""The network of features on the real images of MNIST and Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from genmod.data import Dataset
from genmod.data.images import fashion_mnist, mnist
from genmod.evaluation import features
from genmod.evaluation.perception import class_log_probs
from genmod.evaluation.sample_quality import class_score, quality

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    ("load", "first", "least", "classes"),
    [(mnist, 0, 0.985, (9.5, 10.0)), (fashion_mnist, 10, 0.88, (7.5, 10.0))],
    ids=["mnist", "fashion-mnist"],
)
def test_it_reads_images_that_its_training_has_not_seen(
    canonical: Path,
    load: Callable[..., Dataset],
    first: int,
    least: float,
    classes: tuple[float, float],
) -> None:
    """Nearly all test images; as many classes as there are; and real images are near each other.

    Clothes are less clear: a shirt may be a coat.
    """
    data = load(canonical, download=False)
    assert data.labels is not None
    found = features(data.test.float() / 255)
    right = class_log_probs(found).argmax(1) == data.labels["test"] + first
    assert float(right.double().mean()) > least
    assert classes[0] < class_score(found) < classes[1]
    near = quality(data.train[:2000], data, name="train")
    assert near.frechet < 2 * near.zero
    assert near.extrapolated < near.frechet
