"""Flips and shifts: what they do to a row, to a mask, and to a resumed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.objectives import Batch
from genmod.training import fit, training_loop
from genmod.training.augment import Augmentation, Flip, Shift, Transform, augmented
from tests.training.cases import data, flat, split, vae

IMAGES = torch.arange(2 * 5 * 6).reshape(1, 2, 5, 6).expand(64, 2, 5, 6)


def test_a_flip_mirrors_about_half_of_the_rows() -> None:
    with random.keyed(0):
        found = Flip()(IMAGES)
    mirrored = (found == IMAGES.flip(-1)).flatten(1).all(1)
    same = (found == IMAGES).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert 16 < int(mirrored.sum()) < 48
    assert torch.equal(Flip(probability=1.0)(IMAGES), IMAGES.flip(-1))
    assert torch.equal(Flip(dim=-2, probability=1.0)(IMAGES), IMAGES.flip(-2))
    assert torch.equal(Flip(probability=0.0)(IMAGES), IMAGES)


def test_a_shift_moves_whole_rows_by_each_offset_and_repeats_the_border() -> None:
    """Every row is one of the 9 shifts by at most a pixel, each written out with slices."""
    with random.keyed(1):
        found = Shift(1)(IMAGES)

    def moved(x: Tensor, by: int, dim: int) -> Tensor:
        if by == 0:
            return x
        length = x.shape[dim]
        border = x.narrow(dim, length - 1 if by < 0 else 0, 1)
        rest = x.narrow(dim, max(0, -by), length - 1)
        return torch.cat([rest, border] if by < 0 else [border, rest], dim)

    one = IMAGES[:1]
    every = torch.cat([moved(moved(one, a, 2), b, 3) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    which = (found[:, None] == every[None]).flatten(2).all(2)
    assert bool((which.sum(1) == 1).all())
    assert bool(which.any(0).all()), "all nine occur"


def test_a_shift_is_uniform() -> None:
    """A chi-square test of 7 offsets in 7000 rows of one dimension."""
    x = torch.arange(9).expand(7000, 1, 9)
    with random.keyed(2):
        found = Shift(3, dims=1)(x)
    middle = found[:, 0, 4]  # 4 minus the offset
    counts = torch.stack([(middle == value).sum() for value in range(1, 8)]).double()
    assert int(counts.sum()) == 7000
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 40  # 6 degrees of freedom: p < 1e-6


def test_a_mask_moves_with_its_row() -> None:
    x = torch.randn(32, 1, 4, 4)
    observed = torch.rand(32, 1, 4, 4) > 0.3
    marked = torch.where(observed, x, 100.0)
    found = augmented(Batch(marked, observed=observed), [Flip(), Shift(1)], seed=3, step=5)
    assert found.observed is not None
    assert torch.equal(found.observed, found.x != 100.0)
    assert not torch.equal(found.observed, observed)


def test_each_step_draws_anew_and_a_resumed_run_draws_the_same(tmp_path: Path) -> None:
    batch = Batch(IMAGES)
    first, again, other = (augmented(batch, [Shift(2)], 0, step).x for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    settings: dict[str, Any] = {
        "steps": 6,
        "batch_size": 16,
        "checkpoint_every": 2,
        "progress": False,
    }
    whole, parts = vae(), vae()
    augment: list[Transform] = [Flip(), lambda_free]
    fit(whole, data(), augment=[Flip()], **settings)
    for step in training_loop(
        parts, data(), augment=[Flip()], checkpoint=tmp_path / "run", **settings
    ):
        if step.number == 4:
            break
    resumed = vae()
    fit(resumed, data(), augment=[Flip()], checkpoint=tmp_path / "run", **settings)
    assert torch.equal(flat(resumed), flat(whole))
    with pytest.raises(ValueError, match="augment"):
        fit(vae(), data(), augment=[Flip(probability=0.2)], checkpoint=tmp_path / "run", **settings)
    with pytest.raises(ValueError, match="lambda_free"):
        fit(vae(), data(), augment=augment, checkpoint=tmp_path / "new", **settings)


def lambda_free(x: Tensor) -> Tensor:
    """A function of one's own, which a checkpoint cannot name before it is registered."""
    return x


def test_training_rows_are_changed_and_validation_rows_are_not() -> None:
    class Zero(Augmentation):
        def __call__(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    model, seen = vae(), []
    hook = model.encoder.register_forward_pre_hook(lambda _m, given: seen.append(given[0]))
    fit(model, split(), augment=[Zero()], steps=1, batch_size=8, progress=False)
    hook.remove()
    assert bool((seen[0] == 0).all())
    assert torch.equal(seen[1].sort(0).values, data()[32:40].sort(0).values)


def test_values_of_a_function_of_ones_own_are_checked() -> None:
    with pytest.raises(ValueError, match="NaN"):
        fit(vae(), data(), augment=[lambda x: x / 0 * 0], steps=1, progress=False)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (lambda x: x[:, :2], r"expected a tensor of shape \(48, 3\)"),
        (lambda x: x.numpy(), "a ndarray from <lambda>"),
        (lambda x: x.half(), "torch.float16"),
        (Flip(dim=0), "dimension 0"),
        (Shift(1, dims=2), "dimension -2"),
    ],
)
def test_transforms_that_do_not_fit_are_refused(transform: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit(vae(), data(), augment=[transform], steps=1, progress=False)  # type: ignore[list-item]


def test_a_function_that_cannot_move_a_mask_is_refused() -> None:
    """Noise is added to the values of a row; of its mask it would make numbers."""
    batch = Batch(torch.zeros(4, 3), observed=torch.ones(4, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"torch\.bool; derive it from Augmentation"):
        augmented(batch, [lambda x: x + 0.1], seed=0, step=0)


def test_settings_out_of_range_are_refused() -> None:
    for build in (lambda: Flip(probability=2), lambda: Shift(0), lambda: Shift(1, dims=0)):
        with pytest.raises(ValueError, match="expected"):
            build()
