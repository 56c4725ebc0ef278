"""``genmod compare``: progress while it runs, a table and the files when it is done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from genmod.cli.talking import sentences, wrote
from genmod.compare import Comparison, compare
from genmod.data import Dataset, load


@dataclass(frozen=True)
class Options:
    """The options of the command; see their help."""

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


def run(options: Options) -> None:
    """Compare a suite on some data, and print the table."""
    stopped = f"stopped; the same command continues with what is in {options.out}"
    with sentences(stopped) as console:
        comparison = _compare(options)
        console.print(comparison.table())
        for note in comparison.notes:
            console.print(note, highlight=False, markup=False)
        for file in comparison.files:
            wrote(console, file)


def _data(options: Options) -> Dataset:
    return load(options.data, bins=options.bins, root=options.root, seed=options.seed)


def _compare(options: Options) -> Comparison:
    return compare(
        options.out,
        _data(options),
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
