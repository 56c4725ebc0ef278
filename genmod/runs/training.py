"""Train a model into a folder that explains itself, and go on where it stopped.

::

    config.yaml          what rebuilds data, model and training
    model.safetensors    the averaged weights, once the run is done
    checkpoints/         all that training changes
    metrics.jsonl        loss, bound and validation, a line a step
    report.json, .md     the report on the test part
    figures/             the training curve, samples on the way
    environment.json     versions and machine, for each process
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from genmod.checks import require
from genmod.config import to_plain
from genmod.data import Dataset
from genmod.evaluation import Report, evaluate
from genmod.files import as_path, check_folder, locked, read_json, write_json
from genmod.model import LatentModel
from genmod.runs.config import RunConfig, plain_identity
from genmod.runs.figures import draw_samples, save_figure
from genmod.runs.reports import write_markdown
from genmod.saving.folder import CONFIG, WEIGHTS, read_config, save_model, write_config
from genmod.training import History, Step, training_loop
from genmod.training.metrics import OnProgress
from genmod.version import __version__

_ENVIRONMENT = "genmod-environment-1"
_PACKAGES = ("torch", "numpy", "safetensors", "scikit-learn")
_LOOKS = 4
"""Figures of samples on the way, for each stage."""


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """What :func:`train` returns.

    Args:
        folder: of the run.
        model: with the averaged weights.
        data: what it was trained on.
        history: of the training.
        finished: whether all steps were made.
        report: on the test part; ``None`` without one, or before the end.
    """

    folder: Path
    model: LatentModel
    data: Dataset
    history: History
    finished: bool
    report: Report | None = None


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

    Args:
        config: the settings, as :class:`RunConfig` or in its three sections.
        folder: of the run; it is made. Another process that uses it is refused.
        resume: whether to go on with a run that is there. It must have the same settings, or fewer steps.
        scored: whether to evaluate the model at the end.
        progress: whether to show a bar, or what is called instead; see :func:`genmod.fit`.
        stop: asked after each step; once it is true, a checkpoint is written and the run returns.

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
    place = as_path(folder)
    with locked(place):
        _check_free(place, resume)
        data = config.load_data()
        model, given = config.build(data), config.arguments()
        recorded = {
            **config.sections(),
            "model": to_plain(model),
            "trained_on": plain_identity(data),
        }
        # A folder of checkpoints: the last ones, and the one of the best validation.
        given.setdefault("keep", 1)
        loop = training_loop(
            model, data, **given, checkpoint=place / "checkpoints", metrics=place, progress=progress
        )
        write_config(place, {**_stated(place), **recorded})
        session = Session.begin(place / "environment.json", str(model.device))
        finished = True
        for step in loop:
            _look(place, step, data, int(given.get("steps", 2000)))
            if stop():
                loop.save()
                finished = False
                break
        seconds = session.end()
        run = TrainedRun(place, model, data, loop.history, finished)
        if not finished:
            return run
        save_model(model, place, {**recorded, "model": to_plain(model)})
        return _finish(run, seconds, scored)


def _stated(place: Path) -> dict[str, Any]:
    """What a finished run that is extended has recorded of its weights."""
    found = read_config(place) if (place / CONFIG).exists() else {}
    return {name: found[name] for name in ("device", "dtype") if name in found}


def _check_free(place: Path, resume: bool) -> None:
    there = (place / CONFIG).exists()
    require(
        resume or not there,
        f"{place}, which holds a run",
        "an empty folder",
        "pass --resume (resume=True) to go on with it, or another folder",
    )
    require(
        there or not (place / WEIGHTS).exists(),
        f"{place} with a {WEIGHTS} that is no run's",
        "an empty folder",
        "choose another one",
    )
    check_folder(place / "checkpoints")
    check_folder(place / "figures")


def _look(place: Path, step: Step, data: Dataset, steps: int) -> None:
    """Samples on the way, a few times."""
    if step.number % max(1, steps // _LOOKS) or step.number == steps:
        return
    path = place / "figures" / f"{step.stage}-{step.number:06}.png"
    model = step.averaged
    try:
        draw_samples(path, model, data, f"{step.stage} after {step.number} steps")
    except ValueError as error:
        # Early weights may give samples that no figure can show; training goes on.
        print(f"no figure after step {step.number}: {error}", file=sys.stderr)


def _finish(run: TrainedRun, seconds: float, scored: bool) -> TrainedRun:
    """The figures and the report of a run that is done."""
    figures = {"Training": run.folder / "figures" / "training.png"}
    save_figure(run.history.plot(), figures["Training"])
    path = run.folder / "figures" / "samples.png"
    if draw_samples(path, run.model, run.data, type(run.model).__name__):
        figures["Samples"] = path
    if not scored or not len(run.data.test):
        return run
    report = evaluate(run.model, run.data, seconds=seconds)
    write_run_report(run.folder, report, figures)
    return replace(run, report=report)


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
    """One process of a run, as ``environment.json`` lists it.

    Args:
        path: the file.
        earlier: the processes before.
        facts: versions, machine, time, command.
        began: the clock at its start.
    """

    path: Path
    earlier: list[dict[str, Any]]
    facts: dict[str, Any]
    began: float

    @classmethod
    def begin(cls, path: Path, device: str) -> Session:
        """Add this process to the file."""
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
        """Add how long it took; the seconds of all processes that ended by themselves."""
        seconds = time.monotonic() - self.began
        self._write({**self.facts, "seconds": round(seconds, 3)})
        return float(seconds + sum(each.get("seconds", 0.0) for each in self.earlier))

    def _write(self, facts: dict[str, Any]) -> None:
        write_json(self.path, {"format": _ENVIRONMENT, "sessions": [*self.earlier, facts]})


def seconds_of(folder: Path) -> float | None:
    """How long a run has trained, in all processes that ended by themselves."""
    path = folder / "environment.json"
    if not path.exists():
        return None
    sessions = read_json(path, _ENVIRONMENT, "move it away")["sessions"]
    return float(sum(each.get("seconds", 0.0) for each in sessions))
