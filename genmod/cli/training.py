"""``genmod train`` and ``genmod data``."""

from __future__ import annotations

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
from genmod.cli.settings import merge
from genmod.cli.talking import INTERRUPTED, sentences, wrote
from genmod.config import to_yaml
from genmod.runs.config import RunConfig, read_settings
from genmod.runs.training import TrainedRun, train
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
        _show(console, done, goes_on)
    if not done.finished:
        raise typer.Exit(INTERRUPTED)


@contextmanager
def _ends_after_the_step() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is noted, and asked for after each step; a second one interrupts at once."""
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _show(console: Console, done: TrainedRun, goes_on: str) -> None:
    steps = len(done.history.losses)
    if not done.finished:
        console.print(
            f"stopped after step {steps} of {done.history.name}, with a checkpoint; {goes_on}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        return
    console.print(str(done.history), highlight=False, markup=False, soft_wrap=True)
    if done.report is not None:
        console.print(str(done.report), highlight=False, markup=False, soft_wrap=True)
    wrote(console, done.folder)


def _dry_run(console: Console, config: RunConfig) -> None:
    """Everything that a run checks before its first step."""
    data = config.load_data()
    model = config.build(data)
    config.arguments()
    for text in (to_yaml(config.sections()), repr(data), repr(model)):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def show_data(name: str, given: dict[str, Any]) -> None:
    """What some data are taken for."""
    with sentences() as console:
        settings: dict[str, Any] = merge({"data": {"x": name}}, given, [])["data"]
        data = RunConfig.of({"data": settings, "model": "vae"}).load_data()
        console.print(repr(data), highlight=False, markup=False, soft_wrap=True)
