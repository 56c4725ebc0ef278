"""The main job: train a whole family on one data set, score it, draw it, write it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from genmod.checks import check_positive, require
from genmod.compare.display import Display
from genmod.compare.events import Ended, Event
from genmod.compare.families import family as customary
from genmod.compare.member import Member, check_family, select
from genmod.compare.packing import Packed
from genmod.compare.queue import Queue
from genmod.compare.work import Work, one_thread, restore
from genmod.compare.workers import one_by_one, side_by_side
from genmod.compare.writing import write_markdown, write_report
from genmod.data import Dataset, digits
from genmod.elbo import Measure
from genmod.evaluation import Report, gaussian, pixel_histogram
from genmod.model import LatentModel
from genmod.shapes import size
from genmod.version import __version__

Said = Callable[[Report], None]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison made.

    Args:
        reports: of the baselines and of every model, in the order of the table.
        models: the trained models, by name, on the CPU.
        files: what was written: ``report.md``, ``report.json`` and the figures.
    """

    reports: Sequence[Report]
    models: Mapping[str, LatentModel]
    files: Sequence[Path]


def compare(
    folder: Path | str,
    data: Dataset | None = None,
    *,
    family: Sequence[Member] | None = None,
    models: Sequence[str] | None = None,
    seed: int = 0,
    effort: float = 1.0,
    minutes: float | None = None,
    jobs: int = 1,
    fresh: bool = False,
    progress: bool = True,
    said: Said | None = None,
) -> Comparison:
    """Train, score and draw a family; or go on with it where an earlier call stopped.

    Each model is trained on one thread, so that what comes of it depends neither on the machine's
    threads nor on ``jobs``. What is done is kept in ``folder``: a call with the same settings trains
    only what is left.

    Args:
        folder: where ``report.md``, ``report.json``, ``figures/`` and the trained models go.
        data: integers with a test part; the digits by default. Figures that show images are drawn of
            gray ones ``(1, H, W)`` alone.
        family: what to train; by default what suits the data (:func:`~genmod.compare.family`).
        models: the names of those to train, with those they come after; all by default.
        seed: of the split (of the default data), weights, batches and noise.
        effort: the fraction of the customary training steps (and, below 1, of a diffusion's latents).
        minutes: how long each model may train, looks at the validation data included: it then makes
            as many of its steps as that is found to pay for when it begins.
        jobs: how many models to train at a time, each in a process of its own; 1 trains them here. A
            script that asks for more needs ``if __name__ == "__main__":`` around the call.
        fresh: whether to throw away what an earlier call left in ``folder``.
        progress: whether to show a display of the models that are training.
        said: called with each report as soon as there is one.

    Raises:
        ValueError: settings out of range; data without bins or without a test part; an earlier call
            had other settings; a model could not be trained (the others then are, and are kept).
    """
    _check(effort, minutes, jobs)
    data = data or digits(seed)
    members = list(customary(data) if family is None else family)
    check_family(members)
    chosen = select(members, models)
    reports = _baselines(data)
    work = Work(Path(folder), chosen, seed, effort, minutes)
    packed = Packed.of(data)
    shared = _settings(data, seed, effort, minutes)
    work.shelf.open(shared | {"digest": packed.digest()}, fresh)
    for report in reports:
        _say(said, report)
    _train(work, data, packed, jobs, progress, said)
    trained = [_report(work, member) for member in chosen]
    reports += [report for report in trained if report is not None]
    with one_thread():
        restored = restore(work, data, [member.name for member in chosen])
        figures = _draw(restored, reports, data, work.folder / "figures")
    settings = shared | {"jobs": jobs, "threads": 1, "torch": torch.__version__}
    files = [
        write_markdown(reports, settings, figures, work.folder / "report.md"),
        write_report(reports, settings, work.folder / "report.json"),
        *figures.values(),
    ]
    return Comparison(reports, restored, files)


def _check(effort: float, minutes: float | None, jobs: int) -> None:
    check_positive(effort, "effort")
    if minutes is not None:
        check_positive(minutes, "minutes")
    require(jobs >= 1, f"jobs={jobs}", "at least one", "1 trains one model after another")


def _settings(data: Dataset, seed: int, effort: float, minutes: float | None) -> dict[str, object]:
    """What decides the numbers, for all members alike."""
    return {
        "data": data.name,
        "binarized": data.resample is not None,
        "training samples": len(data.train),
        "test samples": len(data.test),
        "dimensions": size(data.shape),
        "seed": seed,
        "effort": effort,
        "minutes": minutes,
        "genmod": __version__,
    }


def _train(
    work: Work, data: Dataset, packed: Packed, jobs: int, progress: bool, said: Said | None
) -> None:
    """Train and score the members that are not done."""
    # All records are read before anything is trained: a changed setting is found out at once.
    found = {member.name: _report(work, member) for member in work.members}
    for report in found.values():
        _say(said, report)
    queue = Queue(work.members, {name for name, report in found.items() if report is not None})
    with Display(progress) as display:

        def tell(event: Event) -> None:
            display.tell(event)
            if isinstance(event, Ended):
                _say(said, _report(work, work.member(event.name)))

        if min(jobs, len(queue.waiting)) > 1:
            side_by_side(queue, work, packed, jobs, tell)
        else:
            one_by_one(queue, work, data, tell)
    if queue.failed:
        complaints = [f"{name}: {message}" for name, message in queue.failed.items()]
        kept = f"what the others did is kept in {work.folder}: run again to go on from there"
        raise ValueError("\n".join([*complaints, kept]))


def _draw(
    models: Mapping[str, LatentModel], reports: Sequence[Report], data: Dataset, folder: Path
) -> dict[str, Path]:
    # Not at the top: workers import this module, and need no matplotlib.
    from genmod.compare.figures import draw_all

    return draw_all(models, {report.name: report for report in reports}, data, folder)


def _report(work: Work, member: Member) -> Report | None:
    record = work.shelf.read(member, work.effort)
    return None if record is None else record.report


def _say(said: Said | None, report: Report | None) -> None:
    if said is not None and report is not None:
        said(report)


def _baselines(data: Dataset) -> list[Report]:
    """What a model has to beat, computed in the same run."""
    if data.bins is None or not len(data.test):
        raise ValueError(
            f"got {data}; expected integers with a test part; pass bins=..., test=0.2 to data.dataset"
        )
    dims = size(data.shape)
    # Baselines choose nothing on the validation part, so they may learn from it.
    seen = torch.cat([data.train, data.validation])
    fitted = [
        pixel_histogram(seen, data.test, data.bins),
        gaussian(seen, data.test, data.bins),
    ]
    return [Report.of_baseline(each, dims, Measure.MASS, data.entropy_floor) for each in fitted]
