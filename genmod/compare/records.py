"""The folder of a comparison: its settings, and of each candidate the weights, checkpoint and record.

::

    run.json                      the settings that decide the numbers
    checkpoints/NAME.safetensors  a training that is not done
    models/NAME.safetensors       the weights of a trained model
    records/NAME.json             how it was trained, and its report
    records/NAME.safetensors      the scores of every test row
    figures/, report.md, report.json

``NAME`` is a candidate's name in lower-case letters, digits and hyphens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genmod.checks import invalid
from genmod.compare.candidate import Candidate, Plan
from genmod.elbo import Measure
from genmod.evaluation import Report
from genmod.files import check_folder, read_json, read_tensors, remove, save_tensors, write_json
from genmod.model import LatentModel
from genmod.nn.modules import load_weights, weights
from genmod.runs.reports import report_from, scores_from, tensors_of
from genmod.training.identity import module_settings, refuse_changes

_RUN, _RECORD = "genmod-run-1", "genmod-record-2"
_ELSE = "choose another folder (--out), or throw the run away (--fresh, or fresh=True)"
_CHANGED = f"use the same settings to continue that run, {_ELSE}"
_TORN = f"move it away, {_ELSE}"
_DAMAGED = "delete it to train that model again, or throw the run away (--fresh, or fresh=True)"


@dataclass(frozen=True)
class Record:
    """How a candidate was trained.

    Args:
        settings: see :func:`settings_of`.
        plan: the plan of its training, cut to the time budget.
        seconds: the training time so far.
        report: the evaluation report; ``None`` until the candidate is done.
    """

    settings: Mapping[str, object]
    plan: Plan
    seconds: float = 0.0
    report: Report | None = None


def settings_of(candidate: Candidate, effort: float, model: LatentModel) -> dict[str, object]:
    """Every setting on which a candidate's results depend, as plain data.

    Args:
        candidate: the candidate.
        effort: the fraction of the full number of steps.
        model: the untrained model; all settings of its parts are included.
    """
    return {
        **asdict(candidate.plan.times(effort)),
        "importance_samples": candidate.importance_samples,
        "refine_steps": candidate.refine_steps,
        "timesteps": candidate.timesteps,
        "after": list(candidate.after),
        **module_settings(model),
    }


@dataclass(frozen=True)
class RunFolder:
    """The files of a comparison.

    Args:
        folder: the folder that they are in.
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
            refuse_changes(saved, settings, f"the run in {self.folder}", _CHANGED)
            return
        left = sorted(path.name for path in self.folder.glob("records/*.json"))
        if left:
            raise invalid(
                f"{self.folder} with records of a run ({', '.join(left)}), but no run.json",
                "a folder without a run, or a whole one",
                _TORN,
            )
        write_json(path, {"format": _RUN, "settings": dict(settings)})

    def _clear(self, path: Path) -> None:
        """Remove what a run has written for its models, and nothing else that may lie there."""
        remove(path)
        for record in self.folder.glob("records/*.json"):
            name = record.stem
            for file in (self.checkpoint(name), self.weights(name), self.scores(name), record):
                remove(file)

    def read(
        self, candidate: Candidate, settings: Mapping[str, object] | None = None
    ) -> Record | None:
        """The record of a candidate; ``None`` if its training was never begun.

        Args:
            candidate: the candidate.
            settings: the settings that it must have been made with; ``None``: any.

        Raises:
            ValueError: a damaged file; other settings, each of which the message names.
        """
        path = self.record(candidate.slug)
        if not path.exists():
            return None
        content = read_json(path, _RECORD, _TORN)
        saved, report = content["settings"], self._report(candidate, content["report"])
        if settings is not None:
            what = f"{candidate.name} in {self.folder}"
            refuse_changes(saved, settings, what, _CHANGED)
        return Record(saved, Plan(**content["plan"]), content["seconds"], report)

    def _report(self, candidate: Candidate, found: Mapping[str, Any] | None) -> Report | None:
        if found is None:
            return None
        tensors, _ = read_tensors(self.scores(candidate.slug), _DAMAGED)
        return report_from(found, scores_from(tensors, Measure(found["measure"])))

    def write(self, candidate: Candidate, record: Record) -> None:
        """Write the record of a candidate. A record with a report means that the candidate is done."""
        report = record.report
        if report is not None and report.scores is not None:
            save_tensors(self.scores(candidate.slug), tensors_of(report.scores))
        content = {
            "format": _RECORD,
            "name": candidate.name,
            "settings": dict(record.settings),
            "plan": asdict(record.plan),
            "seconds": record.seconds,
            "report": None if report is None else report.to_dict(),
        }
        write_json(self.record(candidate.slug), content)

    def save(self, candidate: Candidate, model: LatentModel) -> None:
        """Write the weights of a trained model."""
        metadata = {"name": candidate.name, "model": repr(model)}
        save_tensors(self.weights(candidate.slug), weights(model), metadata)

    def load(self, candidate: Candidate, model: LatentModel) -> LatentModel:
        """Load the weights of a trained model into an untrained one, and set evaluation mode.

        Raises:
            ValueError: a missing or damaged file.
        """
        tensors, _ = read_tensors(self.weights(candidate.slug), _DAMAGED)
        load_weights(model, tensors)
        return model.eval()
