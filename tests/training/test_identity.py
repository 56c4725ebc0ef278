"""A checkpoint continues the run that it was made by, and no other; more steps are another cycle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmod import decoders, encoders, register
from genmod.data import Dataset, binarized, conditional
from genmod.data.binarized import BernoulliPixels
from genmod.data.images import digits
from genmod.decoders.likelihoods import FixedScale
from genmod.diffusion.timesteps import LossAwareTimesteps
from genmod.distributions import Normal
from genmod.model import LatentModel, load
from genmod.models import HVAE, VAE, Diffusion, Inference
from genmod.nn import Labels
from genmod.objectives import (
    Beta,
    Bound,
    LearnedSchedule,
    MinSNR,
    Objective,
    WarmUp,
    Weighted,
)
from genmod.priors import MixturePrior
from genmod.schedules import Cosine, LinearBeta, LinearLogSNR, MonotoneNetwork
from genmod.training import fit, training_loop
from tests.training.cases import data, flat, vae

pytestmark = pytest.mark.usefixtures("float64")

X = data(48)


def rows(x: Tensor = X, validation: Tensor | None = None, **more: Any) -> Dataset:
    """A small data set with a validation part."""
    held_out = x[40:] if validation is None else validation
    return Dataset("rows", x[:40], held_out, x[:0], **more)


def begin(path: Path, model: LatentModel, data: Any = None, **settings: Any) -> None:
    """The first steps of a run with a checkpoint."""
    found = rows() if data is None else data
    objective = settings.pop("objective", None)
    for step in training_loop(
        model, found, objective, steps=8, batch_size=8, checkpoint=path, checkpoint_every=2,
        progress=False, **settings,
    ):  # fmt: skip
        if step.number == 4:
            break


def go_on(path: Path, model: LatentModel, data: Any = None, **settings: Any) -> int:
    """The number of the first step of the run that continues."""
    found = rows() if data is None else data
    objective = settings.pop("objective", None)
    return next(
        training_loop(
            model, found, objective, steps=settings.pop("steps", 8), batch_size=8, checkpoint=path,
            checkpoint_every=2, progress=False, **settings,
        )
    ).number  # fmt: skip


def diffusion(**settings: Any) -> Diffusion:
    """A small diffusion, always with the same weights."""
    torch.manual_seed(3)
    return Diffusion(3, width=8, depth=1, **settings)


def sigmoid(log_snr: Tensor) -> Tensor:
    """A weight with a name."""
    return log_snr.sigmoid()


def tenfold(log_snr: Tensor) -> Tensor:
    """Another weight with a name."""
    return 10 + 0 * log_snr


register(sigmoid)
register(tenfold)

MODELS: dict[str, tuple[Callable[[], LatentModel], Callable[[], LatentModel], str]] = {
    "schedule": (diffusion, lambda: diffusion(schedule=Cosine(clean=3.0, noisy=-3.0)), "schedule"),
    "an end of the schedule": (
        lambda: diffusion(schedule=LinearLogSNR(5.0, -5.0)),
        lambda: diffusion(schedule=LinearLogSNR(5.0, -5.5)),
        r"noisy \(-5\.0 in the file, now -5\.5\)",
    ),
    "a table": (
        lambda: diffusion(schedule=LinearBeta(100), steps=5),
        lambda: diffusion(schedule=LinearBeta(100, last=0.03), steps=5),
        "schedule",
    ),
    "steps of the chain": (
        lambda: diffusion(steps=10),
        lambda: diffusion(steps=1000),
        r"steps \(10 in the file, now 1000\)",
    ),
    "discrete time": (diffusion, lambda: diffusion(steps=10), "steps"),
    "dropout": (vae, lambda: vae(dropout=0.1), r"drop\.p"),
    "width": (vae, lambda: vae(width=9), "weight"),
    "the scale of the decoder": (
        lambda: VAE(3, latents=2, width=8, decoder=normal(0.1)),
        lambda: VAE(3, latents=2, width=8, decoder=normal(0.2)),
        "value",
    ),
}


def normal(scale: float) -> decoders.Decoder:
    """A decoder of a fixed scale, which has no shape."""
    return decoders.GaussianDecoder(nn.Linear(2, 3), (3,), FixedScale(scale))


@pytest.mark.parametrize("case", MODELS)
def test_another_model_is_refused_by_name(case: str, tmp_path: Path) -> None:
    """Settings without a shape count like the others; the model itself is taken."""
    build, other, said = MODELS[case]
    begin(tmp_path / "run", build())
    with pytest.raises(ValueError, match=rf"other settings: .*{said}"):
        go_on(tmp_path / "run", other())
    assert go_on(tmp_path / "run", build()) == 5


def test_another_number_of_values_is_refused(tmp_path: Path) -> None:
    bits = torch.randint(0, 17, (48, 4))
    begin(tmp_path / "run", VAE(4, 17, latents=2, width=8), rows(bits, bins=17))
    with pytest.raises(ValueError, match=r"bins|spec"):
        go_on(tmp_path / "run", VAE(4, 256, latents=2, width=8), rows(bits, bins=17))


OBJECTIVES: dict[str, tuple[Objective, Objective, str]] = {
    "class": (Bound(), Beta(1.0), "objective"),
    "beta": (Beta(2.0), Beta(2.5), r"objective\.beta \(2\.0 in the file, now 2\.5\)"),
    "warm-up": (WarmUp(5), WarmUp(50), r"objective\.steps"),
    "timesteps": (Bound(), Bound(timesteps=2), r"objective\.timesteps"),
    "sampler": (
        MinSNR(5.0, LossAwareTimesteps(bins=4)),
        MinSNR(5.0, LossAwareTimesteps(bins=5)),
        r"objective\.timesteps.*bins",
    ),
    "weight function": (Weighted(sigmoid), Weighted(tenfold), r"objective\.weight"),
}


@pytest.mark.parametrize("case", OBJECTIVES)
def test_another_objective_is_refused_by_name(case: str, tmp_path: Path) -> None:
    one, other, said = OBJECTIVES[case]
    begin(tmp_path / "run", diffusion(), objective=one)
    with pytest.raises(ValueError, match=said):
        go_on(tmp_path / "run", diffusion(), objective=other)
    assert go_on(tmp_path / "run", diffusion(), objective=one) == 5


def test_an_inner_objective_counts(tmp_path: Path) -> None:
    def model() -> Diffusion:
        return diffusion(schedule=MonotoneNetwork(features=4))

    begin(tmp_path / "run", model(), objective=LearnedSchedule(Weighted(sigmoid)))
    with pytest.raises(ValueError, match=r"objective\.inner\.weight"):
        go_on(tmp_path / "run", model(), objective=LearnedSchedule(Weighted(tenfold)))


def test_a_function_without_a_name_trains_but_not_with_a_checkpoint(tmp_path: Path) -> None:
    """A file cannot distinguish two lambdas; one of a registered name can."""
    objective = Weighted(lambda log_snr: log_snr.sigmoid())
    fit(diffusion(), X, objective, steps=1, progress=False)
    with pytest.raises(ValueError, match=r"genmod\.register"):
        begin(tmp_path / "run", diffusion(), objective=objective)
    assert not (tmp_path / "run").exists()


SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-4, "weight_decay": 0.1, "warmup": 3, "decay": False, "ema": 0.5,
    "clip": None, "seed": 1, "validate_every": 3, "validation_rows": 2,
    "autocast": torch.bfloat16,
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_another_setting_is_refused_by_name(name: str, tmp_path: Path) -> None:
    begin(tmp_path / "run", vae())
    with pytest.raises(ValueError, match=rf"settings: {name} \("):
        go_on(tmp_path / "run", vae(), **{name: SETTINGS[name]})


def test_how_often_a_file_is_written_is_no_setting_of_the_run(tmp_path: Path) -> None:
    begin(tmp_path / "run", vae())
    loop = training_loop(
        vae(), rows(), steps=8, batch_size=8, checkpoint=tmp_path / "run", progress=False
    )
    assert next(loop).number == 5


def test_other_data_are_refused_by_the_part_that_changed(tmp_path: Path) -> None:
    """Training rows, validation rows, labels, the order of rows, the share of labels dropped."""
    begin(tmp_path / "run", vae())
    for other, said in (
        (rows(X + 1e-9, X[40:]), "train"),
        (rows(validation=X[39:]), "validation"),
        (rows(X.flip(0), X[40:]), "train"),
        (X[:40], "validation"),
    ):
        with pytest.raises(ValueError, match=rf"data\.{said} \("):
            go_on(tmp_path / "run", vae(), other)
    labels = {"train": torch.arange(40) % 3, "validation": torch.zeros(8).long()}
    labels["test"] = torch.zeros(0).long()
    told = conditional(rows(labels=labels))

    def model() -> Diffusion:
        return diffusion(condition=Labels(3))

    begin(tmp_path / "told", model(), told)
    moved = {**labels, "train": labels["train"].roll(1)}
    with pytest.raises(ValueError, match=r"data\.labels \("):
        go_on(tmp_path / "told", model(), conditional(rows(labels=moved)))
    assert go_on(tmp_path / "told", model(), told) == 5


def test_other_gray_pixels_behind_the_same_bits_are_refused(tmp_path: Path) -> None:
    bits = binarized(digits())
    assert bits.resample is not None
    begin(tmp_path / "run", VAE((1, 8, 8), 2, latents=2, width=8), bits)
    other = replace(bits, resample=BernoulliPixels(16 - bits.resample.gray, 17))
    with pytest.raises(ValueError, match=r"data\.pixels"):
        go_on(tmp_path / "run", VAE((1, 8, 8), 2, latents=2, width=8), other)


def test_a_finished_run_never_hands_back_old_weights_for_new_data(tmp_path: Path) -> None:
    """Refused, and the model is left as it was; with its own data it makes no step."""
    first, again = vae(), vae(width=8)
    history = fit(first, X, steps=5, checkpoint=tmp_path / "run", progress=False)
    before = flat(again)
    with pytest.raises(ValueError, match=r"data\.train"):
        fit(again, X + 20, steps=5, checkpoint=tmp_path / "run", progress=False)
    assert torch.equal(flat(again), before)
    finished = fit(again, X, steps=5, checkpoint=tmp_path / "run", progress=False)
    assert torch.equal(flat(again), flat(first))
    assert finished.losses == history.losses


def test_unregistered_networks_are_identified_by_class_and_shapes(tmp_path: Path) -> None:
    """Nothing has to be registered; another class or shape is another run."""

    def model(network: nn.Module) -> LatentModel:
        encoder = encoders.GaussianEncoder(network, (2,))
        return VAE(encoder=encoder, decoder=normal(0.1), latents=2)

    begin(tmp_path / "run", model(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))))
    for other in (
        nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)),
        nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)),
    ):
        with pytest.raises(ValueError, match=r"encoder\.network"):
            go_on(tmp_path / "run", model(other))
    same = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))
    assert go_on(tmp_path / "run", model(same)) == 5


def test_a_hierarchy_and_its_reverse_are_two_models(tmp_path: Path) -> None:
    begin(tmp_path / "run", HVAE(3, latents=(2, 2), width=8, inference=Inference.TOP_DOWN))
    with pytest.raises(ValueError, match="other settings: model"):
        go_on(tmp_path / "run", HVAE(3, latents=(2, 2), width=8, inference=Inference.BOTTOM_UP))


class Shifted(encoders.GaussianEncoder):
    """An encoder of one's own, built with a tensor that it learns."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__(nn.Linear(3, 4), (2,), 3)
        self.shift = nn.Parameter(shift)

    def forward(self, x: Tensor, context: Any = None, observed: Any = None) -> Normal:
        return super().forward(x + self.shift, context, observed)


