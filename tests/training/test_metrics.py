"""MetricsLog: the lines of a run, a resumed run's lines, and trackers."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from genmod.models import LatentDiffusion
from genmod.training import fit, training_loop
from genmod.training import metrics as module
from genmod.training.metrics import MetricsLog, check_trackers, read_metrics
from tests.training.cases import data, split, vae

SETTINGS: dict[str, Any] = {
    "steps": 12,
    "batch_size": 16,
    "validate_every": 5,
    "log_every": 4,
    "progress": False,
}


def test_lines_are_the_numbers_of_the_history(tmp_path: Path) -> None:
    history = fit(vae(), split(), metrics=tmp_path, **SETTINGS)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [4, 5, 8, 10, 12]
    assert [row["loss"] for row in rows] == [history.losses[row["step"] - 1] for row in rows]
    found = {row["step"]: row["validation"] for row in rows if "validation" in row}
    assert found == {v.step: v.nats for v in history.validations}
    assert all(row["bound"] == pytest.approx(-row["loss"], rel=1e-6) for row in rows)
    assert all(row["learning_rate"] > 0 for row in rows)


def test_a_resumed_run_lists_no_step_twice(tmp_path: Path) -> None:
    """Stopped after the last checkpoint, and with a line that was cut off."""
    fit(vae(), split(), metrics=tmp_path / "whole.jsonl", **SETTINGS)
    place: dict[str, Any] = {
        "metrics": tmp_path / "m.jsonl",
        "checkpoint": tmp_path / "run",
        "checkpoint_every": 6,
    }
    for step in training_loop(vae(), split(), **place, **SETTINGS):
        if step.number == 9:
            break
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('{"stage": 0, "step": 9, "lo')
    fit(vae(), split(), **place, **SETTINGS)
    assert read_metrics(tmp_path / "m.jsonl") == read_metrics(tmp_path / "whole.jsonl")
    fit(vae(), split(), metrics=tmp_path / "m.jsonl", **SETTINGS)
    assert read_metrics(tmp_path / "m.jsonl") == read_metrics(tmp_path / "whole.jsonl")


def test_infinity_is_null_and_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    written = MetricsLog(path)
    written.log(0, 1, {"loss": float("inf"), "bound": float("nan")})
    written.close()
    assert json.loads(path.read_text()) == {"stage": 0, "step": 1, "loss": None, "bound": None}
    path.write_text('{"stage": 0, "step": 1}\nnonsense\n{"stage": 0, "step": 2}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*m\.jsonl"):
        read_metrics(path)


def test_a_tracker_gets_the_same_numbers(tmp_path: Path) -> None:
    """TensorBoard, read back from its event file."""
    pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = fit(vae(), split(), metrics=tmp_path, trackers="tensorboard", **SETTINGS)
    events = EventAccumulator(str(tmp_path / "VAE"))
    events.Reload()
    scalars = {event.step: event.value for event in events.Scalars("loss")}
    assert scalars == {
        step: pytest.approx(history.losses[step - 1], rel=1e-6) for step in (4, 5, 8, 10, 12)
    }


class _Tracker:
    """A tracker that keeps what it gets."""

    requires_logging_directory = False

    def __init__(self, name: str) -> None:
        self.steps: list[int] = []
        kept.append(self)

    def start(self) -> None: ...

    def store_init_configuration(self, values: dict[str, object]) -> None: ...

    def log(self, values: dict[str, float], step: int) -> None:
        self.steps.append(step)

    def finish(self) -> None: ...


kept: list[_Tracker] = []


def test_the_steps_of_a_second_stage_follow_those_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trackers drop a step that is not above the last one."""
    tracking = pytest.importorskip("accelerate.tracking")
    monkeypatch.setattr(module, "check_trackers", lambda names: ("mine",))
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mine", _Tracker)
    kept.clear()
    model = LatentDiffusion(3, latents=2, width=8)
    fit(model, data(), trackers="mine", **{**SETTINGS, "steps": 4, "log_every": 2})
    assert [step for tracker in kept for step in tracker.steps] == [2, 4, 6, 8]


def test_missing_folders_of_a_file_of_metrics_are_made(tmp_path: Path) -> None:
    place = tmp_path / "new" / "folder" / "m.jsonl"
    fit(vae(), data(), metrics=place, **{**SETTINGS, "steps": 4})
    assert [row["step"] for row in read_metrics(place)] == [4]


def test_a_disk_that_is_full_during_the_run_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint from before is kept, so that the run goes on once there is space."""
    place: dict[str, Any] = {"checkpoint": tmp_path / "run", "checkpoint_every": 4}
    loop = training_loop(vae(), split(), metrics=tmp_path, **place, **SETTINGS)
    for step in loop:
        if step.number == 6:
            break

    def full(self: Path, *arguments: object, **named: object) -> object:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(ValueError, match=r"m.*jsonl, which cannot be written \(No space.*free"):
            for _ in loop:
                pass
    history = fit(vae(), split(), metrics=tmp_path, **place, **SETTINGS)
    assert history.losses == fit(vae(), split(), **SETTINGS).losses


def test_trackers_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="did you mean 'tensorboard'"):
        fit(vae(), data(), trackers="tensor-board", progress=False)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"without accelerate and wandb.*pip install"):
        check_trackers(["wandb"])


def test_a_place_that_cannot_be_written_is_refused_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "m.jsonl"):
        with pytest.raises(ValueError, match="file"):
            fit(vae(), data(), metrics=place, steps=1, progress=False)
