"""Early stopping: by the validation bound, after the warm-up, and once for all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from genmod.elbo import Measure
from genmod.objectives import Bound, WarmUp, Weighted
from genmod.training import fit, training_loop
from genmod.training.config import TrainingConfig
from genmod.training.state import TrainingState
from genmod.training.validation import Validation
from tests.training.cases import data, flat, split, vae, whole


def state(nats: list[float], patience: int = 2, warmup: int = 0) -> TrainingState:
    """A state with a validation at each step."""
    model = vae()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    objective = WarmUp(warmup) if warmup else Bound()
    found = TrainingState(
        whole(model, objective), optimizer, TrainingConfig(100, patience=patience)
    )
    found.validations = [Validation(i + 1, v, 3, Measure.DENSITY) for i, v in enumerate(nats)]
    return found


@pytest.mark.parametrize(
    ("nats", "stopped"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, 0.5], False),
        ([1.0, 0.5, 0.9], True),
        ([1.0, 0.5, 1.1], False),
        ([1.0, 0.5, 1.0], False),  # as good as the best: it waits on
        ([0.0, 1.0, 2.0, 3.0], False),
        ([1.0, math.nan, 0.5], False),
        ([1.0, math.nan, 0.5, 0.7], True),
    ],
)
def test_it_counts_validations_after_the_best(nats: list[float], stopped: bool) -> None:
    assert state(nats).stopped is stopped


def test_validations_of_the_warm_up_do_not_count() -> None:
    """The bound falls while the weight of the rates rises, and then recovers."""
    falling = [5.0, 4.0, 3.0, 2.0]
    assert state(falling).stopped
    assert not state(falling, warmup=4).stopped
    assert not state([*falling, 2.5, 2.4], warmup=4).stopped
    assert state([*falling, 2.5, 2.4, 2.3], warmup=4).stopped


def test_a_wrapper_has_the_warm_up_of_what_it_wraps() -> None:
    from genmod.objectives import LearnedSchedule

    assert WarmUp(7).warmup_steps == 7
    assert LearnedSchedule(Weighted(torch.sigmoid)).warmup_steps == 0


SETTINGS: dict[str, Any] = {
    "steps": 200,
    "batch_size": 16,
    "validate_every": 2,
    "patience": 2,
    "warmup": 0,
    "learning_rate": 0.5,  # far too large: the bound soon falls
    "decay": False,
    "clip": None,
    "ema": 0.0,
    "progress": False,
}


def test_a_run_stops_and_holds_its_best_weights() -> None:
    model = vae()
    history = fit(model, split(), **SETTINGS)
    assert history.stopped
    made = len(history.losses)
    assert made < 200
    best = history.best
    assert best is not None
    assert best.step == made - 2 * 2
    assert f"{made} of 200 steps, stopped early" in repr(history)
    assert "stopped early" in str(history).splitlines()[0]
    other = vae()
    for step in training_loop(other, split(), **{**SETTINGS, "patience": None}):
        if step.number == best.step:
            torch.testing.assert_close(flat(step.averaged), flat(model), rtol=0, atol=0)
            break


def test_a_stopped_run_is_done_when_it_is_resumed(tmp_path: Path) -> None:
    first = fit(vae(), split(), checkpoint=tmp_path / "run", **SETTINGS)
    model = vae()
    again = fit(model, split(), checkpoint=tmp_path / "run", **SETTINGS)
    assert (again.losses, again.stopped) == (first.losses, True)
    patient = fit(vae(), split(), checkpoint=tmp_path / "run", **{**SETTINGS, "patience": 3})
    assert len(patient.losses) > len(first.losses)
    assert patient.losses[: len(first.losses)] == first.losses


def test_it_needs_validation_data() -> None:
    with pytest.raises(ValueError, match="patience=2 for data without a validation part"):
        fit(vae(), data(), patience=2, progress=False)
    with pytest.raises(ValueError, match="patience=0; expected at least 1"):
        fit(vae(), split(), patience=0, progress=False)
