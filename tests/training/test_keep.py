"""A folder of checkpoints: the last ones, the best one, and a run that continues from them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from genmod.models import LatentDiffusion
from genmod.training import fit, training_loop
from genmod.training.checkpoint import Checkpoint
from tests.training.cases import data, flat, split, vae

SETTINGS: dict[str, Any] = {
    "steps": 12,
    "batch_size": 16,
    "validate_every": 3,
    "checkpoint_every": 2,
    "keep": 2,
    "progress": False,
}


def names(folder: Path) -> list[str]:
    """The files of a folder."""
    return sorted(path.name for path in folder.iterdir())


def step_file(step: int, stage: int = 0) -> str:
    """The name of a checkpoint."""
    return f"stage-{stage}-step-{step:09d}.safetensors"


def test_it_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    seen = []
    for step in training_loop(vae(), split(), checkpoint=tmp_path, **SETTINGS):
        seen.append((step.number, names(tmp_path)))
    assert dict(seen)[1] == []
    assert dict(seen)[4] == ["best.safetensors", step_file(2), step_file(4)]
    assert names(tmp_path) == ["best.safetensors", step_file(10), step_file(12)]


def test_the_best_file_is_a_checkpoint_of_the_best_validation(tmp_path: Path) -> None:
    """With a rate that soon is far too large, so that the best is not the last."""
    bad = {**SETTINGS, "learning_rate": 0.5, "warmup": 0, "decay": False, "clip": None, "ema": 0.0}
    model = vae()
    history = fit(model, split(), checkpoint=tmp_path, **bad)
    assert history.best is not None
    assert history.best.step < 12
    best = Checkpoint.read(tmp_path / "best.safetensors")
    assert best.step == history.best.step
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(best.tensors[f"best.{name}"], tensor, rtol=0, atol=0)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = vae()
    fit(whole, split(), checkpoint=tmp_path / "a", **SETTINGS)
    for step in training_loop(vae(), split(), checkpoint=tmp_path / "b", **SETTINGS):
        if step.number == 7:
            break
    assert names(tmp_path / "b") == ["best.safetensors", step_file(4), step_file(6)]
    resumed = vae()
    loop = training_loop(resumed, split(), checkpoint=tmp_path / "b", **SETTINGS)
    assert [step.number for step in loop] == list(range(7, 13))
    assert torch.equal(flat(resumed), flat(whole))
    assert names(tmp_path / "a") == names(tmp_path / "b")
    shutil.copy(tmp_path / "a" / step_file(10), tmp_path / "one.safetensors")
    one = vae()
    alone = {name: value for name, value in SETTINGS.items() if name != "keep"}
    fit(one, split(), checkpoint=tmp_path / "one.safetensors", **alone)
    assert torch.equal(flat(one), flat(whole)), (
        "a file of the folder is a checkpoint like any other"
    )


def test_stages_follow_each_other_in_the_folder(tmp_path: Path) -> None:
    def build() -> LatentDiffusion:
        torch.manual_seed(7)
        return LatentDiffusion(3, latents=2, width=8)

    settings = {**SETTINGS, "steps": 4}
    whole = build()
    fit(whole, split(), checkpoint=tmp_path / "a", **settings)
    assert names(tmp_path / "a") == ["best.safetensors", step_file(2, 1), step_file(4, 1)]
    loop = training_loop(build(), split(), checkpoint=tmp_path / "b", **settings)
    for _ in range(7):
        next(loop)
    loop.close()
    resumed = build()
    fit(resumed, split(), checkpoint=tmp_path / "b", **settings)
    assert torch.equal(flat(resumed), flat(whole))


def test_keep_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="keep=2 without a checkpoint"):
        fit(vae(), data(), keep=2, progress=False)
    with pytest.raises(ValueError, match="keep=0; expected at least 1"):
        fit(vae(), data(), checkpoint=tmp_path / "c", keep=0, progress=False)
    with pytest.raises(ValueError, match=r"the file .*file; expected a folder"):
        fit(vae(), data(), checkpoint=tmp_path / "file", keep=1, progress=False)
    with pytest.raises(ValueError, match="the folder"):
        fit(vae(), data(), checkpoint=tmp_path, progress=False)
