"""``genmod evaluate``, ``genmod score`` and ``genmod info``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from genmod.cli.talking import csv_text, sentences, wrote
from genmod.config import to_yaml
from genmod.data import Dataset
from genmod.elbo import Measure
from genmod.evaluation import evaluate, score
from genmod.files import as_path, read_json, write_text
from genmod.path import AutoTimesteps
from genmod.runs import RunConfig, read_metrics
from genmod.runs.opening import open_data, open_model, open_rows
from genmod.runs.reports import report_from
from genmod.runs.training import write_run_report
from genmod.saving import WEIGHTS, read_config


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
        scored: Any
        context = None
        if data is None:
            scored = open_data(run)
        else:
            _, scored, context = open_rows(run, data)
        report = evaluate(
            model,
            scored,
            context,
            timesteps=AutoTimesteps.EVALUATION if timesteps is None else timesteps,
            importance_samples=importance_samples,
            seed=seed,
            progress=progress,
        )
        console.print(str(report), highlight=False, markup=False, soft_wrap=True)
        if isinstance(scored, Dataset):
            seconds = [line["seconds"] for line in read_metrics(run / "metrics.jsonl")]
            report = replace(report, seconds=seconds[-1] if seconds else None)
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
        _, rows, context = open_rows(run, data)
        levels = AutoTimesteps.EVALUATION if timesteps is None else timesteps
        scores = score(model, rows, context, timesteps=levels, seed=seed)
        columns: dict[str, list[object]] = {
            "row": list(range(len(rows))),
            "nats": scores.value.tolist(),
            "stamp": [scores.stamp.value] * len(rows),
        }
        if scores.measure is Measure.NONE:
            columns["nats"] = scores.reconstruction.tolist()
        text = csv_text(columns)
        if out is None:
            print(text, end="")
            return
        write_text(out, text)
        wrote(console, out)


def show_run(run: Path) -> None:
    """What is in the folder of a run."""
    with sentences() as console:
        place = as_path(run)
        found = read_config(place)
        sections = RunConfig.of(found).sections() if "data" in found else {"model": found["model"]}
        _plain(console, to_yaml(sections).rstrip())
        lines = read_metrics(place / "metrics.jsonl")
        if lines:
            last = lines[-1]
            done = "done" if (place / WEIGHTS).exists() else "not done"
            _plain(
                console,
                f"trained to step {last['step']} of {last['stage']} in {last['seconds']:.0f} s ({done})",
            )
        if (place / WEIGHTS).exists():
            _plain(console, repr(open_model(place, "cpu")))
        if (place / "report.json").exists():
            content = read_json(
                place / "report.json", "genmod-report-1", "run genmod evaluate again"
            )
            _plain(console, str(report_from(content)))


def _plain(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
