"""One member's work, from its settings to its files; it knows nothing of the process it runs in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from genmod.compare.events import Began, Ended, Failed, Progressed, Scored, Tell
from genmod.compare.member import Member, Setting, select
from genmod.compare.shelf import Record, Shelf, asked
from genmod.data import Dataset
from genmod.evaluation import evaluate
from genmod.model import LatentModel
from genmod.prior import AutoTimesteps

_MINUTE = 60.0


@dataclass(frozen=True)
class Work:
    """What all members' work shares, but for the data.

    Args:
        folder: where their files are.
        members: all of them, each after earlier ones only.
        seed: of weights, batches and noise.
        effort: how much of the customary number of steps to make.
        minutes: how long each may train; ``None`` for as long as it takes.
    """

    folder: Path
    members: Sequence[Member]
    seed: int
    effort: float
    minutes: float | None

    @property
    def shelf(self) -> Shelf:
        """Where their files are."""
        return Shelf(self.folder)

    def member(self, name: str) -> Member:
        """The member of a name."""
        return next(member for member in self.members if member.name == name)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch: a sum cut among threads depends on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build(
    work: Work, member: Member, data: Dataset, trained: Mapping[str, LatentModel]
) -> LatentModel:
    """A member untrained, with weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(work.seed)
        before = {name: trained[name] for name in member.after}
        return member.build(Setting(data, work.effort, before))


def restore(work: Work, data: Dataset, names: Sequence[str]) -> dict[str, LatentModel]:
    """Trained members from their files, and those that they come after."""
    models: dict[str, LatentModel] = {}
    for member in select(work.members, names) if names else []:
        model = build(work, member, data, models)
        models[member.name] = work.shelf.restore(member, model)
    return models


def do(work: Work, name: str, data: Dataset, tell: Tell) -> None:
    """Train, score and keep a member, going on where an earlier run stopped.

    Settings, data and mathematics that go wrong are told, not raised: the other members go on.
    """
    member = work.member(name)
    try:
        _do(work, member, data, tell)
    except (ValueError, ArithmeticError) as error:
        tell(Failed(name, str(error)))
    else:
        tell(Ended(name))


def _do(work: Work, member: Member, data: Dataset, tell: Tell) -> None:
    shelf = work.shelf
    model = build(work, member, data, restore(work, data, member.after))
    record = shelf.read(member, work.effort)
    if record is None:
        record = _planned(work, member, model, data)
        shelf.write(member, record)
    record = _train(work, member, model, data, record, tell)
    shelf.keep(member, model)
    tell(Scored(member.name))
    report = evaluate(
        model,
        data,
        name=member.name,
        timesteps=AutoTimesteps.EVALUATION if member.timesteps is None else member.timesteps,
        importance_samples=member.importance_samples,
        seed=work.seed,
        seconds=record.seconds,
    )
    shelf.write(member, replace(record, report=report))
    shelf.checkpoint(member.slug).unlink(missing_ok=True)


def _planned(work: Work, member: Member, model: LatentModel, data: Dataset) -> Record:
    """The plan, chosen once: a run that goes on keeps it, however fast the machine is by then."""
    plan = member.plan.times(work.effort)
    if work.minutes is not None or plan.autocast is None:
        plan, pace = plan.settled(model, data, work.seed)
        plan = plan if work.minutes is None else plan.within(work.minutes * _MINUTE, pace)
    return Record(asked(member, work.effort), plan)


def _train(
    work: Work, member: Member, model: LatentModel, data: Dataset, record: Record, tell: Tell
) -> Record:
    """Train to the end of the plan; returns the record with the time it took."""
    plan, name = record.plan, member.name
    tell(Began(name, plan.steps))
    began = time.monotonic() - record.seconds
    steps = plan.fit(
        model,
        data,
        work.seed,
        work.shelf.checkpoint(member.slug),
        lambda step, said: tell(Progressed(name, step, said)),
    )
    for step in steps:
        if step.number % plan.every == 0:
            # Beside each checkpoint: a run that goes on from it counts on from its time.
            work.shelf.write(member, replace(record, seconds=time.monotonic() - began))
    return replace(record, seconds=time.monotonic() - began)
