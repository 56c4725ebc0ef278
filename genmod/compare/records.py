"""The record of a candidate in a run folder: its settings by value, its progress, its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genmod.compare.candidate import Candidate
from genmod.compare.plan import Plan
from genmod.elbo import Measure
from genmod.evaluation import Report
from genmod.files import read_tensors, save_tensors
from genmod.model import LatentModel
from genmod.nn.modules import load_weights, weights
from genmod.runs import RunFolder, describe
from genmod.runs.folder import refuse_changes
from genmod.runs.reports import report_from, scores_from, tensors_of

_DAMAGED = "delete it to train that model again, or throw the run away (--fresh, or fresh=True)"


@dataclass(frozen=True)
class Record:
    """What is known of a candidate.

    Args:
        settings: see :func:`settings_of`.
        plan: how it is trained: the candidate's plan, or as much of it as fits a time budget.
        seconds: how long it has trained so far.
        report: its report, once it is done.
    """

    settings: Mapping[str, object]
    plan: Plan
    seconds: float = 0.0
    report: Report | None = None


def settings_of(candidate: Candidate, effort: float, model: LatentModel) -> dict[str, object]:
    """The value of every setting that decides a candidate's numbers, as plain data.

    Args:
        candidate: its plan, and how it is scored.
        effort: the fraction of the full number of steps.
        model: as it was built, untrained: every setting of its parts counts, with or without a shape.
    """
    return {
        **asdict(candidate.plan.times(effort)),
        "importance_samples": candidate.importance_samples,
        "timesteps": candidate.timesteps,
        "after": list(candidate.after),
        "model": describe(model),
    }


def read_record(folder: RunFolder, candidate: Candidate) -> Record | None:
    """What is known of a candidate; ``None`` if it was never begun.

    Raises:
        ValueError: a torn file.
    """
    content = folder.read(candidate.slug)
    if content is None:
        return None
    plan = Plan(**content["plan"])
    return Record(
        content["settings"], plan, content["seconds"], _report(folder, candidate, content)
    )


def _report(folder: RunFolder, candidate: Candidate, content: Mapping[str, Any]) -> Report | None:
    found = content["report"]
    if found is None:
        return None
    tensors, _ = read_tensors(folder.scores(candidate.slug), _DAMAGED)
    return report_from(found, scores_from(tensors, Measure(found["measure"])))


def check_record(
    folder: RunFolder, candidate: Candidate, record: Record, settings: Mapping[str, object]
) -> None:
    """Require that a candidate was begun with the settings that it has now.

    Raises:
        ValueError: with every setting that changed.
    """
    refuse_changes(record.settings, settings, f"{candidate.name} in {folder.folder}")


def write_record(folder: RunFolder, candidate: Candidate, record: Record) -> None:
    """Write what is known of a candidate. The report is last: a record that has one is done."""
    report = record.report
    if report is not None and report.scores is not None:
        save_tensors(folder.scores(candidate.slug), tensors_of(report.scores))
    content = {
        "name": candidate.name,
        "settings": dict(record.settings),
        "plan": asdict(record.plan),
        "seconds": record.seconds,
        "report": None if report is None else report.to_dict(),
    }
    folder.write(candidate.slug, content)


def save_model(folder: RunFolder, candidate: Candidate, model: LatentModel) -> None:
    """Write the weights of a trained model."""
    metadata = {"name": candidate.name, "model": repr(model)}
    save_tensors(folder.weights(candidate.slug), weights(model), metadata)


def restore_model(folder: RunFolder, candidate: Candidate, model: LatentModel) -> LatentModel:
    """Put the weights of a trained model into one that was built alike, ready for use.

    Raises:
        ValueError: a file that is missing or torn.
    """
    tensors, _ = read_tensors(folder.weights(candidate.slug), _DAMAGED)
    load_weights(model, tensors)
    return model.eval()
