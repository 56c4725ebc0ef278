"""``genmod evaluate``, ``genmod score`` and ``genmod info``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from genmod.checks import require
from genmod.cli.talking import csv_text, sentences, write_rows, wrote
from genmod.config import to_yaml
from genmod.data import Dataset
from genmod.elbo import Measure
from genmod.evaluation import evaluate, score
from genmod.files import as_path, read_json, write_text
from genmod.path import AutoTimesteps
from genmod.runs import RunConfig
from genmod.runs.opening import open_data, open_model, open_rows
from genmod.runs.reports import report_from
from genmod.runs.training import seconds_of, write_run_report
from genmod.saving import WEIGHTS, read_config
from genmod.training.metrics import read_metrics


def evaluate_run(
    run: Path,
    data: str | None,
    importance_samples: int,
    timesteps: int | None,
    seed: int,
    device: str | None,
    progress: bool,
) -> None:
    """Score a model; its report goes to the folder, or to the screen alone for other data."""
    with sentences() as console:
        model = open_model(run, device)
        scored = open_data(run) if data is None else open_rows(run, model.spec, data)[1]
        report = evaluate(
            model,
            scored,
            timesteps=AutoTimesteps.EVALUATION if timesteps is None else timesteps,
            importance_samples=importance_samples,
            seed=seed,
            progress=progress,
        )
        console.print(str(report), highlight=False, markup=False, soft_wrap=True)
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
) -> None:
    """The bound of each row, in nats, as a CSV."""
    with sentences() as console:
        model = open_model(run, device)
        _, rows = open_rows(run, model.spec, data)
        levels = AutoTimesteps.EVALUATION if timesteps is None else timesteps
        scores = score(model, rows, timesteps=levels, seed=seed)
        columns: dict[str, list[object]] = {
            "row": list(range(len(rows.x))),
            "nats": scores.value.tolist(),
            "stamp": [scores.stamp.value] * len(rows.x),
        }
        if scores.measure is Measure.NONE:
            columns["nats"] = scores.reconstruction.tolist()
        text = csv_text(columns)
        if out is None:
            print(text, end="")
            return
        write_text(out, text)
        wrote(console, out)


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
        require(
            rows.observed is not None,
            f"{data} without a missing entry",
            "a table with empty cells",
            "leave a cell empty where its value is to be drawn",
        )
        assert rows.observed is not None
        seeds = range(seed, seed + len(rows.x))
        filled = model.impute(
            rows.x, rows.observed, n, importance_samples, context=rows.context, seeds=seeds
        )
        path = as_path(run) / "imputed.csv" if out is None else as_path(out)
        write_rows(path, filled.draws.cpu().flatten(0, 1), found.spec, n)
        _plain(console, repr(filled))
        wrote(console, path)


def show_run(run: Path) -> None:
    """What is in the folder of a run."""
    with sentences() as console:
        place = as_path(run)
        found = read_config(place)
        sections = RunConfig.of(found).sections() if "data" in found else {"model": found["model"]}
        _plain(console, to_yaml(sections).rstrip())
        path = place / "metrics.jsonl"
        lines = read_metrics(path) if path.exists() else []
        if lines:
            done = "done" if (place / WEIGHTS).exists() else "not done"
            stage, step = lines[-1]["stage"] + 1, lines[-1]["step"]
            _plain(console, f"step {step} of stage {stage}; the training is {done}")
        if (place / WEIGHTS).exists():
            _plain(console, repr(open_model(place, "cpu")))
        if (place / "report.json").exists():
            content = read_json(
                place / "report.json", "genmod-report-1", "run genmod evaluate again"
            )
            _plain(console, str(report_from(content)))


def _plain(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
