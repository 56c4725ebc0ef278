"""What evaluation takes and what it refuses: broken networks, arrays, bytes, ids that are no numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genmod.data.images import digits
from genmod.evaluation import (
    features,
    flow_bound,
    flow_density,
    frechet_distance,
    immse,
    log_weights,
    profile,
    quality,
    refinement,
    score,
)
from genmod.evaluation.baselines import gaussian, pixel_histogram, ppca
from genmod.model import LatentModel
from genmod.models import Diffusion
from genmod.samplers import DPMSolver, UniformTime
from genmod.schedules import LinearLogSNR

pytestmark = pytest.mark.usefixtures("as_users_run")

CALLS: dict[str, Callable[[LatentModel, Tensor], object]] = {
    "score": lambda model, x: score(model, x, timesteps=2),
    "log_weights": lambda model, x: log_weights(model, x, importance_samples=1),
    "profile": lambda model, x: profile(model, x, timesteps=2),
    "immse": lambda model, x: immse(model, x, timesteps=2),
    "refinement": lambda model, x: refinement(model, x),
    "flow_density": lambda model, x: flow_density(model, x.float(), steps=2, probes=2),
    "flow_bound": lambda model, x: flow_bound(model, x, steps=2, probes=2),
}


@pytest.mark.parametrize("name", CALLS)
def test_numbers_of_a_diverged_network_are_refused(name: str) -> None:
    """NaN has no stamp: each measure refuses it and states in how many rows it is."""
    model, x = Diffusion((4,), bins=17, width=8, steps=5), torch.randint(0, 17, (9, 4))
    CALLS[name](model, x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"NaN or infinite in 9 of 9 rows; expected finite"):
        CALLS[name](model, x)


@pytest.mark.parametrize("ids", [[0.5, 1.0], [1.0, 2.0], [True, False]], ids=str)
def test_ids_are_whole_numbers(ids: Any) -> None:
    """A fraction would be cut off, and two rows would share their noise."""
    model, x = Diffusion(2, width=8, steps=3), torch.randn(2, 2)
    with pytest.raises(ValueError, match=r"got ids of type .*; expected whole numbers"):
        score(model, x, ids=ids)
    expected = score(model, x, ids=[7, 3]).value
    same: Any
    for same in (np.array([7, 3]), torch.tensor([7, 3]).to(torch.uint8), (7, 3)):
        assert torch.equal(score(model, x, ids=same).value, expected)


COUNTED: dict[str, Callable[[Diffusion, Tensor, Any], object]] = {
    "timesteps": lambda model, x, n: score(model, x, timesteps=n).value,
    "profile": lambda model, x, n: profile(model, x, timesteps=n).nats,
    "immse": lambda model, x, n: immse(model, x, timesteps=n).value,
    "importance_samples": lambda model, x, n: log_weights(model, x, importance_samples=n),
    "flow": lambda model, x, n: flow_density(model, x, steps=n, probes=n).nats,
    "batch_size": lambda model, x, n: score(model, x, batch_size=n).value,
    "seed": lambda model, x, n: score(model, x, seed=n).value,
    "seed of immse": lambda model, x, n: immse(model, x, timesteps=1, seed=n).value,
    "seed of weights": lambda model, x, n: log_weights(model, x, importance_samples=1, seed=n),
    "seed of a baseline": lambda model, x, n: (
        gaussian(x.round() + 9, x.round() + 9, 20, n).log_prob
    ),
    "sampler": lambda model, x, n: DPMSolver(order=n),
    "grid": lambda model, x, n: UniformTime().times(LinearLogSNR(), n),
    "chain": lambda model, x, n: Diffusion(2, width=8, steps=n),
}


@pytest.mark.parametrize("name", COUNTED)
def test_counts_and_seeds_are_whole_numbers_of_any_library(name: str) -> None:
    """``timesteps=2.5`` gave levels of a weight that makes the sum 20 % too small, without an error."""
    model, x = Diffusion(2, width=8, steps=5), torch.randn(8, 2)
    number: Any
    for number in (2, np.int64(2), torch.tensor(2)):
        expected, found = (str(COUNTED[name](model, x, n)) for n in (2, number))
        assert found == expected
    for number in (2.5, 2.0, "2"):
        with pytest.raises(ValueError, match=rf"got \w+={number!r}; expected a whole number"):
            COUNTED[name](model, x, number)


def test_baselines_and_distances_take_arrays_and_lists() -> None:
    """The same numbers as of tensors."""
    real, whole = torch.randn(40, 3), torch.randint(0, 5, (40, 3))
    for fit in (
        lambda x: gaussian(x, x, None).log_prob,
        lambda x: ppca(x, x, None, 1).log_prob,
    ):
        torch.testing.assert_close(fit(real.numpy()), fit(real))
    rows: Any
    for rows in (whole.numpy(), whole.tolist(), whole.numpy().astype(np.uint8), whole.double()):
        expected = pixel_histogram(whole, whole, 5).log_prob
        assert torch.equal(pixel_histogram(rows, rows, 5).log_prob, expected)
    distance = frechet_distance(real.numpy(), real.numpy() + 1)
    assert distance == pytest.approx(3, abs=1e-5)


def test_images_are_taken_from_any_container() -> None:
    """As arrays, as bytes, in double precision: one quality; without channels they are refused."""
    data = digits()
    images = data.train[:140]
    expected = quality(images, data)
    same: Any
    for same in (images.numpy(), images.to(torch.uint8), images.double(), images.numpy().tolist()):
        assert quality(same, data) == expected
    gray = images.float() / 16
    torch.testing.assert_close(features(gray.numpy()), features(gray))
    with pytest.raises(ValueError, match=r"expected .*\(N?B?, 1, "):
        quality(images[:, 0], data)
    with pytest.raises(ValueError, match="gray images"):
        features(gray[:, 0])
