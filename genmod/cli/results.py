"""What the commands that use a trained run do: score, fill, show, export and draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genmod import editing, plots
from genmod.checks import check_at_least, invalid
from genmod.cli.output import Canvas, csv_text, plain, sentences, warn, write_completed, wrote
from genmod.config.plain import read_arguments
from genmod.config.text import read_value, to_yaml
from genmod.data import Dataset, GivenRows
from genmod.elbo import Measure
from genmod.evaluation import evaluate, latent_map, predictive_check, traverse
from genmod.evaluation.batching import RowSet, require_finite
from genmod.evaluation.scoring import scores_of
from genmod.export import export
from genmod.files import as_path, read_json, write_text
from genmod.lab import lab_content, write_contents
from genmod.model import LatentModel
from genmod.models.sampling import DiffusionBased
from genmod.path import AutoTimesteps
from genmod.runs import RunConfig, seconds_of, write_run_report
from genmod.runs.opening import open_data, open_model, open_rows, open_usable_rows
from genmod.runs.reports import report_from
from genmod.saving import WEIGHTS, read_config
from genmod.training.metrics import read_metrics


def evaluate_run(
    run: Path,
    data: str | None,
    importance_samples: int,
    refine_steps: int,
    timesteps: int | None,
    seed: int,
    device: str | None,
    progress: bool,
) -> None:
    """Score a model; its report goes to the folder, or to the screen alone for other data."""
    with sentences() as console:
        run = as_path(run)
        model = open_model(run, device)
        scored = open_data(run) if data is None else open_rows(run, model.spec, data)[1]
        report = evaluate(
            model,
            scored,
            timesteps=AutoTimesteps.EVALUATION if timesteps is None else timesteps,
            importance_samples=importance_samples,
            refine_steps=refine_steps,
            seed=seed,
            progress=progress,
        )
        plain(console, str(report))
        if isinstance(scored, Dataset):
            report = replace(report, seconds=seconds_of(run))
            figures = sorted((run / "figures").glob("*.png"))
            write_run_report(run, report, {path.stem: path for path in figures})
            wrote(console, run / "report.md")


def score_rows(
    run: Path,
    data: str | None,
    out: Path | None,
    timesteps: int | None,
    seed: int,
    device: str | None,
    strict: bool,
) -> None:
    """The bound of each row, in nats, as a CSV. A row that cannot be scored has a note in its place."""
    with sentences() as console:
        model = open_model(run, device)
        rows, notes = (
            (open_rows(run, model.spec, data)[1], dict[int, str]())
            if strict
            else open_usable_rows(run, model.spec, data)
        )
        levels = AutoTimesteps.EVALUATION if timesteps is None else timesteps
        rowset = RowSet.of(model, rows, None, ids=None, observed=None, masked=True)
        scores = scores_of(model, rowset, levels, seed)
        finite = scores.value.isfinite()
        if strict or not bool(finite.any()):
            require_finite(scores.terms)
        notes |= dict.fromkeys((~finite).nonzero().flatten().tolist(), "the score is not finite")
        nats = scores.reconstruction if scores.measure is Measure.NONE else scores.value
        count = len(rows.x)
        text = csv_text(
            {
                "row": range(count),
                "nats": ["" if row in notes else each for row, each in enumerate(nats.tolist())],
                "stamp": ["" if row in notes else scores.stamp.value for row in range(count)],
                "note": [notes.get(row, "") for row in range(count)],
            }
        )
        if out is None:
            print(text, end="")
        else:
            write_text(out, text)
            wrote(console, out)
        if notes:
            few = "; ".join(f"row {row}: {note}" for row, note in list(notes.items())[:3])
            warn(f"{len(notes)} of {count} rows have no score ({few}); --strict refuses such rows")


def impute_rows(
    run: Path,
    data: str,
    n: int,
    out: Path | None,
    importance_samples: int,
    seed: int,
    device: str | None,
) -> None:
    """Completed copies of a file with missing entries, in its own names and values."""
    with sentences() as console:
        model = open_model(run, device)
        found, rows = open_rows(run, model.spec, data)
        if rows.observed is None:
            raise invalid(
                f"{data} without a missing entry",
                "a table with empty cells",
                "leave a cell empty where its value is to be drawn",
            )
        seeds = range(seed, seed + len(rows.x))
        filled = model.impute(
            rows.x, rows.observed, n, importance_samples, context=rows.context, seeds=seeds
        )
        path = as_path(run) / "imputed.csv" if out is None else as_path(out)
        write_completed(path, data, filled.draws.cpu(), rows.observed.cpu(), found.spec)
        plain(console, repr(filled))
        wrote(console, path)


def show_run(run: Path) -> None:
    """What is in the folder of a run."""
    with sentences() as console:
        place = as_path(run)
        found = read_config(place)
        sections = RunConfig.of(found).sections() if "data" in found else {"model": found["model"]}
        plain(console, to_yaml(sections).rstrip())
        path = place / "metrics.jsonl"
        lines = read_metrics(path) if path.exists() else []
        if lines:
            done = "done" if (place / WEIGHTS).exists() else "not done"
            stage, step = lines[-1]["stage"] + 1, lines[-1]["step"]
            plain(console, f"step {step} of stage {stage}; the training is {done}")
        if (place / WEIGHTS).exists():
            plain(console, repr(open_model(place, "cpu")))
        path = place / "report.json"
        if path.exists():
            content = read_json(path, "genmod-report-1", "run genmod evaluate again")
            plain(console, str(report_from(content)))


def export_run(run: Path, out: Path | None, kind: str) -> None:
    """The model's parts as files for other runtimes."""
    with sentences() as console:
        run = as_path(run)
        folder = export(open_model(run, "cpu"), out or run / "exported", kind)
        console.print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def lab_runs(runs: Sequence[Path], out: Path | None) -> None:
    """The page of the models of some runs, each with rows of its own data."""
    with sentences() as console:
        contents = [lab_content(open_model(run, "cpu"), open_data(run)) for run in runs]
        page = write_contents(contents, out or as_path(runs[0]) / "lab")
        wrote(console, page)
        plain(console, f"open {page.resolve().as_uri()} in a browser")


