r"""The network of features: the file it claims to be, distances with their closed forms, real images."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genmod.data import Dataset
from genmod.data.images import digits
from genmod.data.rows import dataset
from genmod.evaluation import features, frechet_distance, perception, quality
from genmod.evaluation.perception import (
    CLASSES,
    DIMS,
    FILE,
    SHA256,
    class_log_probs,
    resized,
)
from genmod.evaluation.sample_quality import class_score, extrapolated_distance
from genmod.models import VAE, Diffusion


def small() -> Dataset:
    """The small digits."""
    return digits()


def gray(data: Dataset, part: Tensor) -> Tensor:
    """Integers as gray in [0, 1]."""
    assert data.bins is not None
    return part.float() / (data.bins - 1)


# ---------------------------------------------------------------------- the network


def test_the_file_is_the_one_it_claims_to_be() -> None:
    """Well under half a megabyte, its hash written in the code and checked on loading."""
    content = (Path(perception.__file__).parent / FILE).read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256
    assert len(content) < 450_000


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perception, "SHA256", "0" * 64)
    perception.network.cache_clear()
    with pytest.raises(ValueError, match="weights with SHA-256"):
        features(torch.rand(1, 1, 28, 28))
    perception.network.cache_clear()


def test_features_are_the_same_however_images_are_cut() -> None:
    """And leave no gradient behind."""
    x = torch.rand(600, 1, 28, 28)
    found = features(x)
    assert found.shape == (600, DIMS)
    assert found.dtype is torch.float64
    assert torch.equal(found, features(x))
    torch.testing.assert_close(found[7:9], features(x[7:9]), rtol=1e-4, atol=1e-4)
    assert not found.requires_grad


def test_small_images_are_enlarged() -> None:
    """A constant stays one; the middle of an edge is its mean."""
    x = torch.zeros(1, 1, 8, 8)
    x[..., 4:] = 1
    large = resized(x)
    assert large.shape == (1, 1, 28, 28)
    torch.testing.assert_close(large[..., 13:15].mean(), torch.tensor(0.5))
    torch.testing.assert_close(resized(torch.full((1, 1, 5, 9), 0.3)), torch.full_like(large, 0.3))


def test_it_reads_small_digits() -> None:
    """On the test part that its training has not seen; and finds nearly ten classes there."""
    data = small()
    assert data.labels is not None
    found = features(gray(data, data.test))
    right = class_log_probs(found).argmax(1) == data.labels["test"]
    assert float(right.double().mean()) > 0.95
    assert 8.5 < class_score(found) < 10.5


# ---------------------------------------------------------------------- distances


def test_the_distance_of_a_set_from_itself_is_zero_and_from_a_shifted_one_the_shift() -> None:
    a = torch.randn(300, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-20)
    assert frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-10)
    shift = torch.arange(5.0, dtype=torch.float64)
    assert frechet_distance(a, a + shift) == pytest.approx(30.0)
    spread = a.var(0).sum()
    assert frechet_distance(a, 3 * (a - a.mean(0)) + a.mean(0)) == pytest.approx(4 * float(spread))


def test_the_distance_is_dowson_and_landau_s() -> None:
    """Against roots of matrices, also where one set does not vary at all."""
    mix = torch.randn(2, 4, 4, dtype=torch.float64)
    a, b = (torch.randn(500, 4, dtype=torch.float64) @ each for each in mix)

    def root(s: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(s)
        return (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    s_a, s_b = a.T.cov(), b.T.cov()
    cross = root(root(s_a) @ s_b @ root(s_a)).trace()
    expected = (a.mean(0) - b.mean(0)).square().sum() + s_a.trace() + s_b.trace() - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(float(expected))
    point = torch.zeros_like(a)
    assert frechet_distance(a, point) == pytest.approx(
        float(a.mean(0).square().sum() + s_a.trace())
    )


def test_few_rows_bias_the_distance_and_extrapolation_removes_the_bias() -> None:
    """Two sets of one law: the distance is all bias, the extrapolated one near zero in the mean."""
    generator = torch.Generator().manual_seed(1)
    pairs = [torch.randn(2, 200, 10, generator=generator, dtype=torch.float64) for _ in range(100)]
    plain = torch.tensor([frechet_distance(*pair) for pair in pairs])
    better = torch.tensor([extrapolated_distance(*pair) for pair in pairs])
    assert float(plain.mean()) > 0.1
    assert abs(float(better.mean())) < 0.1 * float(plain.mean())


def test_the_distance_grows_with_noise_and_blur() -> None:
    """Half of the small digits against the other, bare and spoiled."""
    data = small()
    real = gray(data, data.train)
    half, other = features(real[::2]), real[1::2]
    bare = frechet_distance(half, features(other))
    noise = torch.randn(other.shape)
    noisy = [
        frechet_distance(half, features((other + s * noise).clamp(0, 1))) for s in (0.1, 0.2, 0.4)
    ]
    assert bare < noisy[0] < noisy[1] < noisy[2]
    kernels = [torch.ones(1, 1, side, side) / side**2 for side in (3, 5)]
    blurred = [
        frechet_distance(half, features(torch.conv2d(other, k, padding="same").clamp(0, 1)))
        for k in kernels
    ]
    assert 2 * bare < blurred[0] < blurred[1]


def test_a_class_score_counts_classes() -> None:
    """One for images all alike; the number of classes for features that are sure of each."""
    assert class_score(torch.randn(1, DIMS).expand(50, DIMS)) == pytest.approx(1.0)
    data = small()
    assert data.labels is not None
    found = features(gray(data, data.train))
    three = found[(data.labels["train"] < 3)]
    assert 2.5 < class_score(three) < 3.3
    assert class_score(three) < class_score(found) < CLASSES


# ---------------------------------------------------------------------- one call


def test_one_call_gives_every_sample_quality_number() -> None:
    """An untrained model is far from the digits; real ones are near, and the report holds both."""
    data = small()
    model = VAE(data.shape, data.bins, latents=2, width=8)
    found = quality(model, data, n=300, seed=3)
    assert found == quality(model, data, n=300, seed=3)
    text = str(found)
    assert "N = 300 against 300 test images" in text
    assert SHA256[:12] in text
    assert f"real against real {found.zero:.2f}" in text
    assert found.frechet > 10 * found.zero
    assert found.to_dict()["sha256"] == SHA256
    real = quality(data.train[:300], data, name="train")
    assert real.frechet < 3 * real.zero
    assert real.real_classes > 8


def test_a_model_and_the_zero_of_the_scale_are_measured_at_one_number_of_images() -> None:
    """With more samples than other real images: real rows themselves are as far as the zero says.

    Measured at 2000 and 1438 images, real rows came out 7 % nearer than "perfect" ones.
    """
    data = small()
    others = torch.cat([data.validation, data.train])
    again = quality(torch.cat([others, others])[:2000], data)
    assert (again.samples, again.drawn) == (len(others), 2000)
    assert f"N = {len(others)} of 2000 samples" in str(again)
    fewer = quality(others[:300], data)
    assert (fewer.samples, fewer.drawn) == (300, 300)
    order = torch.randperm(len(data.validation), generator=torch.Generator().manual_seed(0))
    real = quality(torch.cat([data.validation[order], data.train]), data)
    assert real.frechet == pytest.approx(real.zero, rel=1e-6)


def test_few_images_have_no_extrapolation_and_too_few_no_distance() -> None:
    data = small()
    assert math.isnan(quality(data.validation[:100], data).extrapolated)
    with pytest.raises(ValueError, match="20 samples and"):
        quality(data.validation[:20], data)


@pytest.mark.usefixtures("as_users_run")
def test_features_and_scores_refuse_bad_images_and_shapes() -> None:
    for images, said in (
        (torch.rand(3, 3, 28, 28), "gray images"),
        (torch.zeros(3, 1, 28, 28, dtype=torch.long), "floating point images in"),
        (2 * torch.rand(3, 1, 28, 28), "gray values in"),
        (torch.full((1, 1, 28, 28), torch.nan), "NaN"),
    ):
        with pytest.raises(ValueError, match=said):
            features(images)
    with pytest.raises(ValueError, match="features of shapes"):
        frechet_distance(torch.randn(9, 2), torch.randn(9, 3))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(torch.full((9, 2), torch.nan), torch.randn(9, 2))
    with pytest.raises(ValueError, match="features of shape"):
        class_score(torch.randn(9))
    with pytest.raises(ValueError, match=r"expected \(N, 64\)"):
        class_score(torch.randn(9, 32))
    plane = dataset(torch.randn(200, 1, 8, 8), name="reals")
    with pytest.raises(ValueError, match="got reals with bins=None"):
        quality(plane.test, plane)
    data = small()
    with pytest.raises(ValueError, match="0 samples"):
        quality(Diffusion(data.shape, data.bins, width=8), data, 0)
    settings = {"n": 5, "context": data.test[:3], "seed": 1, "batch_size": 2}
    for name, value in settings.items():
        idle: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"got {name} beside samples"):
            quality(data.validation, data, **idle)
    with pytest.raises(ValueError, match="1 rows of context for n=70"):
        quality(Diffusion(data.shape, data.bins, width=8), data, 70, torch.zeros(1, 2))
