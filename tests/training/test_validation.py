"""Validation: which rows it scores, what it costs beside training, and that a run keeps to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmod.data import Dataset, conditional
from genmod.evaluation import log_weights, score
from genmod.model import LatentModel
from genmod.models import Diffusion
from genmod.nn import Labels
from genmod.objectives import IWAE, Bound, WarmUp
from genmod.objectives.importance import importance_bound
from genmod.objectives.pairs import ObjectivePairs
from genmod.training import fit, training_loop
from genmod.training.config import VALIDATION_ROWS, VALIDATION_SHARE, Cycle, TrainingConfig
from genmod.training.validation import SEED, HeldOut, validate
from tests.oracles_vae import ppca
from tests.training.cases import data, diffusion, flat, vae

pytestmark = pytest.mark.usefixtures("float64")


def parts(held_out: int) -> Dataset:
    """Forty rows to train on, and a validation part whose rows grow with their index."""
    x = data(40 + held_out)
    x[40:] *= torch.linspace(0.1, 3, held_out)[:, None]
    return Dataset("rows", x[:40], x[40:], x[:0])


@pytest.mark.parametrize("steps", [1000, 2000, 50_000])
@pytest.mark.parametrize("timesteps", [1, 8])
def test_validation_costs_at_most_its_share_of_training(steps: int, timesteps: int) -> None:
    """In forward passes, of which a step of training is worth three a row; MNIST's 5,000 rows."""
    rows = TrainingConfig(steps=steps).scored_rows(5000, Cycle(0, steps), 128, timesteps)
    assert rows > VALIDATION_ROWS
    share = 20 * timesteps / (3 * 128 * steps)
    assert rows * share <= VALIDATION_SHARE + 1e-9
    assert rows == 5000 or (rows + 1) * share > VALIDATION_SHARE


def test_the_rows_that_networks_see_keep_to_the_share() -> None:
    """Counted in a run: rows times levels in validation against rows in training."""
    seen: Counter[bool] = Counter()
    model = diffusion()

    def count(module: nn.Module, given: tuple[Tensor, ...], out: object) -> None:
        seen[module.training] += len(given[0])

    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    last.register_forward_hook(count)
    settings: dict[str, Any] = {"validate_every": 10, "validation_timesteps": 1}
    fit(model, parts(1000), steps=100, batch_size=40, progress=False, **settings)
    # Each row is denoised at one level, and at the clean end for the decoder.
    assert seen[True] == 100 * 40 * 2
    assert 0.9 < seen[False] / (VALIDATION_SHARE * 3 * seen[True]) < 1.001


def test_a_small_validation_part_is_scored_whole() -> None:
    model, x = vae(), data(VALIDATION_ROWS)
    rows = TrainingConfig(steps=1).scored_rows(len(x), Cycle(0, 1), 1, 8)
    found = validate(model, HeldOut.sample(x, None, rows), 0)
    assert found.nats == float(score(model, x, seed=SEED).value.mean())
    assert (found.rows, found.total) == (len(x), len(x))


def test_a_sample_of_rows_has_the_scores_that_it_has_in_the_whole() -> None:
    """The noise of a row depends on where it stands in the part, so nothing else changes."""
    model, x = diffusion(), parts(300).validation
    held_out = HeldOut.sample(x, None, 100)
    whole = score(model, x, timesteps=8, seed=SEED).value[held_out.ids]
    assert validate(model, held_out, 0).nats == pytest.approx(float(whole.mean()), rel=1e-12)
    assert len(set(held_out.ids.tolist())) == 100
    # Drawn from the whole part: its rows grow with their index, and the first hundred are small.
    assert 0.8 < float(held_out.x.std() / x.std()) < 1.25
    assert torch.equal(held_out.ids, HeldOut.sample(x, None, 100).ids)


def test_the_rows_keep_their_contexts() -> None:
    labels = torch.arange(300)
    held_out = HeldOut.sample(parts(300).validation, labels, 20)
    assert held_out.context is not None
    assert torch.equal(held_out.context, held_out.ids)
    torch.manual_seed(7)
    model = Diffusion(3, width=16, depth=1, condition=Labels(3))
    named = {"train": torch.arange(40) % 3, "validation": labels % 3, "test": labels[:0]}
    x = parts(300)
    told = conditional(Dataset("rows", x.train, x.validation, x.test, labels=named))
    found = fit(model, told, steps=2, validation_rows=20, progress=False).validations
    assert [v.rows for v in found] == [20, 20]


