"""Plans and time budgets: a budget takes steps away, never adds any, and touches nothing else."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmod.compare.plan import Pace, Plan
from genmod.compare.shelf import Shelf
from genmod.compare.work import do
from genmod.data import conditional
from genmod.models import VAE
from genmod.nn import Labels
from genmod.objectives import Bound, WarmUp
from tests.compare.cases import PLAN, TINY, few, ignore, vae, work
from tests.compare.test_shelf import setting


@given(
    steps=st.integers(1, 100_000),
    seconds=st.floats(0.01, 10_000),
    step=st.floats(1e-4, 10),
    look=st.floats(0, 30),
)
def test_a_budget_is_used_and_kept(steps: int, seconds: float, step: float, look: float) -> None:
    """Either the plan is made whole, or its time is within one step of the budget (one step at least)."""
    plan = Plan(steps, warm=steps // 10)
    pace = Pace(step, look)
    fitted = plan.within(seconds, pace)
    assert 1 <= fitted.steps <= steps
    took = fitted.steps * step + plan.looks * look
    if fitted.steps > 1:
        assert took <= seconds * (1 + 1e-9)
    if fitted.steps < steps:
        assert took + step >= min(seconds, plan.looks * look + step) * (1 - 1e-9)
        assert abs(fitted.warm - plan.warm * fitted.steps / steps) <= 1
    else:
        assert fitted == plan
    assert asdict(fitted) | {"steps": 0, "warm": 0} == asdict(plan) | {"steps": 0, "warm": 0}


def test_effort_scales_the_steps_and_their_warm_up_alone() -> None:
    plan = Plan(1000, warm=100, learning_rate=3e-3)
    assert plan.times(0.25) == Plan(250, warm=25, learning_rate=3e-3)
    assert plan.times(1e-6) == Plan(1, warm=1, learning_rate=3e-3)
    assert Plan(1000).times(0.5).warm == 0
    assert isinstance(Plan(10).objective, Bound)
    objective = plan.objective
    assert isinstance(objective, WarmUp)
    assert objective.steps == 100


def test_measuring_a_pace_changes_neither_the_model_nor_the_noise() -> None:
    model = vae(setting())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    noise, training = torch.get_rng_state(), model.training
    began = time.perf_counter()
    pace = Pace.measure(model, PLAN, few(), seed=0)
    took = time.perf_counter() - began
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(noise, torch.get_rng_state())
    assert model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert 0 < pace.step < took
    assert 0 < pace.look < took


@pytest.mark.parametrize(("half", "chosen"), [(0.05, True), (0.095, False), (0.2, False)])
def test_half_precision_is_chosen_where_it_pays(
    half: float, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a twentieth: the clock is no surer than that."""

    def measure(model: object, plan: Plan, data: object, seed: int) -> Pace:
        return Pace(half if plan.autocast else 0.1, 1.0)

    monkeypatch.setattr(Pace, "measure", measure)
    plan, pace = Plan(10, autocast=None).settled(vae(setting()), few(), 0)
    assert plan == Plan(10, autocast=chosen)
    assert pace == Pace(half if chosen else 0.1, 1.0)
    for fixed in (False, True):
        assert Plan(10, autocast=fixed).settled(vae(setting()), few(), 0)[0].autocast is fixed


def test_only_some_of_the_validation_rows_are_looked_at_if_the_plan_says_so() -> None:
    data = few()
    assert Plan(1).looked_at(data) is data
    assert len(Plan(1, validated=5).looked_at(data).validation) == 5
    assert Plan(1, validated=500).looked_at(data) is data


def test_labels_that_models_are_told_are_cut_with_their_rows() -> None:
    """The part that is looked at, and the pace: a conditional model trains on conditional data."""
    data = conditional(few(), dropout=0.25)
    plan = replace(PLAN, validated=5)
    seen = plan.looked_at(data)
    assert seen.labels is not None
    assert data.labels is not None
    assert seen.context_dropout == 0.25
    assert torch.equal(seen.labels["validation"], data.labels["validation"][:5])
    assert torch.equal(seen.labels["train"], data.labels["train"])
    model = VAE((1, 8, 8), 17, latents=2, width=16, condition=Labels(10))
    pace = Pace.measure(model, plan, data, seed=0)
    assert pace.step > 0
    assert pace.look > 0
    steps = list(plan.fit(model, data, seed=0))
    assert len(steps) == plan.steps


def test_a_plan_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="steps >= 1"):
        Plan(0)


def test_a_budget_is_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on keeps the steps it began with, however fast the machine is by then."""
    monkeypatch.setattr(Pace, "measure", lambda model, plan, data, seed: Pace(0.5, 0.01))
    job = work(tmp_path, TINY[:1], minutes=0.1)
    with pytest.raises(KeyboardInterrupt):
        do(job, "autoencoder", few(), interrupt)
    record = Shelf(tmp_path).read(TINY[0], 1.0)
    assert record is not None
    assert record.plan == PLAN.times(11 / 40)  # (6 - 4 * 0.01) / 0.5
    monkeypatch.setattr(Pace, "measure", lambda model, plan, data, seed: Pace(1e-9, 0))
    do(job, "autoencoder", few(), ignore)
    again = Shelf(tmp_path).read(TINY[0], 1.0)
    assert again is not None
    assert again.plan == record.plan
    assert again.report is not None


def interrupt(event: object) -> None:
    """Ctrl-C at once."""
    raise KeyboardInterrupt
