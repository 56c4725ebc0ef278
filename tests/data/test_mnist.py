"""The real MNIST and Fashion-MNIST: facts that identify them, and the entropy of their binarization.

The numbers were computed once by other code from the same files (fractions of empty pixels, entropy of
the binarization, nats under independent pixels), so they check the reading, the order of axes and the
formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from genmod.data import Dataset, binarized
from genmod.data.binarized import BernoulliPixels
from genmod.data.images import fashion_mnist, mnist
from genmod.elbo import Measure
from genmod.evaluation import Report
from genmod.evaluation.baselines import pixel_histogram
from tests.statistics import assert_mean

pytestmark = pytest.mark.data


@dataclass(frozen=True)
class Facts:
    """What is known of the test part of one of them.

    Args:
        load: reads it.
        empty: the fraction of pixels that are 0.
        irreducible: mean entropy of an image's binarization, in nats, and its standard deviation.
        pixelwise: nats of binarized images under independent pixels.
    """

    load: Callable[..., Dataset]
    empty: float
    irreducible: tuple[float, float]
    pixelwise: float


@pytest.fixture(
    scope="module",
    params=[
        Facts(mnist, 0.807, (45.53, 10.8), 205.80),
        Facts(fashion_mnist, 0.500, (189.86, 72.2), 385.02),
    ],
    ids=["mnist", "fashion-mnist"],
)
def facts(request: pytest.FixtureRequest) -> Facts:
    """Of one of the two."""
    found: Facts = request.param
    return found


@pytest.fixture(scope="module")
def data(facts: Facts, canonical: Path) -> Dataset:
    """The gray images."""
    return facts.load(canonical, download=False)


def test_parts_levels_and_empty_pixels(data: Dataset, facts: Facts) -> None:
    """Sizes, all 256 levels, and how much of it is empty."""
    sizes = [len(part) for part in data.parts().values()]
    assert sizes == [55_000, 5_000, 10_000]
    assert data.shape == (1, 28, 28)
    assert data.train.dtype is torch.uint8
    assert torch.bincount(data.test.flatten(), minlength=256).count_nonzero() == 256
    assert float((data.test == 0).double().mean()) == pytest.approx(facts.empty, abs=5e-4)


def test_labels_belong_to_their_images(data: Dataset) -> None:
    """Class means of one part recognize most images of the two others; shuffled labels give 10 %."""
    assert data.labels is not None
    rows, labels = data.validation.double().flatten(1), data.labels["validation"]
    means = torch.stack([rows[labels == k].mean(0) for k in range(10)])
    for split in ("train", "test"):
        others = data.parts()[split][:5000].double().flatten(1)
        right = torch.cdist(others, means).argmin(1) == data.labels[split][:5000]
        assert float(right.double().mean()) > 0.6


def test_the_entropy_of_a_binarized_test_image_is_the_known_value(
    data: Dataset, facts: Facts
) -> None:
    """The floor of every likelihood under dynamic binarization."""
    entropy = BernoulliPixels(data.test, 256).entropy()
    mean, spread = facts.irreducible
    assert float(entropy.mean()) == pytest.approx(mean, abs=0.005)
    assert float(entropy.std()) == pytest.approx(spread, abs=0.05)


def test_a_report_on_binarized_images_holds_their_entropy(data: Dataset, facts: Facts) -> None:
    """Independent pixels cost the known number of nats; what exceeds the entropy is ``structural``.

    The known number is an expectation over binarizations, ours one draw: a z-test.
    """
    bits = binarized(replace(data, train=data.train[:15_000], labels=None))
    assert bits.entropy_floor == pytest.approx(facts.irreducible[0], abs=0.005)
    baseline = pixel_histogram(bits.train, bits.test, 2)
    coins = BernoulliPixels(data.test, 256).entropy()
    report = Report.of_baseline(baseline, 784, Measure.MASS, bits)
    assert report.structural is not None
    assert report.structural.mean == pytest.approx(-report.value.mean - float(coins.mean()))
    # Learning 784 numbers from 15,000 images costs about 784 / 2 / 15,000 = 0.03 nats.
    assert abs(-report.value.mean - facts.pixelwise) < 4.9 * report.value.error
    assert_mean((bits.test - data.test / 255).double().flatten(1).mean(1), 0.0, name="bits")
