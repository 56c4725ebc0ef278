"""Candidates and suites: which models are trained, and the plan of each training."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmod.compare import Candidate
from genmod.compare.candidate import BuildInputs, Plan, Timing, check_suite, select
from genmod.compare.job import run
from genmod.compare.suites import DIGITS, IMAGES, QUICK, suite_for
from genmod.data import Dataset, conditional
from genmod.data.images import digits
from genmod.data.rows import dataset
from genmod.diffusion import LossAwareTimesteps, NoisingEncoder
from genmod.models import VAE, Diffusion
from genmod.nn import Labels
from genmod.objectives import Bound, WarmUp
from genmod.path import AutoTimesteps
from genmod.training import Muon, Step
from tests.compare.cases import PLAN, TINY, few, ignore, job, vae
from tests.compare.test_job import inputs


def images(side: int, bins: int) -> Dataset:
    """Images of noise."""
    return dataset(torch.randint(0, bins, (16, 1, side, side)), bins=bins)


def names(candidates: tuple[Candidate, ...] | list[Candidate]) -> list[str]:
    return [candidate.name for candidate in candidates]


def test_the_suite_suits_the_data() -> None:
    """Convolutions need some pixels a side; vectors have none."""
    assert suite_for(digits()) is DIGITS
    assert suite_for(images(28, 4)) is IMAGES
    assert suite_for(images(15, 4)) is DIGITS
    assert suite_for(dataset(torch.randint(0, 3, (20, 40)), bins=3)) is DIGITS
    assert names(list(DIGITS)) == names(list(IMAGES))
    assert suite_for(digits(), quick=True) is QUICK
    with pytest.raises(ValueError, match=r"got quick=True for images of shape \(1, 28, 28\)"):
        suite_for(images(28, 4), quick=True)
    assert names(QUICK) == ["VAE", "HVAE, top-down", "diffusion"]


@pytest.mark.parametrize("candidates", [DIGITS, IMAGES, QUICK], ids=["digits", "images", "quick"])
def test_a_suite_can_go_to_another_process(candidates: tuple[Candidate, ...]) -> None:
    check_suite(candidates)
    assert pickle.loads(pickle.dumps(candidates)) == candidates


@pytest.mark.parametrize("bins", [2, 256])
def test_every_candidate_is_built_for_gray_images_and_for_bits(bins: int) -> None:
    data = images(28, bins)
    inputs = BuildInputs(data, 0.01, {})
    for candidate in IMAGES:
        trained = {
            name: m.build(inputs) for m in IMAGES for name in candidate.after if m.name == name
        }
        model = candidate.build(BuildInputs(data, 0.01, trained))
        assert model.decoder.shape == (1, 28, 28)
        assert model.decoder.bins == bins


def test_gray_values_have_logistics_around_z_0_and_bits_a_noisier_end() -> None:
    candidate = next(each for each in IMAGES if each.name == "diffusion")
    for bins, clean in ((256, 7.0), (2, 2.5)):
        model = candidate.build(BuildInputs(images(28, bins), 0.01, {}))
        assert isinstance(model, Diffusion)
        assert isinstance(model.encoder, NoisingEncoder)
        assert model.encoder.schedule.log_snr_range()[0] == pytest.approx(clean)
        assert ("z_0 / alpha_0 + d_c(z_0)" in str(model)) == (bins == 256)


def test_a_diffusion_has_fewer_latents_at_a_fraction_of_the_effort() -> None:
    data = digits()
    latents = [BuildInputs(data, effort, {}).latents for effort in (2.0, 1.0, 0.5, 0.001)]
    assert latents == [1000, 1000, 500, 10]


def test_a_choice_includes_those_it_comes_after_and_keeps_the_order() -> None:
    assert names(select(TINY, None)) == names(TINY)
    assert names(select(TINY, ["latent diffusion"])) == ["VAE", "latent diffusion"]
    assert names(select(TINY, ["vae", "Autoencoder"])) == ["autoencoder", "VAE"]
    assert names(select(DIGITS, ["hvae-bottom-up"])) == ["HVAE, bottom-up"]
    with pytest.raises(
        ValueError, match=r"got model='gan'; expected one of 'autoencoder', 'vae', "
    ):
        select(TINY, ["VAE", "GAN"])
    with pytest.raises(ValueError, match=r"did you mean 'hvae-top-down'\?"):
        select(DIGITS, ["HVAE-topdown"])


def test_suites_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="'big vae' beside 'Big VAE'"):
        check_suite([Candidate("Big VAE", vae, PLAN), Candidate("big vae", vae, PLAN)])
    with pytest.raises(
        ValueError, match="'latent diffusion' with after='VAE'; expected the name of a candidate"
    ):
        check_suite(TINY[::-1][:1])
    with pytest.raises(ValueError, match="without candidates"):
        check_suite([])


@given(
    steps=st.integers(1, 100_000),
    seconds=st.floats(0.01, 10_000),
    step=st.floats(1e-4, 10),
    validation=st.floats(0, 30),
)
def test_a_budget_is_used_and_kept(
    steps: int, seconds: float, step: float, validation: float
) -> None:
    """Either the plan is made whole, or its time is within one step of the budget (one step at least)."""
    plan = Plan(steps, warm=steps // 10)
    timing = Timing(step, validation)
    fitted = plan.within_budget(seconds, timing)
    assert 1 <= fitted.steps <= steps
    took = fitted.steps * step + plan.validations * validation
    if fitted.steps > 1:
        assert took <= seconds * (1 + 1e-9)
    if fitted.steps < steps:
        assert took + step >= min(seconds, plan.validations * validation + step) * (1 - 1e-9)
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


def test_a_row_visits_one_level_a_step() -> None:
    """A diffusion that visited all levels would take as many passes through its network in each step."""
    assert Plan(10).objective.timesteps is AutoTimesteps.TRAINING
    assert Plan(10, warm=5).objective.timesteps is AutoTimesteps.TRAINING
    aware = Plan(10, loss_aware=True).objective.timesteps
    assert isinstance(aware, LossAwareTimesteps)
    assert aware.n == 1
    with pytest.raises(ValueError, match="loss_aware beside warm"):
        Plan(10, warm=5, loss_aware=True)


def test_a_plan_chooses_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.optim.Optimizer | None] = []

    def loop(*_: object, optimizer: torch.optim.Optimizer | None, **__: object) -> Iterator[Step]:
        chosen.append(optimizer)
        return iter(())

    monkeypatch.setattr("genmod.compare.candidate.training_loop", loop)
    for muon in (False, True):
        Plan(10, learning_rate=3e-3, weight_decay=0.2, muon=muon).fit(vae(inputs()), few(), 0)
    assert chosen[0] is None
    assert isinstance(chosen[1], Muon)
    settings = {(group["lr"], group["weight_decay"]) for group in chosen[1].param_groups}
    assert settings == {(3e-3, 0.2)}


def test_measuring_a_timing_changes_neither_the_model_nor_the_noise() -> None:
    model = vae(inputs())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    noise, training = torch.get_rng_state(), model.training
    began = time.perf_counter()
    timing = Timing.measure(model, PLAN, few(), seed=0)
    took = time.perf_counter() - began
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(noise, torch.get_rng_state())
    assert model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert 0 < timing.step < took
    assert 0 < timing.validation < took


@pytest.mark.parametrize(("half", "chosen"), [(0.05, True), (0.095, False), (0.2, False)])
def test_half_precision_is_the_default_where_it_is_faster(
    half: float, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a twentieth: the clock is no surer than that."""

    def measure(model: object, plan: Plan, data: object, seed: int) -> Timing:
        return Timing(half if plan.autocast else 0.1, 1.0)

    monkeypatch.setattr(Timing, "measure", measure)
    plan, timing = Plan(10, autocast=None).with_precision(vae(inputs()), few(), 0)
    assert plan == Plan(10, autocast=chosen)
    assert timing == Timing(half if chosen else 0.1, 1.0)
    for fixed in (False, True):
        assert Plan(10, autocast=fixed).with_precision(vae(inputs()), few(), 0)[0].autocast is fixed


