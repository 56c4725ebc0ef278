"""``genmod train``, ``genmod data`` and ``genmod compare``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console

from genmod.checks import invalid
from genmod.cli.output import INTERRUPTED, plain, sentences, wrote
from genmod.cli.settings import MODELS, default_model, merge
from genmod.compare import compare
from genmod.config.text import to_yaml
from genmod.data import load
from genmod.files import as_path
from genmod.runs import TrainedRun, train
from genmod.runs.config import RunConfig, read_settings
from genmod.saving import CONFIG


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``genmod train``; see their help."""

    data: str | None
    model: str | None
    out: Path | None
    config: Path | None
    changes: list[str]
    resume: bool
    dry_run: bool
    evaluate: bool
    progress: bool
    given: dict[str, Any]


def settings_of(options: TrainOptions) -> dict[str, Any]:
    """The settings: of the run that goes on, or of a file; then of flags; then of ``--set``."""
    found: dict[str, Any] = {}
    folder = None if options.out is None else as_path(options.out)
    goes_on = options.resume and folder is not None and (folder / CONFIG).exists()
    if goes_on and folder is not None:
        found = read_settings(folder)
    if options.config is not None:
        found |= read_settings(options.config)
    if options.data is not None:
        found["data"] = _instead(found.get("data"), "x", options.data)
    if options.model is not None:
        found["model"] = _instead(found.get("model"), "class", options.model, goes_on)
    merged = merge(found, options.given, options.changes)
    model = merged.get("model")
    if model is None or (isinstance(model, dict) and "class" not in model):
        merged["model"] = {"class": default_model(model or ()), **(model or {})}
    return merged


def _chosen_model(options: TrainOptions, config: RunConfig) -> str:
    """Two lines on the model that was chosen by default; none if one was named."""
    if options.model is not None or options.config is not None or options.resume:
        return ""
    changed = [change.partition("=")[0] for change in options.changes]
    if "model" in changed or "model.class" in changed:
        return ""
    name = str(config.model["class"])
    why = "codes, samples and a bound, also with missing entries"
    why = why if name == "vae" else "it has the settings that were passed"
    others = ", ".join(each for each in MODELS if each != name)
    return f"model: {name}, by default: {why}\nothers: --model {others}"


def _instead(before: Any, word: str, value: str, keep: bool = False) -> Any:
    """A section whose main word was passed on the command line; the other settings stay."""
    if isinstance(before, dict) and (keep or word == "x"):
        return {**before, word: value}
    return value


def run(options: TrainOptions) -> None:
    """Train a model, and print its history and report."""
    goes_on = f"genmod train --resume --out {options.out}"
    with sentences(f"stopped before the first step; nothing is lost: {goes_on}") as console:
        config = RunConfig.of(settings_of(options))
        chosen = _chosen_model(options, config)
        if chosen:
            plain(console, chosen)
        if options.dry_run:
            _dry_run(console, config)
            return
        if options.out is None:
            raise invalid("no --out", "the folder of the run", "add --out runs/NAME")
        with _ends_after_the_step() as stop:
            done = train(
                config,
                options.out,
                resume=options.resume,
                scored=options.evaluate,
                progress=options.progress,
                stop=stop,
            )
        if done.is_main:
            _show(console, done, goes_on)
    if not done.finished:
        raise typer.Exit(INTERRUPTED)


@contextmanager
def _ends_after_the_step() -> Iterator[Callable[[], bool]]:
    """Whether to end after the step: after Ctrl-C, or a signal to terminate. A second Ctrl-C ends at once.

    A scheduler of a cluster, and a launcher of several processes, send the signal to terminate.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(console: Console, done: TrainedRun, goes_on: str) -> None:
    steps = len(done.history.losses)
    if not done.finished:
        where = f"step {steps} of {done.history.name}"
        plain(console, f"stopped after {where}, with a checkpoint; {goes_on}")
        return
    plain(console, str(done.history))
    if done.report is not None:
        plain(console, str(done.report))
    wrote(console, done.folder)


def _dry_run(console: Console, config: RunConfig) -> None:
    """Everything that a run checks before its first step."""
    data = config.load_data()
    model = config.build(data)
    config.arguments()
    for text in (to_yaml(config.sections()), repr(data), repr(model)):
        plain(console, text)


def show_data(name: str, given: dict[str, Any]) -> None:
    """Show how data are read."""
    with sentences() as console:
        settings: dict[str, Any] = merge({"data": {"x": name}}, given, [])["data"]
        data = RunConfig.of({"data": settings, "model": "vae"}).load_data()
        plain(console, repr(data))


# ---------------------------------------------------------------------- genmod compare


def run_comparison(
    out: Path, name: str, reading: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Compare a suite on some data, and print the table.

    Args:
        out: the folder.
        name: a name or a file of data.
        reading: the arguments of :func:`genmod.data.load`.
        settings: the arguments of :func:`genmod.compare.compare`; ``jobs=None``: one for each core.
    """
    with sentences(f"stopped; the same command continues with what is in {out}") as console:
        cores = max(2, os.cpu_count() or 1)
        jobs = cores if settings["jobs"] is None else settings["jobs"]
        data = load(name, **reading, seed=settings["seed"])
        comparison = compare(out, data, **{**settings, "jobs": jobs})
        console.print(comparison.table())
        for note in comparison.notes:
            plain(console, note)
        for file in comparison.files:
            wrote(console, file)