@pytest.mark.parametrize("build", [vae, diffusion])
def test_a_resumed_run_scores_the_same_rows(
    build: Callable[[], LatentModel], tmp_path: Path
) -> None:
    """Bit for bit what an uninterrupted run finds."""
    x, path = parts(400), tmp_path / "run"
    models = [build(), build(), build()]
    settings: dict[str, Any] = {"steps": 6, "batch_size": 16, "progress": False}
    expected = fit(models[0], x, **settings)
    for step in training_loop(models[1], x, checkpoint=path, checkpoint_every=2, **settings):
        if step.number == 4:
            break
    found = fit(models[2], x, checkpoint=path, checkpoint_every=2, **settings)
    assert [*found.validations] == [*expected.validations]
    assert {v.rows for v in found.validations} == {VALIDATION_ROWS}
    assert torch.equal(flat(models[0]), flat(models[2]))


def test_a_longer_leg_scores_the_rows_of_the_first(tmp_path: Path) -> None:
    """Otherwise the best of two cycles would be the one with the easier rows."""
    x, path = parts(400), tmp_path / "run"
    settings: dict[str, Any] = {"batch_size": 40, "progress": False, "checkpoint": path}
    fit(vae(), x, steps=4, **settings)
    assert TrainingConfig(steps=240).scored_rows(400, Cycle(0, 240), 40, 1) > VALIDATION_ROWS
    longer = fit(vae(), x, steps=240, **settings)
    assert {v.rows for v in longer.validations} == {VALIDATION_ROWS}


def test_importance_weighted_training_is_validated_by_the_bound_that_it_raises() -> None:
    """That of K draws chooses the best weights; the plain bound is printed, and is what it was."""
    x = parts(20)
    model, kept = vae(), vae()
    weighted = fit(model, x, IWAE(5), steps=6, batch_size=16, validate_every=2, progress=False)
    last = weighted.validations[-1]
    assert weighted.best == max(weighted.validations, key=lambda v: v.score)
    # The model holds the weights of the best validation: both of its numbers are found again.
    best = weighted.best
    assert best is not None
    log_w = log_weights(model, x.validation, importance_samples=5, seed=SEED)
    assert best.score == best.weighted == pytest.approx(float(importance_bound(log_w.T).mean()))
    assert best.nats == pytest.approx(float(score(model, x.validation, seed=SEED).value.mean()))
    assert f"{last.nats:.2f}" in str(weighted)
    assert f"(IW-5 {last.score:.2f})" in str(weighted)
    assert max(map(len, str(weighted).splitlines())) <= 80
    # Where no importance-weighted bound is trained, the two are one number.
    plain = fit(kept, x, IWAE(1), steps=2, batch_size=16, progress=False).validations[-1]
    assert (plain.weighted, plain.score) == (None, plain.nats)
    assert "IW" not in str(plain)


def test_with_the_exact_posterior_the_score_is_the_likelihood() -> None:
    """Every weight is p(x): at any K the score is the mean log-likelihood."""
    oracle = ppca()
    x = oracle.law.sample((30,))
    model = oracle.model(oracle.diagonal())
    found = validate(model, HeldOut.sample(x, None, len(x)), 0, samples=4)
    assert found.weighted == pytest.approx(float(oracle.law.log_prob(x).mean()), abs=1e-9)


def test_objectives_in_a_wrapper_are_asked() -> None:
    """How long the loss changes, and by how many draws a validation is scored."""
    model = vae()
    apart = ObjectivePairs([(WarmUp(30), model.encoder), (IWAE(7), model.decoder)], model)
    assert (apart.warmup_steps, apart.validation_samples) == (30, 7)
    assert (Bound().warmup_steps, Bound().validation_samples) == (0, 1)


def test_the_number_of_rows_can_be_chosen_and_is_printed() -> None:
    history = fit(vae(), parts(400), steps=4, batch_size=16, validation_rows=30, progress=False)
    assert [v.rows for v in history.validations] == [30] * 4
    assert "validation (30 of 400 rows)" in str(history)
    assert max(map(len, str(history).splitlines())) <= 80
    history = fit(vae(), parts(400), steps=2, validation_rows=1000, progress=False)
    assert [v.rows for v in history.validations] == [400] * 2
    assert "rows)" not in str(history)
