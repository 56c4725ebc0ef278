"""One candidate's work, from its settings to its files, in whatever process it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from genmod.compare.candidate import BuildInputs, Candidate, select
from genmod.compare.plan import Plan
from genmod.compare.progress import Began, Ended, Failed, OnEvent, Progressed, Scoring
from genmod.compare.records import (
    Record,
    check_record,
    read_record,
    restore_model,
    save_model,
    settings_of,
    write_record,
)
from genmod.data import Dataset
from genmod.evaluation import evaluate
from genmod.files import remove
from genmod.model import LatentModel
from genmod.path import AutoTimesteps
from genmod.runs import RunFolder

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
