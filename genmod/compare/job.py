"""A job: the training and scoring of one candidate, and its record in the run folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from genmod.compare.candidate import BuildInputs, Candidate, Plan, select
from genmod.compare.progress import Began, Ended, Failed, OnEvent, Progressed, Scoring
from genmod.compare.records import Record, RunFolder, settings_of
from genmod.data import Dataset
from genmod.evaluation import Report, evaluate
from genmod.files import remove
from genmod.model import LatentModel
from genmod.path import AutoTimesteps

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
        job.folder.read(candidate, settings_of(candidate, job.effort, model))
        models[candidate.name] = job.folder.load(candidate, model)
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
            if not trained.keys() >= set(candidate.after):
                continue
            if not job.folder.record(candidate.slug).exists():
                continue
            model = build(job, candidate, data, trained)
            record = job.folder.read(candidate, settings_of(candidate, job.effort, model))
            if record is not None and record.report is not None:
                found[candidate.name] = record.report
                if candidate.name in needed:
                    trained[candidate.name] = job.folder.load(candidate, model)
    return found


def report_of(job: Job, candidate: Candidate) -> Report:
    """The report of a candidate that is done."""
    record = job.folder.read(candidate)
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
    record = job.folder.read(candidate, settings)
    if record is None:
        record = Record(settings, _plan(job, candidate, model, data))
        job.folder.write(candidate, record)
    record = _train(job, candidate, model, data, record, on_event)
    job.folder.save(candidate, model)
    on_event(Scoring(candidate.name))
    report = evaluate(
        model,
        data,
        name=candidate.name,
        timesteps=AutoTimesteps.EVALUATION if candidate.timesteps is None else candidate.timesteps,
        importance_samples=candidate.importance_samples,
        refine_steps=candidate.refine_steps,
        seed=job.seed,
        seconds=record.seconds,
    )
    job.folder.write(candidate, replace(record, report=report))
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
            job.folder.write(candidate, now)
    return replace(record, seconds=time.monotonic() - began)