SAME: dict[str, Callable[[], LatentModel]] = {
    "VAE": lambda: VAE(3, latents=2, width=8),
    "bottom-up": lambda: HVAE(3, latents=(2, 2), width=8, inference="bottom-up"),
    "top-down": lambda: HVAE(3, latents=(2, 2), width=8, inference="top-down"),
    "deep": lambda: HVAE(3, levels=4, width=8),
    "diffusion": diffusion,
    "mixture": lambda: VAE(3, latents=2, width=8, prior=MixturePrior(3)),
    "nested diffusion": lambda: VAE(3, latents=2, width=8, prior=Diffusion(2, width=8)),
    "own": lambda: VAE(3, latents=2, width=8, encoder=Shifted(torch.zeros(3))),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_objects_continue_their_run(kind: str, tmp_path: Path) -> None:
    """After an interruption, as a cell of a notebook is run again; and a saved and loaded model."""
    model = SAME[kind]()
    begin(tmp_path / "run", model)
    assert go_on(tmp_path / "run", model) == 5
    if kind != "own":
        model.save(tmp_path / "model")
        assert go_on(tmp_path / "run", load(tmp_path / "model")) == 5


# ---------------------------------------------------------------------- more steps


def test_more_steps_are_another_leg_with_a_rate_of_its_own(tmp_path: Path) -> None:
    """Recorded, printed, and resumed bit for bit itself."""
    path, lines = tmp_path / "run", []

    def run(steps: int, stop: int | None = None) -> tuple[list[float], list[float], LatentModel]:
        model, rates = vae(), []
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        loop = training_loop(
            model, X, steps=steps, batch_size=16, warmup=0, optimizer=optimizer, checkpoint=path,
            checkpoint_every=2, progress=lambda step, line: lines.append(line),
        )  # fmt: skip
        for step in loop:
            rates.append(optimizer.param_groups[0]["lr"])
            if step.number == stop:
                break
        return rates, list(loop.history.losses), model

    run(6)
    saved = path.read_bytes()
    rates, losses, whole = run(12)
    assert rates[0] == pytest.approx(0.01)  # the first of six steps down another cosine
    assert rates[3] == pytest.approx(0.005)
    assert len(losses) == 12
    assert any("steps 7 to 12: the learning rate rises to its peak" in line for line in lines)
    path.write_bytes(saved)
    run(12, stop=9)
    again, losses_again, resumed = run(12)
    assert len(again) == 4
    assert losses_again == losses
    assert torch.equal(flat(resumed), flat(whole))
    with pytest.raises(ValueError, match="steps=11 for a checkpoint of a run of 12 steps"):
        run(11)


def test_a_history_shows_that_it_was_extended(tmp_path: Path) -> None:
    fit(vae(), X, steps=4, checkpoint=tmp_path / "run", progress=False)
    history = fit(vae(), X, steps=9, checkpoint=tmp_path / "run", progress=False)
    assert [(cycle.first, cycle.last) for cycle in history.cycles] == [(0, 4), (4, 9)]
    assert "extended at step 4 to 9 steps" in str(history)
    assert len(history.losses) == 9


def test_an_unfinished_run_is_extended_from_where_it_was(tmp_path: Path) -> None:
    begin(tmp_path / "run", vae())
    loop = training_loop(
        vae(), rows(), steps=20, batch_size=8, checkpoint=tmp_path / "run", progress=False
    )
    assert next(loop).number == 5
    assert [(cycle.first, cycle.last) for cycle in loop.history.cycles] == [(0, 4), (4, 20)]
