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
from genmod.path import AutoTimesteps
from genmod.runs import RunFolder, describe
from genmod.runs.folder import refuse_changes
from genmod.runs.reports import report_from, scores_from, tensors_of

_MINUTE = 60.0


@dataclass(frozen=True)
class Job:
    """The settings that all candidates of a comparison share.

    Args:
        path: the run folder.
        candidates: all candidates, in an order that respects their ``after``.
        seed: the seed of weights, batches and noise.
        effort: the fraction of the full number of steps.
        minutes: the time budget of each training; ``None``: no limit.
    """

    path: Path
    candidates: Sequence[Candidate]
    seed: int
    effort: float
    minutes: float | None

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.path)

    def candidate(self, name: str) -> Candidate:
        """The candidate with this name."""
        return next(candidate for candidate in self.candidates if candidate.name == name)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: the last bits of a sum depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build(
    job: Job, candidate: Candidate, data: Dataset, trained: Mapping[str, LatentModel]
) -> LatentModel:
    """Build an untrained candidate, whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(job.seed)
        before = {name: trained[name] for name in candidate.after}
        return candidate.build(BuildInputs(data, job.effort, before))


def restore(job: Job, data: Dataset, names: Sequence[str]) -> dict[str, LatentModel]:
    """Load trained candidates, and those in their ``after``, from their files.

    Raises:
        ValueError: a candidate that was trained with different settings, or a damaged file.
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
    """The reports of an earlier run, by name. All records are checked before any training.

    Raises:
        ValueError: a candidate that was begun with different settings, or a damaged file.
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
    """Train, evaluate and save a candidate; continue where an earlier run stopped.

    An error of settings, data or arithmetic becomes a ``Failed`` event, so that the other candidates go on.
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
    """Choose the plan. A continued run keeps its plan, even if the machine is now faster or slower."""
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
    """Train to the end of the plan; returns the record with the training time."""
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
            # Written with each checkpoint, so that a continued run adds to the right time.
            now = replace(record, seconds=time.monotonic() - began)
            write_record(job.folder, candidate, now)
    return replace(record, seconds=time.monotonic() - began)


_DAMAGED = "delete it to train that model again, or throw the run away (--fresh, or fresh=True)"


@dataclass(frozen=True)
class Record:
    """The record of a candidate in the run folder.

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
        "timesteps": candidate.timesteps,
        "after": list(candidate.after),
        "model": describe(model),
    }


def read_record(folder: RunFolder, candidate: Candidate) -> Record | None:
    """Read the record of a candidate; ``None`` if its training was never begun.

    Raises:
        ValueError: a damaged file.
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
    """Require that a candidate has the settings with which its training began.

    Raises:
        ValueError: it lists every setting that changed.
    """
    refuse_changes(record.settings, settings, f"{candidate.name} in {folder.folder}")


def write_record(folder: RunFolder, candidate: Candidate, record: Record) -> None:
    """Write the record of a candidate. A record with a report means that the candidate is done."""
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
    """Load the weights of a trained model into an untrained one, and set evaluation mode.

    Raises:
        ValueError: a missing or damaged file.
    """
    tensors, _ = read_tensors(folder.weights(candidate.slug), _DAMAGED)
    load_weights(model, tensors)
    return model.eval()
