"""``genmod train``, ``genmod data`` and ``genmod compare``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console

from genmod.checks import require
from genmod.cli.console import INTERRUPTED, plain, sentences, wrote
from genmod.cli.settings import merge
from genmod.compare import Comparison, compare
from genmod.config.text import to_yaml
from genmod.data import load
from genmod.runs.config import RunConfig, read_settings
from genmod.runs.training import TrainedRun, train
from genmod.saving.folder import CONFIG


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
    goes_on = options.resume and options.out is not None and (options.out / CONFIG).exists()
    if goes_on:
        assert options.out is not None
        found = read_settings(options.out)
    if options.config is not None:
        found |= read_settings(options.config)
    if options.data is not None:
        found["data"] = _instead(found.get("data"), "x", options.data)
    if options.model is not None:
        found["model"] = _instead(found.get("model"), "class", options.model, goes_on)
    return merge(found, options.given, options.changes)


def _instead(before: Any, word: str, value: str, keep: bool = False) -> Any:
    """A section whose main word was passed on the command line; the other settings stay."""
    if isinstance(before, dict) and (keep or word == "x"):
        return {**before, word: value}
    return value


def run(options: TrainOptions) -> None:
    """Train, and say where everything is."""
    goes_on = f"genmod train --resume --out {options.out}"
    with sentences(f"stopped before the first step; nothing is lost: {goes_on}") as console:
        config = RunConfig.of(settings_of(options))
        if options.dry_run:
            _dry_run(console, config)
            return
        require(
            options.out is not None,
            "no --out",
            "the folder of the run",
            "add --out runs/NAME",
        )
        assert options.out is not None
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
    """What some data are taken for."""
    with sentences() as console:
        settings: dict[str, Any] = merge({"data": {"x": name}}, given, [])["data"]
        data = RunConfig.of({"data": settings, "model": "vae"}).load_data()
        plain(console, repr(data))


# ---------------------------------------------------------------------- genmod compare


@dataclass(frozen=True)
class CompareOptions:
    """The options of ``genmod compare``; see their help."""

    data: str
    bins: int | None
    root: Path | None
    binarize: bool
    out: Path
    models: list[str] | None
    quick: bool
    seed: int
    effort: float
    minutes: float | None
    jobs: int | None
    fresh: bool
    progress: bool


def run_comparison(options: CompareOptions) -> None:
    """Compare a suite on some data, and print the table."""
    stopped = f"stopped; the same command continues with what is in {options.out}"
    with sentences(stopped) as console:
        comparison = _compare(options)
        console.print(comparison.table())
        for note in comparison.notes:
            plain(console, note)
        for file in comparison.files:
            wrote(console, file)


def _compare(options: CompareOptions) -> Comparison:
    data = load(options.data, bins=options.bins, root=options.root, seed=options.seed)
    return compare(
        options.out,
        data,
        binarize=options.binarize,
        models=options.models,
        quick=options.quick,
        seed=options.seed,
        effort=options.effort,
        minutes=options.minutes,
        jobs=max(2, os.cpu_count() or 1) if options.jobs is None else options.jobs,
        fresh=options.fresh,
        progress=options.progress,
    )
