r"""What a training step of a diffusion costs at T = 10, 100, 1000, a million latents, and infinitely many.

One level is drawn for each sample of a batch, whatever their number, so the cost should be flat. The
models differ in ``T`` alone: same networks, same data, each in a training run of its own (``fit``:
bound, backward, clipped AdamW, moving average); they take turns on the clock, and each ratio is the
median over rounds of the ratio to T = 10 within a round.

Run: python benchmarks/steps.py
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from common import (
    Times,
    clock_of,
    machine,
    median,
    ratio,
    table,
    take_turns,
    timing_arguments,
    write,
)
from torch import Tensor, nn

from genmod.models import Diffusion
from genmod.nn import DenoisingMLP, UNet
from genmod.tensors import Shape
from genmod.training import training_loop

LATENTS: dict[str, int | None] = {
    "T = 10": 10,
    "T = 100": 100,
    "T = 1000": 1000,
    "T = 1,000,000": 10**6,
    "continuous": None,
}
FIRST = next(iter(LATENTS))


def perceptron() -> nn.Module:
    """What the digits' diffusion has by default."""
    return DenoisingMLP((64,), width=256)


def convolutional() -> nn.Module:
    """A small U-Net on images."""
    return UNet((1, 28, 28), width=16, patch=2)


def runs(
    build: Callable[[], nn.Module], x: Tensor, bins: int, batch: int
) -> dict[str, Iterator[object]]:
    """A training run for each number of latents, from the same weights."""
    found: dict[str, Iterator[object]] = {}
    for name, count in LATENTS.items():
        torch.manual_seed(0)
        shape: Shape = tuple(x.shape[1:])
        model = Diffusion(shape, bins, denoiser=build(), steps=count)
        found[name] = training_loop(model, x, steps=10**9, batch_size=batch, progress=False)
    return found


def advance(run: Iterator[object], count: int) -> None:
    """Make some steps."""
    for _ in range(count):
        next(run)


def spread(times: Times, name: str) -> tuple[float, float]:
    """The quartiles of the ratio to the first."""
    ratios = [a / b for a, b in zip(times[name], times[FIRST], strict=True)]
    if len(ratios) < 2:
        return ratios[0], ratios[0]
    low, _, high = statistics.quantiles(ratios, n=4)
    return low, high


def measure(title: str, times: Times, block: int) -> dict[str, float]:
    """Print a table; returns the ratios."""
    found = {name: ratio(times, name, FIRST) for name in times}
    rows = [
        (name, 1e3 * median(times, name) / block, found[name], *spread(times, name))
        for name in times
    ]
    table([title, "ms a step", f"/ {FIRST}", "quartiles:", ""], rows)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Both networks in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    timing_arguments(parser, rounds=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--block", type=int, default=10, help="steps in a turn")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    clock = clock_of(arguments)
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value), end=", ")
    print(f"batch {arguments.batch}, medians of {arguments.rounds} rounds\n")
    generator = torch.Generator().manual_seed(0)
    cases = {
        "perceptron, 8 x 8": (perceptron, (1, 8, 8), 17),
        "U-Net, 28 x 28": (convolutional, (1, 28, 28), 256),
    }
    found = {}
    for title, (build, shape, bins) in cases.items():
        x = torch.randint(0, bins, (4 * arguments.batch, *shape), generator=generator)
        made = runs(build, x, bins, arguments.batch)
        routes = {name: partial(advance, run, arguments.block) for name, run in made.items()}
        times = take_turns(routes, arguments.rounds, clock)
        ratios = measure(title, times, arguments.block)
        farthest = max(abs(value - 1) for value in ratios.values())
        print(f"farthest from flat: {farthest:.1%}\n")
        found[title] = {"ratios": ratios, "seconds": times, "steps in a turn": arguments.block}
    write(arguments.out, found)


if __name__ == "__main__":
    main()
