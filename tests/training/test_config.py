"""The settings of a run: the curve of the learning rate."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields
from itertools import pairwise

import pytest
import torch

from genmod.training import fit, training_loop
from genmod.training.config import Cycle, TrainingConfig
from genmod.training.optimizer import learning_rate
from tests.training.cases import data, vae


def fractions(steps: int, warmup: int, decay: bool, count: int) -> list[float]:
    """The part of the peak rate that each of the first steps takes."""
    config = TrainingConfig(steps, warmup=warmup, decay=decay)
    return [learning_rate(config, Cycle(0, steps), step) for step in range(count)]


def test_the_ramp_is_straight_and_ends_at_the_peak() -> None:
    """After ``warmup`` steps the whole rate is taken, and never more; no step is a step of nothing."""
    found = fractions(50, 4, False, 8)
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0], rel=1e-15)
    assert fractions(50, 0, False, 1) == [1.0]


def test_the_cosine_is_half_way_down_in_the_middle_and_ends_at_nothing() -> None:
    """``(1 + cos(pi step / steps)) / 2``: point symmetric about the middle, falling."""
    found = fractions(100, 0, True, 101)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5, rel=1e-12)
    assert found[100] == pytest.approx(0.0, abs=1e-15)
    assert all(found[i] + found[100 - i] == pytest.approx(1.0) for i in range(50))
    assert all(later < earlier for earlier, later in pairwise(found))
    # Its mean is one half: as long a way as at half the rate.
    assert math.fsum(found[:100]) / 100 == pytest.approx(0.5 + 0.005, rel=1e-12)


def test_fit_steps_at_the_curves_rate() -> None:
    """The optimizer's rate at each step is the peak times the fraction."""
    model = vae()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    curve = fractions(10, 3, True, 10)
    for step in training_loop(
        model,
        data(),
        steps=10,
        batch_size=16,
        warmup=3,
        optimizer=optimizer,
        progress=False,
    ):
        expected = 0.02 * curve[step.number - 1]
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-15)


def test_an_optimizer_that_served_before_knows_its_peak() -> None:
    """The first run ends at a rate near nothing; the second begins at the whole rate again."""
    model = vae()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in range(2):
        rates = [
            optimizer.param_groups[0]["lr"]
            for _ in training_loop(
                model, data(), steps=5, warmup=0, optimizer=optimizer, progress=False
            )
        ]
        assert rates[0] == pytest.approx(0.02, rel=1e-15)
        assert rates[-1] < 0.1 * 0.02


def test_the_loop_takes_the_arguments_of_fit() -> None:
    """By place and by name, with the same defaults; a typo is an error at once."""
    shown = inspect.signature(training_loop)
    assert shown.parameters == inspect.signature(fit).parameters
    assert shown.return_annotation == "TrainingLoop"
    assert len(list(training_loop(vae(), data(), None, steps=2, progress=False))) == 2
    with pytest.raises(TypeError, match="stepz"):
        training_loop(vae(), data(), stepz=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="data"):
        training_loop(vae())  # type: ignore[call-arg]


def test_the_defaults_of_fit_are_those_of_the_settings() -> None:
    given = inspect.signature(fit).parameters
    for field in fields(TrainingConfig):
        assert given[field.name].default == field.default, field.name
