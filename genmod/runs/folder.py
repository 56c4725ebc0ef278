"""The folder of a run: settings that identify it, weights, checkpoints, records, figures.

Below the folder, for each model by a name that files can have:

* ``run.json``: the settings that decide the numbers;
* ``checkpoints/NAME.safetensors``: a training that is not done;
* ``models/NAME.safetensors``: the weights of a trained model;
* ``records/NAME.json``: how it was trained, and its report; ``.safetensors``: the scores of every row;
* ``figures/``, ``report.md``, ``report.json``.

Every file is written beside its place and then moved there in one move. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genmod.checks import require
from genmod.files import check_folder, read_json, remove, write_json
from genmod.runs.identity import changes

_RUN, _RECORD = "genmod-run-1", "genmod-record-1"
ADVICE = (
    "use the same settings to continue that run, choose another folder (--out), or throw the run away "
    "(--fresh, or fresh=True)"
)
_TORN = (
    "move it away, choose another folder (--out), or throw the run away (--fresh, or fresh=True)"
)


@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Args:
        folder: where they are.
    """

    folder: Path

    def checkpoint(self, name: str) -> Path:
        """A training that is not done."""
        return self.folder / "checkpoints" / f"{name}.safetensors"

    def weights(self, name: str) -> Path:
        """The weights of a trained model."""
        return self.folder / "models" / f"{name}.safetensors"

    def record(self, name: str) -> Path:
        """How a model was trained, and its report."""
        return self.folder / "records" / f"{name}.json"

    def scores(self, name: str) -> Path:
        """The scores of every test row."""
        return self.folder / "records" / f"{name}.safetensors"

    @property
    def figures(self) -> Path:
        """The folder of the figures."""
        return self.folder / "figures"

    def open(self, settings: Mapping[str, object], fresh: bool = False) -> None:
        """Begin a run in this folder, or continue the one that is there.

        Args:
            settings: plain data that decide the numbers.
            fresh: whether to throw away a run that is there.

        Raises:
            ValueError: the run that is there has other settings; the folder cannot be written to.
        """
        check_folder(self.folder)
        path = self.folder / "run.json"
        if fresh:
            self._clear(path)
        if path.exists():
            saved = read_json(path, _RUN, _TORN)["settings"]
            refuse_changes(saved, settings, str(self.folder))
            return
        left = sorted(path.name for path in self.folder.glob("records/*.json"))
        require(
            not left,
            f"{self.folder} with records of a run ({', '.join(left)}), but no run.json",
            "a folder without a run, or a whole one",
            ADVICE,
        )
        write_json(path, {"format": _RUN, "settings": dict(settings)})

    def _clear(self, path: Path) -> None:
        """Remove what a run has written for its models, and nothing else that may lie there."""
        remove(path)
        for record in self.folder.glob("records/*.json"):
            name = record.stem
            for file in (self.checkpoint(name), self.weights(name), self.scores(name), record):
                remove(file)

    def read(self, name: str) -> dict[str, Any] | None:
        """The record of a model; ``None`` if there is none.

        Raises:
            ValueError: the file is torn, or of another format.
        """
        path = self.record(name)
        return read_json(path, _RECORD, _TORN) if path.exists() else None

    def write(self, name: str, content: Mapping[str, object]) -> None:
        """Write the record of a model."""
        write_json(self.record(name), {"format": _RECORD, **content})


def refuse_changes(saved: object, wanted: object, whose: str) -> None:
    """Require equal settings.

    Raises:
        ValueError: with every setting that changed, and both of its values.
    """
    # There and back: JSON knows no difference between some types.
    found = changes(saved, json.loads(json.dumps(wanted)))
    shown = ", ".join(found[:_SHOWN]) + (
        f" and {len(found) - _SHOWN} more" if found[_SHOWN:] else ""
    )
    require(not found, f"other settings than those of {whose}: {shown}", "the same ones", ADVICE)


_SHOWN = 8
"""Changed settings that a message lists."""
