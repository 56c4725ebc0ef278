"""What the benchmarks share: taking turns on the clock, what a machine is, results as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from genmod.data import Dataset
from genmod.data.images import fashion_mnist, mnist

Clock = Callable[[], float]
Times = dict[str, list[float]]
"""Seconds of every turn, by route."""
LOADERS: Mapping[str, Callable[[Path | None], Dataset]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
}
"""Gray images by name, from the folder that holds them."""


def take_turns(
    routes: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Clock = time.perf_counter,
    warmup: int = 1,
) -> Times:
    """Time every route once in each round, in an order that turns: A B C, C B A, B C A, A C B, ...

    So a slow second of the machine hits all of them alike, and each has every place and neighbor.

    Args:
        routes: what to time.
        rounds: how many times.
        clock: seconds: the wall's, or the process's own on one thread of a shared machine.
        warmup: rounds that are not counted: the first allocate memory and choose kernels.
    """
    times: Times = {name: [] for name in routes}
    for turn in range(warmup + rounds):
        first = turn // 2 % len(routes)
        names = [*list(routes)[first:], *list(routes)[:first]]
        for name in names if turn % 2 == 0 else reversed(names):
            began = clock()
            routes[name]()
            if turn >= warmup:
                times[name].append(clock() - began)
    return times


def ratio(times: Times, name: str, other: str) -> float:
    """The median over rounds of one route's time against another's in the same round."""
    return statistics.median(a / b for a, b in zip(times[name], times[other], strict=True))


def median(times: Times, name: str) -> float:
    """A route's median time, seconds."""
    return statistics.median(times[name])


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a head: the first column to the left, numbers to the right."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        numbers = "  ".join(f"{text:>{width}}" for text, width in others)
        print(f"{first[0]:<{first[1]}}  {numbers}".rstrip(), flush=True)
    print()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def machine() -> dict[str, object]:
    """What a number was measured on."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def timing_arguments(parser: argparse.ArgumentParser, rounds: int) -> None:
    """The options of everything that takes turns."""
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each route")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--shared",
        action="store_true",
        help="count this process's own seconds (user and system) instead of the wall's: for one "
        "thread on a machine that others use",
    )
    parser.add_argument("--out", type=Path, help="a JSON file to write the numbers to")


def clock_of(arguments: argparse.Namespace) -> Clock:
    """The clock that was asked for."""
    if arguments.shared and arguments.threads > 1:
        raise SystemExit("--shared adds the seconds of all threads up: use it with --threads 1")
    return time.process_time if arguments.shared else time.perf_counter


def write(path: Path | None, found: Mapping[str, object], tell: bool = True) -> None:
    """Results and the machine they were measured on, as JSON; whole, or not at all."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".writing")
    beside.write_text(json.dumps({"machine": machine(), **found}, indent=2) + "\n")
    beside.replace(path)
    if tell:
        print(f"written: {path}")
