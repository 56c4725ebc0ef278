"""Gradients that are added up over several batches are those of one large batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from genmod.data import GivenRows
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion
from genmod.nn import Labels
from genmod.objectives import Batch, Bound, Objective
from genmod.path import Path as LatentPath
from genmod.spec import DataSpec
from genmod.training import fit, training_loop
from tests.training.cases import data, diffusion, flat, vae

PLAIN: dict[str, Any] = {"warmup": 0, "ema": 0.0, "steps": 3, "progress": False}


class Weights(Objective):
    """The importance-weighted bound of three draws."""

    samples = 3
    needs_path = True

    def loss(self, elbo: ELBO, path: LatentPath | None, batch: Batch) -> Tensor:
        """Minus the mean of the log of the mean weight, up to a constant."""
        assert path is not None
        return -path.log_weight().logsumexp(0).mean()


def hvae() -> LatentModel:
    """A small hierarchy."""
    torch.manual_seed(7)
    return HVAE(3, latents=(2, 2), inference="top-down", width=8)


def steps() -> LatentModel:
    """A small diffusion of five steps."""
    torch.manual_seed(7)
    return Diffusion(3, steps=5, width=16, depth=1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("build", [vae, diffusion, steps, hvae])
@pytest.mark.parametrize("objective", [Bound, Weights])
def test_four_batches_of_eight_are_one_of_thirty_two(build: Any, objective: Any) -> None:
    """Losses, weights and the bound of each row: the noise of a row is that of the large batch.

    Sign flipped: ``rows / total`` in ``Run._shared_gradient`` (left out).
    """
    if objective is Weights and build is diffusion:
        pytest.skip("a path has finitely many latents")
    given = objective()
    found = []
    both: list[dict[str, Any]] = [{"batch_size": 8, "accumulate": 4}, {"batch_size": 32}]
    for settings in both:
        model = build()
        done = list(training_loop(model, data(), given, **settings, **PLAIN))
        found.append((flat(model), torch.stack([step.elbo.value for step in done])))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_a_rest_of_other_length_counts_by_its_rows() -> None:
    """48 rows in batches of 20: pieces of 16; and a loader of batches of 20, 20 and 8 rows."""
    x, weights = data(), []
    pieces = [x[:20], x[20:40], x[40:]]
    runs: list[tuple[object, dict[str, Any]]] = [
        (pieces, {"accumulate": 3}),
        ([x], {}),
        (x, {"batch_size": 20, "accumulate": 3}),
        (x, {"batch_size": 48}),
    ]
    for given, settings in runs:
        model = vae()
        fit(model, given, **settings, **PLAIN)
        weights.append(flat(model))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(weights[2], weights[3], rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_masks_and_labels_go_with_their_rows() -> None:
    """A conditional VAE on rows with holes."""
    x, weights = data(), []
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.3
    observed[:, 0] = True
    rows = GivenRows(x.where(observed, 0.0), torch.arange(48) % 3, observed)
    spec = DataSpec((3,), missing=True)
    runs: list[dict[str, Any]] = [{"batch_size": 8, "accumulate": 2}, {"batch_size": 16}]
    for settings in runs:
        torch.manual_seed(7)
        model = VAE(spec, latents=2, width=8, condition=Labels(3))
        fit(model, rows, **settings, **PLAIN)
        weights.append(flat(model))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-9, atol=1e-10)


def test_dropout_differs_from_piece_to_piece() -> None:
    """Each piece draws anew: equal rows in two pieces do not lose the same entries."""
    x = data()[:1].expand(4, 3).contiguous()
    model = vae(dropout=0.5, width=64)
    seen: list[Tensor] = []
    hook = model.encoder.register_forward_hook(lambda _m, _i, law: seen.append(law.mean.detach()))
    fit(model, [x, x], steps=2, accumulate=2, warmup=0, progress=False)
    hook.remove()
    # Blocks may start as the identity: then dropout acts from the second step on.
    assert len(seen) == 4
    assert not torch.equal(seen[2], seen[3])


def test_a_step_sees_all_rows_and_accumulate_is_a_whole_number() -> None:
    (step,) = training_loop(vae(), data(), batch_size=8, accumulate=3, steps=1, progress=False)
    assert len(step.elbo.value) == 24
    with pytest.raises(ValueError, match="accumulate=0; expected at least 1"):
        fit(vae(), data(), accumulate=0, progress=False)
