"""Checkpoints: resuming is not having stopped; a wrong file is refused; a crash loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from genmod import files
from genmod.data import Dataset
from genmod.diffusion.timesteps import LossAwareTimesteps
from genmod.files import read_tensors, save_tensors
from genmod.model import LatentModel
from genmod.models import VAE
from genmod.nn import ConvNets
from genmod.objectives import GECO, Beta, Bound, CapacityTarget, MinSNR, Objective, WarmUp
from genmod.training import Step, training_loop
from genmod.training.validation import Validation
from tests.training.cases import data, diffusion, flat, vae

pytestmark = pytest.mark.usefixtures("float64")

STEPS = 12


@dataclass
class Trace:
    """What a run left: losses, validations, averages on the way, the final weights."""

    losses: list[float]
    validations: list[Validation]
    averages: list[Tensor]
    final: Tensor


def run(
    model: LatentModel,
    path: Path | None,
    *,
    stop: int = STEPS,
    objective: Objective | None = None,
    seed: int = 0,
    rows: int = 40,
    ema: float = 0.9,
    optimizer: torch.optim.Optimizer | None = None,
) -> Trace:
    """Train, with held-out data, and stop after the step ``stop``."""
    x = data(48)
    steps: list[Step] = []
    trace = Trace([], [], [], torch.empty(0))
    for step in training_loop(
        model,
        Dataset("rows", x[:rows], x[40:], x[:0]),
        objective,
        steps=STEPS,
        batch_size=16,
        ema=ema,
        seed=seed,
        optimizer=optimizer,
        validate_every=3,
        checkpoint=path,
        checkpoint_every=5,
        progress=False,
    ):
        steps.append(step)
        trace.losses.append(step.loss)
        trace.averages.append(flat(step.averaged))
        if step.validation is not None:
            trace.validations.append(step.validation)
        if step.number == stop:
            break
    trace.final = flat(model)
    return trace


class Packed(LatentModel):
    """A small convolutional VAE whose weights lie with their channels last."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        vae = VAE((1, 8, 8), 5, latents=2, networks=ConvNets(width=16))
        super().__init__(vae.encoder, vae.decoder, vae.prior)
        self.to(memory_format=torch.channels_last)