def test_the_plan_limits_the_validation_rows() -> None:
    data = few()
    assert Plan(1).validated(data) is data
    assert len(Plan(1, validation_rows=5).validated(data).validation) == 5
    assert Plan(1, validation_rows=500).validated(data) is data


def test_labels_of_conditional_models_are_cut_with_their_rows() -> None:
    """The part that is looked at, and the timing: a conditional model trains on conditional data."""
    data = conditional(few(), dropout=0.25)
    plan = replace(PLAN, validation_rows=5)
    seen = plan.validated(data)
    assert seen.labels is not None
    assert data.labels is not None
    assert seen.context_dropout == 0.25
    assert torch.equal(seen.labels["validation"], data.labels["validation"][:5])
    assert torch.equal(seen.labels["train"], data.labels["train"])
    model = VAE((1, 8, 8), 17, latents=2, width=16, condition=Labels(10))
    timing = Timing.measure(model, plan, data, seed=0)
    assert timing.step > 0
    assert timing.validation > 0
    steps = list(plan.fit(model, data, seed=0))
    assert len(steps) == plan.steps


def test_a_plan_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"steps=.*at least 1"):
        Plan(0)


def test_a_budget_is_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on keeps the steps it began with, however fast the machine is by then."""
    monkeypatch.setattr(Timing, "measure", lambda model, plan, data, seed: Timing(0.5, 0.01))
    work = job(tmp_path, TINY[:1], minutes=0.1)
    with pytest.raises(KeyboardInterrupt):
        run(work, "autoencoder", few(), interrupt)
    record = work.folder.read(TINY[0])
    assert record is not None
    assert record.plan == PLAN.times(11 / 40)  # (6 - 4 * 0.01) / 0.5
    monkeypatch.setattr(Timing, "measure", lambda model, plan, data, seed: Timing(1e-9, 0))
    run(work, "autoencoder", few(), ignore)
    again = work.folder.read(TINY[0])
    assert again is not None
    assert again.plan == record.plan
    assert again.report is not None


def interrupt(event: object) -> None:
    """Ctrl-C at once."""
    raise KeyboardInterrupt
