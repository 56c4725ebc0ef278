"""A job: the training and scoring of one candidate, and its record in the run folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from genmod.compare.candidate import BuildInputs, Candidate, Plan, select
from genmod.compare.progress import Began, Ended, Failed, OnEvent, Progressed, Scoring
from genmod.data import Dataset
from genmod.elbo import Measure
from genmod.evaluation import Report, evaluate
from genmod.files import read_tensors, remove, save_tensors
from genmod.model import LatentModel
from genmod.nn.modules import load_weights, weights
from genmod.prior import AutoTimesteps
from genmod.runs import RunFolder, describe
from genmod.runs.folder import refuse_changes
from genmod.runs.reports import report_from, scores_from, tensors_of

_MINUTE = 60.0


@dataclass(frozen=True)
class Job:
    """What the candidates of a comparison share, except for the data.

    Args:
        path: the run folder.
        candidates: all of them, each after earlier ones only.
        seed: of weights, batches and noise.
        effort: the fraction of the full number of steps.
        minutes: how long each may train; ``None`` for as long as it takes.
    """

    path: Path
    candidates: Sequence[Candidate]
    seed: int
    effort: float
    minutes: float | None

    @property
    def folder(self) -> RunFolder:
        """Where the files are."""
        return RunFolder(self.path)

    def candidate(self, name: str) -> Candidate:
        """The candidate of a name."""
        return next(candidate for candidate in self.candidates if candidate.name == name)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch: the last bits of a sum depend on how many threads share it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build(
    job: Job, candidate: Candidate, data: Dataset, trained: Mapping[str, LatentModel]
) -> LatentModel:
    """A candidate untrained, with weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(job.seed)
        before = {name: trained[name] for name in candidate.after}
        return candidate.build(BuildInputs(data, job.effort, before))


def restore(job: Job, data: Dataset, names: Sequence[str]) -> dict[str, LatentModel]:
    """Trained candidates from their files, and those that they come after.

    Raises:
        ValueError: one was trained with other settings, or its file is torn.
    """
    models: dict[str, LatentModel] = {}
    for candidate in select(job.candidates, names) if names else []:
        model = build(job, candidate, data, models)
        record = read_record(job.folder, candidate)
        if record is not None:
            check_record(job.folder, candidate, record, settings_of(candidate, job.effort, model))
        models[candidate.name] = restore_model(job.folder, candidate, model)
    return models


def finished(job: Job, data: Dataset) -> dict[str, Report]:
    """The reports of an earlier run. Every record is checked before anything is trained.

    Raises:
        ValueError: a candidate was begun with other settings, or a file is torn.
    """
    needed = {name for candidate in job.candidates for name in candidate.after}
    trained: dict[str, LatentModel] = {}
    found: dict[str, Report] = {}
    with one_thread():
        for candidate in job.candidates:
            record = read_record(job.folder, candidate)
            if record is None or not trained.keys() >= set(candidate.after):
                continue
            model = build(job, candidate, data, trained)
            check_record(job.folder, candidate, record, settings_of(candidate, job.effort, model))
            if record.report is not None:
                found[candidate.name] = record.report
                if candidate.name in needed:
                    trained[candidate.name] = restore_model(job.folder, candidate, model)
    return found


def report_of(job: Job, candidate: Candidate) -> Report:
    """The report of a candidate that is done."""
    record = read_record(job.folder, candidate)
    assert record is not None
    assert record.report is not None
    return record.report


def run(job: Job, name: str, data: Dataset, on_event: OnEvent) -> None:
    """Train, score and save a candidate, continuing where an earlier run stopped.

    Settings, data and mathematics that fail become an event; the other candidates go on.
    """
    try:
        _run(job, job.candidate(name), data, on_event)
    except (ValueError, ArithmeticError) as error:
        on_event(Failed(name, str(error)))
    else:
        on_event(Ended(name))


def _run(job: Job, candidate: Candidate, data: Dataset, on_event: OnEvent) -> None:
    model = build(job, candidate, data, restore(job, data, candidate.after))
    settings = settings_of(candidate, job.effort, model)
    record = read_record(job.folder, candidate)
    if record is None:
        record = Record(settings, _plan(job, candidate, model, data))
        write_record(job.folder, candidate, record)
    check_record(job.folder, candidate, record, settings)
    record = _train(job, candidate, model, data, record, on_event)
    save_model(job.folder, candidate, model)
    on_event(Scoring(candidate.name))
    report = evaluate(
        model,
        data,
        name=candidate.name,
        timesteps=AutoTimesteps.EVALUATION if candidate.timesteps is None else candidate.timesteps,
        importance_samples=candidate.importance_samples,
        seed=job.seed,
        seconds=record.seconds,
    )
    write_record(job.folder, candidate, replace(record, report=report))
    remove(job.folder.checkpoint(candidate.slug))


def _plan(job: Job, candidate: Candidate, model: LatentModel, data: Dataset) -> Plan:
    """The plan, chosen once: a run that is continued keeps it, however fast the machine is by then."""
    plan = candidate.plan.times(job.effort)
    if job.minutes is None and plan.autocast is not None:
        return plan
    plan, timing = plan.with_precision(model, data, job.seed)
    return plan if job.minutes is None else plan.within_budget(job.minutes * _MINUTE, timing)


def _train(
    job: Job,
    candidate: Candidate,
    model: LatentModel,
    data: Dataset,
    record: Record,
    on_event: OnEvent,
) -> Record:
    """Train to the end of the plan; returns the record with the time it took."""
    plan, name = record.plan, candidate.name
    on_event(Began(name, plan.steps))
    began = time.monotonic() - record.seconds
    steps = plan.fit(
        model,
        data,
        job.seed,
        job.folder.checkpoint(candidate.slug),
        lambda step, text: on_event(Progressed(name, step, text)),
    )
    for step in steps:
        if step.number % plan.every == 0:
            # Beside each checkpoint: a run that is continued from it counts on from its time.
            now = replace(record, seconds=time.monotonic() - began)
            write_record(job.folder, candidate, now)
    return replace(record, seconds=time.monotonic() - began)


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