# ---------------------------------------------------------------------- pictures


def sample_run(canvas: Canvas, n: int, label: str | None, options: Mapping[str, Any]) -> None:
    """Samples, each with a seed of its own: a longer list begins with the shorter one."""
    with sentences() as console:
        check_at_least(n, 1, "-n", "pass the number of samples")
        # Not the data: a run that was handed on without them has samples, too.
        model = canvas.model()
        given = {name: value for name, value in options.items() if value is not None}
        if given and not isinstance(model, DiffusionBased):
            raise invalid(
                f"--{', --'.join(given)} for a {type(model).__name__}".replace("_", "-"),
                "a diffusion, which alone has samplers and steps",
                "leave it out for this model",
            )
        kind: Callable[..., Tensor] = DiffusionBased.sample if given else LatentModel.sample
        arguments: dict[str, Any] = read_arguments(kind, given, ("self",))
        seeds = range(canvas.seed, canvas.seed + n)
        made = model.sample(n, _context(label, n), seeds=seeds, **arguments).cpu()
        across = 12
        rows = {f"{start}": made[start : start + across] for start in range(0, len(made), across)}
        canvas.write(console, "sampled", rows, model.spec)


def _context(label: str | None, n: int) -> Tensor | None:
    """One label for all, or a list that is repeated."""
    if label is None:
        return None
    values = read_value(f"[{label}]")
    if not isinstance(values, list) or not all(isinstance(each, int | float) for each in values):
        raise invalid(f"--label {label}", "numbers, as in 3,7", "labels are numbers from 0 on")
    return torch.tensor([values[place % len(values)] for place in range(n)])


def reconstruct_run(canvas: Canvas, name: str | None, n: int) -> None:
    """Rows, and their reconstructions."""
    with sentences() as console:
        model = canvas.model()
        data, rows = _some(canvas, name, n, model)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(canvas.seed)
            made = model.reconstruct(rows.x, rows.context, rows.observed).cpu()
        shown, seen = {"data": rows.x.cpu(), "reconstructed": made}, rows.observed
        seen = None if seen is None else torch.cat([seen.cpu(), torch.ones_like(seen.cpu())])
        canvas.write(console, "reconstructed", shown, data.spec, seen)


def interpolate_run(canvas: Canvas, name: str | None, n: int, count: int, way: str) -> None:
    """Interpolations between pairs of rows: the first and the second, the third and the fourth."""
    with sentences() as console:
        model = canvas.model()
        data, rows = _some(canvas, name, 2 * n, model)
        x, context, observed = (
            None if each is None else torch.cat([each[::2], each[1::2]])
            for each in (rows.x, rows.context, rows.observed)
        )
        assert x is not None
        a, b = x.chunk(2)
        made = editing.interpolate(model, a, b, count, context, path=way, observed=observed).cpu()
        shown = {f"{place}": each for place, each in enumerate(made)}
        canvas.write(console, "interpolated", shown, data.spec)


def _some(
    canvas: Canvas, name: str | None, count: int, model: LatentModel
) -> tuple[Dataset, GivenRows]:
    """The first rows of some data, with their contexts and their mask, on the model's device."""
    data, rows = open_rows(canvas.run, model.spec, name)
    if not 1 <= count <= len(rows.x):
        raise invalid(f"{count} rows of {len(rows.x)}", "some that are there", "choose another -n")
    x, context, observed = (
        None if each is None else each[:count].to(model.device)
        for each in (rows.x, rows.context, rows.observed)
    )
    assert x is not None
    return data, GivenRows(x, context, observed)


def traverse_run(
    canvas: Canvas, name: str | None, row: int, over: str, units: int, level: str | None
) -> None:
    """One unit after another moved over its quantiles, as a table and a figure."""
    with sentences() as console:
        model = canvas.model()
        _, rows = open_rows(canvas.run, model.spec, name)
        found = traverse(
            model, rows.x, rows.context, row=row, over=over, units=units, level=level,
            seed=canvas.seed, observed=rows.observed,
        )  # fmt: skip
        plain(console, repr(found))
        canvas.save(console, plots.traversal(found, title=canvas.title), "traversal")


def map_run(canvas: Canvas, name: str | None, color: str | None, level: str | None) -> None:
    """The codes of the data on two axes."""
    with sentences() as console:
        model = canvas.model()
        data, rows = open_rows(canvas.run, model.spec, name)
        # A data set with a test part has its labels as colors; a file is one part of rows.
        whole = len(data.test) > 0
        found = latent_map(
            model, data if whole else rows.x, None if whole else rows.context, color=color,
            level=level, seed=canvas.seed, observed=rows.observed,
        )  # fmt: skip
        plain(console, repr(found))
        canvas.save(console, plots.latent_spaces({canvas.title: found}), "map")


def check_run(canvas: Canvas, name: str | None, replicates: int) -> None:
    """Statistics of the data beside those of data sets that the model draws."""
    with sentences() as console:
        model = canvas.model()
        _, rows = open_rows(canvas.run, model.spec, name)
        found = predictive_check(
            model, rows.x, rows.context, replicates=replicates, seed=canvas.seed,
            observed=rows.observed,
        )  # fmt: skip
        plain(console, repr(found))
        canvas.save(console, plots.predictive_check(found, title=canvas.title), "check")
