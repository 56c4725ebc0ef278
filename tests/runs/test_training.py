"""A run is a folder that explains itself: it goes on where it stopped, and refuses what cannot be right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Independent, Normal

from genmod import load
from genmod.config.plain import to_plain
from genmod.config.text import from_yaml
from genmod.data.images import digits
from genmod.files import locked, read_tensors
from genmod.prior import DensityPrior
from genmod.runs import RunConfig, train
from genmod.runs.config import read_settings
from genmod.runs.opening import open_data, open_model, open_rows
from genmod.training.metrics import read_metrics
from tests.conftest import no_looks

SENTENCE = r"^got [^\n]*; expected [^\n]*; [^\n]*$"


@pytest.fixture(autouse=True)
def _no_looks(monkeypatch: pytest.MonkeyPatch, whole: Path) -> None:
    """Figures on the way have no part in what is resumed: the run that is not interrupted draws them."""
    no_looks(monkeypatch)


def settings(model: str = "VAE(latents=2, width=8)", **training: object) -> dict[str, Any]:
    """A small run on the digits."""
    given = {
        "steps": 12,
        "checkpoint_every": 4,
        "batch_size": 16,
        "warmup": 2,
        "log_every": 1,
        **training,
    }
    return {"data": "digits", "model": model, "training": given}


def after(count: int) -> Any:
    """Asks to stop after so many steps."""
    seen = iter(range(count - 1))
    return lambda: next(seen, None) is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(settings(), folder, progress=False)
    return folder


def test_the_folder_explains_itself(whole: Path) -> None:
    assert len(list((whole / "figures").glob("VAE-*.png"))) == 3
    names = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*.*"))
    assert [name for name in names if not name.startswith((".", "figures/VAE"))] == [
        "checkpoints/best.safetensors",
        "checkpoints/stage-0-step-000000012.safetensors",
        "config.yaml",
        "environment.json",
        "figures/samples.png",
        "figures/training.png",
        "metrics.jsonl",
        "model.safetensors",
        "report.json",
        "report.md",
    ]
    config = from_yaml((whole / "config.yaml").read_text(), "it")
    assert config["training"]["steps"] == 12
    assert config["trained_on"] == json.loads(json.dumps(digits().identity()))
    report = json.loads((whole / "report.json").read_text())
    assert f"{report['nats']['mean']:.2f}" in (whole / "report.md").read_text()
    assert report["samples"] == 359
    sessions = json.loads((whole / "environment.json").read_text())["sessions"]
    assert [session["packages"]["torch"] for session in sessions] == [
        torch.__version__.split("+")[0]
    ]


def test_a_run_is_loaded_as_the_model_that_was_scored(whole: Path) -> None:
    from genmod import evaluate

    report = evaluate(load(whole), digits())
    written = json.loads((whole / "report.json").read_text())
    assert report.value.mean == written["nats"]["mean"]
    assert torch.equal(open_data(whole).test, digits().test)


def test_every_line_of_the_metrics_is_a_step(whole: Path) -> None:
    lines = read_metrics(whole / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert all(line["loss"] == -line["bound"] for line in lines)
    assert sum("validation" in line for line in lines) == 12


@pytest.mark.parametrize("steps", [1, 4, 11])
def test_stopped_and_resumed_is_uninterrupted(steps: int, whole: Path, tmp_path: Path) -> None:
    """Bit for bit: weights, losses, validations."""
    first = train(settings(), tmp_path, progress=False, stop=after(steps))
    assert not first.finished
    assert not (tmp_path / "model.safetensors").exists()
    assert len(first.history.losses) == steps
    with pytest.raises(ValueError, match=r"training is not done.*--resume"):
        open_model(tmp_path)
    again = train(settings(), tmp_path, progress=False, resume=True)
    assert again.finished
    same_run(tmp_path, whole)


def same_run(one: Path, other: Path) -> None:
    """Require the same weights and the same lines, but for the time that they took."""
    tensors, expected = (read_tensors(p / "model.safetensors", "")[0] for p in (one, other))
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in tensors)
    lines = [
        [
            {k: v for k, v in line.items() if k != "seconds"}
            for line in read_metrics(p / "metrics.jsonl")
        ]
        for p in (one, other)
    ]
    assert lines[0] == lines[1]


def test_both_stages_of_a_latent_diffusion_are_resumed(tmp_path: Path) -> None:
    given = settings("LatentDiffusion(latents=2, width=8)", steps=6)
    train(given, tmp_path / "whole", progress=False, scored=False)
    folder = tmp_path / "stopped"
    train(given, folder, progress=False, scored=False, stop=after(8))  # in the second stage
    train(given, folder, progress=False, scored=False, resume=True)
    same_run(folder, tmp_path / "whole")
    stages = {line["stage"] for line in read_metrics(tmp_path / "whole" / "metrics.jsonl")}
    assert stages == {0, 1}


def test_a_run_with_large_tensors_among_its_settings_is_resumed(tmp_path: Path) -> None:
    """A prior of 40 numbers: while it trains, when it is done, and when it is loaded without a warning."""
    law = Independent(Normal(torch.linspace(-1, 1, 20), torch.linspace(1, 2, 20)), 1)
    given = settings(steps=6, checkpoint_every=2)
    given["model"] = {"class": "VAE", "latents": 20, "width": 8, "prior": to_plain(law)}
    train(given, tmp_path / "whole", progress=False, scored=False)
    folder = tmp_path / "stopped"
    train(given, folder, progress=False, scored=False, stop=after(3))
    train(read_settings(folder), folder, progress=False, scored=False, resume=True)
    same_run(folder, tmp_path / "whole")
    longer = read_settings(folder)
    longer["training"]["steps"] = 8
    train(longer, folder, progress=False, scored=False, resume=True)
    prior = load(folder).prior
    assert isinstance(prior, DensityPrior)
    z = torch.randn(3, 20)
    assert torch.equal(prior.law(3).log_prob(z), law.log_prob(z))


def test_a_finished_run_is_extended(whole: Path, tmp_path: Path) -> None:
    train(settings(), tmp_path, progress=False, scored=False)
    longer = train(settings(steps=16), tmp_path, progress=False, scored=False, resume=True)
    assert len(longer.history.losses) == 16
    assert RunConfig.read(tmp_path).training["steps"] == 16


def test_a_run_is_not_overwritten_and_other_settings_are_refused(
    whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"which holds a run.*--resume"):
        train(settings(), whole, progress=False)
    train(settings(), tmp_path, progress=False, stop=after(5))
    before = (tmp_path / "config.yaml").read_text()
    for other, named in (
        (settings(learning_rate=0.1), "learning_rate"),
        (settings("VAE(latents=3, width=8)"), "latent|shape"),
        ({**settings(), "data": {"x": "digits", "seed": 1}}, "data"),
    ):
        with pytest.raises(ValueError, match=named):
            train(other, tmp_path, progress=False, resume=True)
        assert (tmp_path / "config.yaml").read_text() == before


def test_a_folder_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from genmod.files import locked\n"
        f"with locked(Path({str(tmp_path)!r})):\n    print('in', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    try:
        with pytest.raises(ValueError, match=rf"in use by process {holder.pid}.*wait until"):
            train(settings(), tmp_path, progress=False)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        assert holder.stdin is not None
        holder.stdin.close()
    # The lock ends with its process.
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"model": "vae"}, "settings without data"),
        ({"data": "digits"}, "settings without model; expected one of autoencoder, vae"),
        ({"data": "digits", "modle": "vae"}, "section 'modle'.*did you mean 'model'"),
        ({"data": "digits", "model": ["vae"]}, r"model: \['vae'\]"),
        ({"data": {"bins": 3}, "model": "vae"}, "data without x"),
        ({"data": "digits", "model": {"width": 3}}, "without its class"),
        ({"data": "digits", "model": "VAE(3)"}, "arguments by name"),
        ({"data": "digits", "model": "vea"}, "one of Autoencoder, .*did you mean 'VAE'"),
        ({"data": "digits", "model": "cosine"}, "one of Autoencoder"),
        ({"data": {"x": "digits", "bin": 3}, "model": "vae"}, "'bin' of load.*did you mean 'bins'"),
        ({"data": "digits", "model": "vae", "training": {"step": 3}}, "did you mean 'steps'"),
        ({"data": "digits", "model": "vae", "training": {"optimizer": 3}}, "'optimizer' of fit"),
        ({"data": "digits", "model": {"class": "vae", "spec": [3]}}, r"a model of .*\(3,\)"),
        ({"data": "digits", "model": {"class": "diffusion", "schedule": "cosinus"}}, "'Cosine'"),
        ({"data": "digits", "model": {"class": "diffusion", "schedule": "vae"}}, "LinearLogSNR"),
        ({"data": "digits", "model": "vae", "training": 3}, "training: 3"),
    ],
)
def test_settings_that_cannot_be_right_are_refused_before_anything_is_written(
    given: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=SENTENCE) as found:
        train(given, tmp_path / "run", progress=False)
    assert found.match(why)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_class_goes_by_its_name_or_with_arguments_and_is_written_in_full() -> None:
    """Three ways to write the same settings."""
    ways: list[Any] = [
        "Diffusion(schedule='cosine', condition='Labels(10)', width=8)",
        {"class": "diffusion", "schedule": "Cosine()", "condition": "Labels(10)", "width": 8},
        {
            "class": "Diffusion",
            "schedule": {"class": "Cosine"},
            "condition": {"class": "Labels", "classes": 10},
            "width": 8,
        },
    ]
    models = []
    for way in ways:
        config = RunConfig.of({"data": "digits", "model": way})
        data = config.load_data()
        assert data.context_dropout == 0.1
        models.append(config.build(data))
    assert len({repr(model) for model in models}) == 1
    assert all(
        torch.equal(a, b)
        for a, b in zip(models[0].parameters(), models[2].parameters(), strict=True)
    )


def test_rows_of_a_file_are_read_in_their_order(whole: Path, tmp_path: Path) -> None:
    import numpy as np

    rows = digits().test[:20].numpy()
    np.save(tmp_path / "rows.npy", rows)
    read = open_rows(whole, digits().spec, str(tmp_path / "rows.npy"))[1]
    assert torch.equal(read.x, torch.from_numpy(rows))


def test_data_that_have_changed_are_named(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 3)))
    given = {**settings(steps=2), "data": str(tmp_path / "x.npy")}
    train(given, tmp_path / "run", progress=False)
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(60, 3)))
    with pytest.raises(ValueError, match=r"changed since .* was trained.*test"):
        open_data(tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser writes anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="cannot be written"):
        train(settings(), tmp_path / "run", progress=False)