def test_a_run_with_channels_last_resumes_bit_for_bit(tmp_path: Path) -> None:
    """A file keeps no strides."""
    x = torch.randint(0, 5, (16, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    found = []
    for stop in (8, 4):
        path = tmp_path / f"{stop}"
        for again in range(2 if stop < 8 else 1):
            model = Packed()
            for step in training_loop(
                model, x, steps=8, batch_size=8, checkpoint=path, checkpoint_every=4, progress=False
            ):
                if step.number == stop and not again:
                    break
        found.append(flat(model))
    assert torch.equal(*found)


def contents(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors of a checkpoint."""
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("build", [vae, lambda: vae(dropout=0.4), diffusion])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    build: Callable[[], LatentModel], tmp_path: Path
) -> None:
    """Losses, validations, averaged weights, optimizer, best and final weights, dropout or not.

    The first run stops between two checkpoints, so the steps after the last one are made again.
    """
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = run(build(), whole)
    torch.manual_seed(99)
    run(build(), parts, stop=7)
    resumed = build()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.zero_()
    found = run(resumed, parts)
    assert found.losses == expected.losses[5:]
    assert found.validations == [v for v in expected.validations if v.step > 5]
    assert all(
        torch.equal(a, b) for a, b in zip(found.averages, expected.averages[5:], strict=True)
    )
    assert torch.equal(found.final, expected.final)
    (said, tensors), (same, others) = contents(whole), contents(parts)
    assert said == same
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert {name.split(".")[0] for name in tensors} == {
        "model",
        "average",
        "best",
        "optimizer",
        "losses",
    }


@pytest.mark.parametrize(
    "build",
    [
        lambda: WarmUp(20),
        lambda: WarmUp(8, cycles=2),
        lambda: CapacityTarget(2.0, 20),
        lambda: GECO(-1.0, step_size=0.5),
    ],
    ids=["warm-up", "cyclical", "capacity", "geco"],
)
def test_what_an_objective_remembers_is_kept(
    build: Callable[[], Objective], tmp_path: Path
) -> None:
    """A warm-up resumes at the weight it had reached, not at zero; a multiplier at its value."""
    expected = run(vae(), None, objective=build())
    run(vae(), tmp_path / "run", stop=7, objective=build())
    found = run(vae(), tmp_path / "run", objective=build())
    assert found.losses == expected.losses[5:]
    assert torch.equal(found.final, expected.final)


def test_a_checkpoint_keeps_the_learned_density_of_timesteps(tmp_path: Path) -> None:
    """Importance resumes with the density it had; that it learned changes the run."""

    def objective(least: float) -> Objective:
        return MinSNR(5.0, LossAwareTimesteps(bins=4, least=least))

    expected = run(diffusion(), None, objective=objective(1))
    run(diffusion(), tmp_path / "run", stop=7, objective=objective(1))
    found = run(diffusion(), tmp_path / "run", objective=objective(1))
    assert found.losses == expected.losses[5:]
    assert torch.equal(found.final, expected.final)
    even = run(diffusion(), None, objective=objective(200))
    assert even.losses[0] == expected.losses[0]
    assert even.losses[-1] != expected.losses[-1]


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    """Resuming it makes no step and gives the best weights."""
    expected = run(vae(), tmp_path / "run")
    again = run(vae(), tmp_path / "run")
    assert again.losses == []
    assert torch.equal(again.final, expected.final)


def test_another_optimizers_moments_are_kept_too(tmp_path: Path) -> None:
    """Momentum is part of what resuming continues."""

    def descent(model: LatentModel) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    whole, stopped, resumed = vae(), vae(), vae()
    expected = run(whole, None, optimizer=descent(whole))
    run(stopped, tmp_path / "run", stop=6, optimizer=descent(stopped))
    found = run(resumed, tmp_path / "run", optimizer=descent(resumed))
    assert torch.equal(found.final, expected.final)


@pytest.mark.parametrize(
    ("resume", "said"),
    [
        (lambda path: run(vae(), path, seed=1), "other settings: seed"),
        (lambda path: run(vae(), path, ema=0.5), "other settings: ema"),
        (lambda path: run(vae(), path, rows=39), r"other settings: data\.train"),
        (lambda path: run(vae(), path, objective=Beta(4.0)), "other settings: objective"),
        (lambda path: run(vae(), path, objective=Bound(timesteps=2)), "other settings: objective"),
        (lambda path: run(vae(width=16), path), r"\(\(8, 3\) float64 in the file, now \(16, 3\)"),
        (lambda path: run(VAE(3, latents=2, width=8), path), r"model\.encoder\.network"),
        (lambda path: run(_half_frozen(), path), r"weight\.frozen"),
        (lambda path: run(m := vae(), path, optimizer=_descent(m)), r"settings: optimizer"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    resume: Callable[[Path], Trace], said: str, tmp_path: Path
) -> None:
    """Other settings, another model, other frozen parts: refused at once, and the file is not changed."""
    path = tmp_path / "run"
    run(vae(), path, stop=5)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=said):
        resume(path)
    assert path.read_bytes() == before


def _half_frozen() -> LatentModel:
    model = vae()
    model.encoder.requires_grad_(False)
    return model


def _descent(model: LatentModel) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01)


@pytest.mark.parametrize("kind", ["pickle", "noise", "empty", "foreign"])
def test_a_file_that_is_no_checkpoint_is_refused(kind: str, tmp_path: Path) -> None:
    """A pickle would be code to run: it is never opened as one."""
    path = tmp_path / "run"
    if kind == "pickle":
        torch.save({"model": torch.zeros(3)}, path)
    elif kind == "foreign":
        from safetensors.torch import save_file

        save_file({"weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(b"\x05" * 50 if kind == "noise" else b"")
    with pytest.raises(ValueError, match=r"expected .*(one that genmod wrote|genmod-training)"):
        run(vae(), path)


@pytest.mark.parametrize("spoiled", ["identity", "stage", "history", "peaks", "missing", "average"])
def test_a_damaged_header_is_one_sentence(spoiled: str, tmp_path: Path) -> None:
    """A whole safetensors file of our format, in which one entry is nonsense or missing."""
    path = tmp_path / "run"
    run(vae(), path, stop=5)
    tensors, metadata = read_tensors(path, "")
    if spoiled == "missing":
        del metadata["step"]
    elif spoiled == "average":
        del tensors["average.0"]
    else:
        metadata[spoiled] = '{"cycles": 3}'
    save_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"^got [^\n]*; expected [^\n]*; [^\n]*move"):
        run(vae(), path)


def test_a_checkpoint_of_a_newer_version_is_not_to_be_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "run"
    save_tensors(path, {"x": torch.zeros(1)}, {"format": "genmod-training-99"})
    with pytest.raises(ValueError, match=r"of format genmod-training-99; .*upgrade genmod"):
        run(vae(), path)


def test_a_crash_while_writing_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written beside its place, and half of one is never found in it."""
    path = tmp_path / "folder" / "run"
    run(vae(), path, stop=5)
    before = path.read_bytes()

    def crash(tensors: dict[str, Tensor], where: Path, metadata: dict[str, str]) -> None:
        where.write_bytes(b"half a file")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(files, "save_file", crash)
        with pytest.raises(ValueError, match="no space left"):
            run(vae(), path)
    assert path.read_bytes() == before
    expected = run(vae(), None)
    assert torch.equal(run(vae(), path).final, expected.final)


def test_a_checkpoint_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    """An 8-byte length, a JSON header, then numbers: readable without this package or pickle."""
    path = tmp_path / "run"
    run(vae(), path, stop=5)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    said = header.pop("__metadata__")
    assert said["step"] == "5"
    assert json.loads(said["identity"])["ema"] == 0.9
    ends = [entry["data_offsets"][1] for entry in header.values()]
    assert 8 + length + max(ends) == len(raw)


def test_a_module_in_two_parts_is_saved_once(tmp_path: Path) -> None:
    """A diffusion's denoiser is its prior's and its decoder's; each of its tensors has one name."""
    path = tmp_path / "run"
    model = diffusion()
    run(model, path, stop=5)
    names = [name for name in contents(path)[1] if name.startswith("model.")]
    assert len(names) == len(list(model.parameters()))
    assert not any("decoder.denoiser" in name for name in names) or not any(
        "prior.denoiser" in name for name in names
    )
