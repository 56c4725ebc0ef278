"""``metrics.jsonl``: a line of JSON for some steps of a run, and what is known of the machine."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import torch

from genmod.files import read_json, read_text, write_json, write_text
from genmod.training import History, Step
from genmod.version import __version__

_LINES = 200
"""Lines of a stage, beside those of validations."""
_FORMAT = "genmod-environment-1"
_PACKAGES = ("torch", "numpy", "safetensors", "scikit-learn")


class StepLines:
    """The lines of one run, one after another; a context manager.

    Args:
        path: the file. Lines of steps that a resumed run makes again are removed from it.
        steps: of each stage.
        history: what was done before.
    """

    def __init__(self, path: Path, steps: int, history: History) -> None:
        self.path, self.every = path, max(1, steps // _LINES)
        kept = [line for line in read_metrics(path) if _made(line, history)]
        write_text(path, "".join(f"{json.dumps(line)}\n" for line in kept))
        self._before = kept[-1]["seconds"] if kept else 0.0
        self._began = time.monotonic()
        self._file: TextIO | None = None

    @property
    def seconds(self) -> float:
        """The time that training took so far, also in earlier processes."""
        return float(self._before + time.monotonic() - self._began)

    def __enter__(self) -> StepLines:
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, step: Step) -> None:
        """A line for a step, if it is the turn of one."""
        found = step.validation
        if step.number % self.every and found is None:
            return
        line: dict[str, Any] = {"stage": step.stage, "step": step.number, "loss": step.loss}
        line |= {"bound": step.bound, "seconds": round(self.seconds, 3)}
        if found is not None:
            line |= {"validation": found.nats, "error": found.error}
        assert self._file is not None
        self._file.write(f"{json.dumps(line)}\n")
        self._file.flush()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``; a last line that a killed process left unfinished is left out.

    Raises:
        ValueError: another line that is no JSON.
    """
    if not path.exists():
        return []
    lines = read_text(path, "move it away").split("\n")
    found = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or not {"stage", "step", "loss", "seconds"} <= entry.keys():
            raise ValueError(
                f"got {path} with line {number}, which is no line of metrics; expected JSON that genmod "
                "wrote; move the file away"
            )
        found.append(entry)
    return found


def _made(line: dict[str, Any], history: History) -> bool:
    """Whether a line is of a step that the run has made, and will not make again."""
    stages = {stage.name: len(stage.losses) for stage in history.stages}
    return bool(line["step"] <= stages.get(line["stage"], 0))


def write_environment(path: Path, device: str, argv: Iterable[str] = ()) -> None:
    """Add this process to ``environment.json``: versions, machine, time, command."""
    sessions = read_json(path, _FORMAT, "move it away")["sessions"] if path.exists() else []
    session = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(argv),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "genmod": __version__,
        "packages": {name: _version(name) for name in _PACKAGES},
        "executable": Path(sys.executable).name,
    }
    write_json(path, {"format": _FORMAT, "sessions": [*sessions, session]})


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
