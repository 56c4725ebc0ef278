"""The comparison: a suite of models, trained and evaluated on one data set, with figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from genmod.checks import check_at_least, check_positive, invalid
from genmod.compare.candidate import Candidate as Candidate
from genmod.compare.candidate import Plan as Plan
from genmod.compare.candidate import check_suite, select
from genmod.compare.job import Job, finished, one_thread, report_of, restore
from genmod.compare.progress import Display, Drawing, Ended, Event, Progress
from genmod.compare.suites import default_minutes, suite_for
from genmod.compare.workers import Queue, one_by_one, side_by_side
from genmod.data import Dataset, binarized, load
from genmod.elbo import Measure
from genmod.evaluation import Report
from genmod.evaluation.baselines import gaussian, pixel_histogram
from genmod.files import as_path
from genmod.model import LatentModel
from genmod.runs.reports import UNUSED, table, unused, write_markdown, write_report
from genmod.signatures import checked
from genmod.tensors import size
from genmod.version import __version__

__all__ = ["Candidate", "Plan", "compare"]

OnReport = Callable[[Report], None]

QUICK_ROWS = 500
"""Validation and test rows of a quick comparison, at most."""
COLUMNS = ("model", "bits/dim", "nats", "stamp", "seconds")
"""The columns that fit 80 characters; ``report.md`` has all of them."""
COLUMNS_OF_BITS = ("model", "nats", "entropy, nats", "stamp", "seconds")
"""The same for binarized data, which the literature reports in nats."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The result of a comparison; it prints as a table.

    Args:
        reports: the reports of the baselines and of every model, in the order of the table.
        models: the trained models, by name, on the CPU.
        files: the written files: ``report.md``, ``report.json`` and the figures.
        notes: what was left out and why, and which latents are unused.
    """

    reports: Sequence[Report]
    models: Mapping[str, LatentModel]
    files: Sequence[Path]
    notes: Sequence[str] = ()

    def table(self) -> Table:
        """The results on the test part, per sample."""
        rows = table(self.reports)
        columns = COLUMNS_OF_BITS if rows[0].keys() >= set(COLUMNS_OF_BITS) else COLUMNS
        printed = Table(*columns, title="Test data, per sample")
        for cells in rows:
            printed.add_row(*(cells[column] for column in columns))
        return printed

    def __repr__(self) -> str:
        out = StringIO()
        Console(file=out, width=80).print(self.table())
        return "\n".join([out.getvalue().rstrip(), *self.notes])

    def _repr_html_(self) -> str:
        console = Console(file=StringIO(), width=80, record=True)
        console.print(self.table())
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


@dataclass(frozen=True, eq=False)
class _Run:
    """The state of one call of :func:`compare`."""

    job: Job
    data: Dataset
    jobs: int
    display: Display
    on_report: OnReport | None
    notes: list[str] = field(default_factory=list)

    def announce(self, report: Report) -> None:
        """Print the result of a report, and pass it to ``on_report``."""
        bits = report.bits_per_dim
        value = f"{report.value} nats" if bits is None else f"{bits.mean:.3f} bits/dim"
        if report.entropy_floor is not None:
            value = f"{report.value} nats, {report.entropy_floor:.2f} of them entropy of the bits"
        refined = report.refined_bits_per_dim or report.refined
        also = "" if refined is None else f"; {refined.mean:.3f} if refined for each row"
        self.display.print(f"{report.name}: {value} ({report.stamp.value}{also})")
        if self.on_report is not None:
            self.on_report(report)


@checked
def compare(
    folder: Path | str = "runs/compare",
    data: object = "digits",
    *,
    binarize: bool = False,
    suite: Sequence[Candidate] | None = None,
    quick: bool = False,
    models: Sequence[str] | None = None,
    seed: int = 0,
    effort: float = 1.0,
    minutes: float | None = None,
    jobs: int = 1,
    fresh: bool = False,
    progress: bool = True,
    on_report: OnReport | None = None,
) -> Comparison:
    """Train a suite of models on one data set, evaluate all of them, and write a report with figures.

    Every model is scored by the same :func:`~genmod.evaluation.evaluate`, beside closed-form baselines. A
    call with the same settings and data continues where an earlier one stopped; different settings or data
    in the same folder are refused. Each model trains on one thread, so the results depend neither on the
    number of threads nor on ``jobs``.

    Args:
        folder: the run folder, for ``report.md``, ``report.json``, ``figures/`` and the trained models.
        data: integers with a test part, in any form that :func:`genmod.data.load` takes.
        binarize: whether gray values become probabilities of bits; see :func:`genmod.data.binarized`.
        suite: the models; by default the suite for the data (:func:`~genmod.compare.suites.suite_for`).
        quick: whether to train three small models in half a minute, with at most 500 test rows and two
            figures.
        models: the names of the models to train, beside those in their ``after``; by default all.
        seed: the seed of the split, the weights, the batches and the noise.
        effort: the fraction of the training steps; below 1 also of a diffusion's latents.
        minutes: the time budget of each model, validations included. It then trains for as many of its
            steps as fit, by a measurement. By default 7 for the convolutional suite, and unlimited
            otherwise.
        jobs: the number of models that train at the same time, each in its own process. A script that asks
            for more than 1 needs ``if __name__ == "__main__":`` around the call.
        fresh: whether to delete the results of an earlier call in ``folder``.
        progress: whether to show the progress and each report.
        on_report: called with each report as soon as it is there.

    Returns:
        A :class:`Comparison`: ``.reports``, ``.models``, ``.files``, ``.notes``. It prints as a table.

    Raises:
        ValueError: settings out of range; data without ``bins`` or without a test part; a folder with other
            settings or data; a model that could not be trained (the results of the others are kept).
    """
    _check(effort, minutes, jobs)
    found = load(data) if isinstance(data, Dataset) else load(data, seed=seed)
    found = binarized(found, seed) if binarize else found
    if quick:
        found = found.cut("validation", QUICK_ROWS).cut("test", QUICK_ROWS)
    candidates = suite_for(found, quick) if suite is None else suite
    check_suite(candidates)
    chosen = select(candidates, models)
    minutes = default_minutes(candidates) if minutes is None else minutes
    limit = None if minutes is None or math.isinf(minutes) else minutes
    job = Job(as_path(folder), chosen, seed, effort, limit)
    baselines, notes = _baselines(found)
    shared = {"seed": seed, "effort": effort, "minutes": limit, "genmod": __version__}
    job.folder.open({**found.identity(), **shared}, fresh)
    done = finished(job, found)
    display = Display(Progress(chosen, set(done)), progress)
    run = _Run(job, found, jobs, display, on_report, notes)
    with display:
        for report in (*baselines, *done.values()):
            run.announce(report)
        _train(run, set(done))
        reports = [*baselines, *(report_of(job, candidate) for candidate in chosen)]
        run.notes.extend(_unused(reports))
        settings = {
            **_settings(found),
            **shared,
            "jobs": jobs,
            "threads": 1,
            "torch": torch.__version__,
        }
        trained, files = _write(run, reports, settings, quick)
    return Comparison(reports, trained, files, run.notes)


def _check(effort: float, minutes: float | None, jobs: int) -> None:
    check_positive(effort, "effort")
    if minutes is not None and minutes != math.inf:
        check_positive(minutes, "minutes")
    check_at_least(jobs, 1, "jobs", "pass 1 to train one model after another")


def _settings(data: Dataset) -> dict[str, object]:
    """The properties of the data, for the report."""
    return {
        "data": data.name,
        "binarized": data.resample is not None,
        "values": data.bins,
        "training samples": len(data.train),
        "test samples": len(data.test),
        "dimensions": size(data.shape),
    }


def _baselines(data: Dataset) -> tuple[list[Report], list[str]]:
    """The reports of the baselines; and a note for each that cannot be computed."""
    if data.bins is None or not len(data.test):
        raise invalid(
            data.summary(),
            "integers with a test part",
            "pass bins=..., test=0.2 to genmod.data.load",
        )
    dims = size(data.shape)
    # Baselines have no settings to choose on the validation part, so it joins their training data.
    seen = torch.cat([data.train, data.validation])
    reports, notes = [], []
    for name, baseline in (
        ("per-pixel histogram", pixel_histogram),
        ("full-covariance Gaussian", gaussian),
    ):
        try:
            found = baseline(seen, data.test, data.bins)
        except ValueError as error:
            notes.append(f"{name}: left out: {error}")
        else:
            reports.append(Report.of_baseline(found, dims, Measure.MASS, data))
    return reports, notes


def _train(run: _Run, done: set[str]) -> None:
    """Train and evaluate the candidates that are not done."""
    queue = Queue(run.job.candidates, done)

    def on_event(event: Event) -> None:
        run.display.on_event(event)
        if isinstance(event, Ended):
            run.announce(report_of(run.job, run.job.candidate(event.name)))

    if min(run.jobs, len(queue.waiting)) > 1:
        side_by_side(queue, run.job, run.data, run.jobs, on_event)
    else:
        one_by_one(queue, run.job, run.data, on_event)
    if queue.failed:
        complaints = [f"{name}: {message}" for name, message in queue.failed.items()]
        kept = f"the results of the others are kept in {run.job.path}; run again to continue"
        raise invalid(
            f"a failure of {', '.join(queue.failed)}",
            "every candidate to train and to be evaluated",
            "\n".join([kept, *complaints]),
        )


def _unused(reports: Sequence[Report]) -> list[str]:
    return [
        f"{report.name}: unused: {', '.join(found)} (below {UNUSED} nats per sample: posterior and prior "
        "agree, so the latent carries no information)"
        for report in reports
        if (found := unused(report))
    ]


def _write(
    run: _Run, reports: Sequence[Report], settings: Mapping[str, object], quick: bool
) -> tuple[dict[str, LatentModel], list[Path]]:
    """Write the report, draw the figures, then write the report again with the figures."""
    folder = run.job.path
    page, numbers = folder / "report.md", folder / "report.json"
    write_markdown(page, reports, settings, run.notes, {})
    write_report(numbers, reports, settings, run.notes)
    # Imported here, because worker processes import this module and need no matplotlib.
    from genmod.compare.figures import draw_all, titles

    wanted = titles(quick)
    run.display.on_event(Drawing("loading models", 0, len(wanted)))
    with one_thread():
        names = [candidate.name for candidate in run.job.candidates]
        trained = restore(run.job, run.data, names)
        found = {report.name: report for report in reports}
        figures, left_out = draw_all(
            trained, found, run.data, run.job.folder.figures, wanted, run.display.on_event
        )
    run.notes.extend(left_out)
    write_markdown(page, reports, settings, run.notes, figures)
    write_report(numbers, reports, settings, run.notes)
    return trained, [page, numbers, *figures.values()]
