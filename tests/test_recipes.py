"""Every file of ``examples/configs`` trains, scores and samples, with a few steps of each."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest
import torch

from genmod import load
from genmod.runs import RunConfig, train

FOLDER = Path(__file__).parents[1] / "examples" / "configs"
RECIPES = sorted(FOLDER.glob("*.yaml"))
IMAGES = ("mnist", "fashion-mnist")
BY_NAME = [
    pytest.param(
        path, id=path.stem, marks=[pytest.mark.data] if path.stem.startswith(IMAGES) else []
    )
    for path in RECIPES
]


@pytest.mark.usefixtures("as_users_run", "few_rows")
@pytest.mark.parametrize("path", BY_NAME)
def test_a_recipe_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if path.stem.startswith(IMAGES):
        root = os.environ.get("GENMOD_DATA")
        if root is None:
            pytest.skip("MNIST is not on disk: set GENMOD_DATA")
    if path.stem.startswith("wine"):
        runpy.run_path(str(FOLDER / "wine.py"))
    config = RunConfig.read(path)
    few = {**config.training, "steps": 4, "batch_size": 8}
    small = RunConfig(config.data, config.model, few)
    scored = not path.stem.startswith(IMAGES)
    run = train(small, tmp_path / "run", progress=False, scored=scored)
    assert run.finished
    assert (run.report is not None) == scored
    again = load(tmp_path / "run")
    assert type(again).__name__ == config.model["class"]
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(again.state_dict()[name].cpu(), tensor.cpu()), name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_its_command_its_result_and_its_time(path: Path) -> None:
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    command = f"genmod train --config examples/configs/{path.name} --out runs/{path.stem}"
    assert any(command in line for line in head)
    assert any(" nats" in line or "bits/dim" in line for line in head)
    assert any(" s on " in line for line in head)


def test_there_is_a_recipe_for_every_model_and_every_kind_of_data() -> None:
    found = [RunConfig.read(path) for path in RECIPES]
    models = {config.model["class"] for config in found}
    assert models == {"Autoencoder", "VAE", "HVAE", "Diffusion", "LatentDiffusion"}
    assert {"digits", "mnist", "fashion-mnist", "wine.csv"} <= {
        config.data["x"] for config in found
    }
