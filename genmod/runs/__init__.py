"""Runs: train a model into a folder that explains itself, go on, and read it again.

::

    config.yaml          what rebuilds data, model and training
    model.safetensors    the averaged weights, once the run is done
    checkpoints/         all that training changes
    metrics.jsonl        loss, bound and validation, a line a step
    report.json, .md     the report on the test part
    figures/             the training curve, samples on the way
    environment.json     versions and machine, for each session
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from genmod.checks import invalid
from genmod.config.plain import to_plain
from genmod.data import Dataset
from genmod.evaluation import Report, evaluate
from genmod.files import as_path, check_folder, locked, read_json, write_json
from genmod.model import LatentModel
from genmod.runs.config import RunConfig as RunConfig
from genmod.runs.config import plain_identity
from genmod.runs.figures import draw_samples, save_figure
from genmod.runs.reports import write_markdown
from genmod.saving import CONFIG, WEIGHTS, read_config, save_model, write_config
from genmod.signatures import checked
from genmod.training import History, Step, training_loop
from genmod.training.config import TrainingConfig
from genmod.training.devices import Devices
from genmod.training.metrics import OnProgress
from genmod.version import __version__

__all__ = ["RunConfig", "train"]

_ENVIRONMENT = "genmod-environment-1"
_PACKAGES = ("torch", "numpy", "safetensors", "scikit-learn")
_LOOKS = 4
"""Figures of samples on the way, for each stage."""


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """What :func:`train` returns.

    Args:
        folder: the folder of the run.
        model: the model, with the averaged weights.
        data: the data that it was trained on.
        history: the history of the training.
        finished: whether all steps were made.
        report: the report on the test part; ``None`` without a test part, or before the end.
        is_main: whether this process wrote the files: of several processes, one does.
    """

    folder: Path
    model: LatentModel
    data: Dataset
    history: History
    finished: bool
    report: Report | None = None
    is_main: bool = True


@checked
def train(
    config: RunConfig | Mapping[str, Any],
    folder: Path | str,
    *,
    resume: bool = False,
    scored: bool = True,
    progress: bool | OnProgress = True,
    stop: Callable[[], bool] = lambda: False,
) -> TrainedRun:
    """Train a model into a folder, and score it on the test part.

    Under ``torchrun`` and ``accelerate launch`` the processes share every batch, as in :func:`genmod.fit`.
    The main process writes the files, and scores the model.

    Args:
        config: the settings, as :class:`RunConfig` or in its three sections.
        folder: the folder of the run, which is made. One that another run uses is refused.
        resume: whether to continue a run that is there. It must have the same settings, or fewer steps.
        scored: whether to evaluate the model at the end.
        progress: whether to show a bar, or a function that is called instead; see :func:`genmod.fit`.
        stop: called after each step; once it returns true, a checkpoint is written and the run ends.

    Returns:
        The model, its history and its report.

    Raises:
        ValueError: settings that cannot be right; a folder with a run in it, without ``resume``; a folder
            that another process uses, or that cannot be written to.

    >>> import tempfile
    >>> settings = {"data": "digits", "model": "VAE(latents=2, width=8)", "training": {"steps": 3}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = train(settings, folder, progress=False)
    ...     sorted(path.name for path in run.folder.iterdir() if path.name[0] != ".")[:4]
    ['checkpoints', 'config.yaml', 'environment.json', 'figures']
    """
    config = config if isinstance(config, RunConfig) else RunConfig.of(config)
    place, given = as_path(folder), config.arguments()
    devices = Devices.of(None, given.get("device"))
    with locked(place) if devices.is_main else nullcontext():
        if devices.is_main:
            _check_free(place, resume)
        # The folder is the main process's before another one looks into it.
        devices.wait()
        data = config.load_data()
        model = config.build(data)
        # A folder of checkpoints: the last ones, and the one of the best validation.
        given["keep"] = given.get("keep") or 1
        given |= {"checkpoint": place / "checkpoints", "metrics": place, "progress": progress}
        loop = training_loop(model, data, accelerator=devices.accelerator, **given)
        recorder = _Recorder.begin(place, config, model, data) if devices.is_main else None
        finished = True
        for step in loop:
            # Averages that are spread over processes draw no samples on the way.
            if recorder is not None and not given.get("shard"):
                recorder.look(step, int(given.get("steps", TrainingConfig.steps)))
            if devices.any(stop()):
                loop.save()
                finished = False
                break
        run = TrainedRun(place, model, data, loop.history, finished, is_main=devices.is_main)
        return run if recorder is None else recorder.end(run, scored)


@dataclass(frozen=True, eq=False)
class _Recorder:
    """Writes what the folder of a run holds beside checkpoints and metrics.

    Args:
        place: the folder.
        recorded: the sections of ``config.yaml``.
        data: the data of the run.
        session: this process in ``environment.json``.
    """

    place: Path
    recorded: Mapping[str, Any]
    data: Dataset
    session: Session

    @classmethod
    def begin(cls, place: Path, config: RunConfig, model: LatentModel, data: Dataset) -> _Recorder:
        """Write the settings, once all of them were checked, and the environment."""
        recorded = {
            **config.sections(),
            "model": to_plain(model),
            "trained_on": plain_identity(data),
        }
        write_config(place, {**_stated(place), **recorded})
        session = Session.begin(place / "environment.json", str(model.device))
        return cls(place, recorded, data, session)

    def look(self, step: Step, steps: int) -> None:
        """Draw samples on the way, a few times."""
        if step.number % max(1, steps // _LOOKS) == 0 and step.number != steps:
            name = f"{step.stage}-{step.number:06}.png"
            self.draw(name, step.averaged, f"{step.stage} after {step.number} steps")

    def draw(self, name: str, model: LatentModel, title: str) -> Path | None:
        """Draw samples beside data; ``None`` where no figure can show them."""
        path = self.place / "figures" / name
        try:
            return path if draw_samples(path, model, self.data, title) else None
        except ValueError as error:
            # Weights may give samples that no figure can show; the run goes on.
            print(f"no figure {name}: {error}", file=sys.stderr)
            return None

    def end(self, run: TrainedRun, scored: bool) -> TrainedRun:
        """Write the weights, figures and report of a run that is done."""
        seconds = self.session.end()
        if not run.finished:
            return run
        save_model(run.model, self.place, {**self.recorded, "model": to_plain(run.model)})
        figures = {"Training": self.place / "figures" / "training.png"}
        save_figure(run.history.plot(), figures["Training"])
        path = self.draw("samples.png", run.model, type(run.model).__name__)
        if path is not None:
            figures["Samples"] = path
        if not scored or not len(run.data.test):
            return run
        report = evaluate(run.model, run.data, seconds=seconds)
        write_run_report(self.place, report, figures)
        return replace(run, report=report)


def _stated(place: Path) -> dict[str, Any]:
    """What a finished run that is extended has recorded of its weights."""
    found = read_config(place) if (place / CONFIG).exists() else {}
    return {name: found[name] for name in ("device", "dtype") if name in found}


def _check_free(place: Path, resume: bool) -> None:
    there = (place / CONFIG).exists()
    if not resume and there:
        raise invalid(
            f"{place}, which holds a run",
            "an empty folder",
            "pass --resume (resume=True) to go on with it, or another folder",
        )
    if not there and (place / WEIGHTS).exists():
        raise invalid(
            f"{place} with a {WEIGHTS} that is no run's", "an empty folder", "choose another one"
        )
    check_folder(place / "checkpoints")
    check_folder(place / "figures")


def write_run_report(
    folder: Path, report: Report, figures: Mapping[str, Path], of: str = "the test part"
) -> None:
    """``report.json`` for programs, ``report.md`` for people."""
    write_json(folder / "report.json", {"format": "genmod-report-1", **report.to_dict()})
    settings = {"model": report.name, "scored on": of, "samples": report.samples}
    write_markdown(
        folder / "report.md", [report], settings, report.remarks, figures, title=report.name
    )


# ---------------------------------------------------------------------- where and with what


@dataclass(frozen=True)
class Session:
    """One session of a run, as ``environment.json`` lists it: from its start, or a resumption, to its end.

    Args:
        path: the file.
        earlier: the sessions before.
        facts: versions, machine, time, command.
        began: the clock at its start.
    """

    path: Path
    earlier: list[dict[str, Any]]
    facts: dict[str, Any]
    began: float

    @classmethod
    def begin(cls, path: Path, device: str) -> Session:
        """Add this session to the file."""
        found = read_json(path, _ENVIRONMENT, "move it away") if path.exists() else {}
        facts = {
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": device,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "threads": torch.get_num_threads(),
            "genmod": __version__,
            "packages": {name: version(name) for name in _PACKAGES},
        }
        made = cls(path, found.get("sessions", []), facts, time.monotonic())
        made._write(facts)
        return made

    def end(self) -> float:
        """Add how long it took; returns the seconds of all sessions that ended by themselves."""
        seconds = time.monotonic() - self.began
        self._write({**self.facts, "seconds": round(seconds, 3)})
        return float(seconds + sum(each.get("seconds", 0.0) for each in self.earlier))

    def _write(self, facts: dict[str, Any]) -> None:
        write_json(self.path, {"format": _ENVIRONMENT, "sessions": [*self.earlier, facts]})


def seconds_of(folder: Path) -> float | None:
    """How long a run has trained, in all sessions that ended by themselves."""
    path = folder / "environment.json"
    if not path.exists():
        return None
    sessions = read_json(path, _ENVIRONMENT, "move it away")["sessions"]
    return float(sum(each.get("seconds", 0.0) for each in sessions))
