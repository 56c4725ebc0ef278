r"""Noise error and bits/dim against seconds: our diffusion beside those of three libraries, on MNIST.

Every network has about a million parameters and goes through one bare loop: the same batches, levels
and noise in the same order, the mean squared error of the noise over the thousand levels of DDPM's
linear betas (the lecture's ``L_simple``), Adam with a short warm-up, gradients clipped at norm one, a
moving average of the weights. Each minimizes the number it is judged by, whatever its network is asked
for. Ours is a U-Net of 16 channels at full resolution and 128 at the lowest, with one learning rate; shape
and rate were chosen by 30-second runs judged on the first 256 validation images. The race is judged on the
last ones, which nothing was chosen on. A peer has three tries, its own customary
rate, ours and half of ours, and its best one counts, for each number apart.

Held out are the same triples of image, level and noise for all. Noise error is the mean of
:math:`(\varepsilon - \hat\varepsilon)^2`; bits/dim are an estimate of the bound of the chain of a
thousand latents, from the same visits. All have one kind of decoder, the denoised :math:`z_0` under a
discretized logistic whose one scale is chosen by some training images at every look. The weights or their
average count, whichever is better. These looks are few draws, the same for all, which is what telling one
curve from another takes. At the end ours and each peer's best try are looked at once more, with more
draws: bits/dim are then printed with standard errors over images, and so is what ours has less, image by
image. The levels are stratified over the batch, so these errors are, if anything, too large.

Contestants take turns on the clock; what looking costs is not counted. The table says when ours was
first seen at or below what a peer reached in all its time, and what share of that time it is.

Run: python benchmarks/diffusion.py     (diffusers, denoising-diffusion-pytorch and azula are used where
they are installed; the data: see genmod.data.load, or name their --root)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path

import torch
from common import LOADERS, clock_of, machine, table, take_turns, timing_arguments, write
from contestant import Contestant, Held, Row
from peers import GENMOD, PEERS
from torch import Tensor

from genmod.data import Dataset
from genmod.training.batches import Batches

NUMBERS = {"noise error": "mse", "bits/dim": "bits"}
"""What is compared, and its name in a row of a curve."""
ENDS = {"bits": "bits/dim", "error": "±", "less": "ours has less by", "its error": "±"}
"""What is said of the end."""


def reached(curve: Sequence[Row], number: str, value: float) -> float | None:
    """The seconds at which a curve was first seen at or below a value."""
    return next((row["seconds"] for row in curve if row[number] <= value), None)


@dataclass(frozen=True)
class Line:
    """A line of the table: a peer, one number, and when ours got there."""

    peer: str
    number: str
    rate: float
    steps: float
    value: float
    ours: float
    seconds: float | None
    share: float | None
    wanted: float | None

    def cells(self) -> list[object]:
        """As printed."""
        seconds = "never" if self.seconds is None else f"{self.seconds:.1f}"
        share = "" if self.share is None else f"{self.share:.0%}"
        wanted = "" if self.wanted is None else f"<= {self.wanted:.0%}"
        numbers = [self.value, self.ours, seconds, share, wanted]
        return [self.peer, self.number, f"{self.rate:g}", int(self.steps), *numbers]


def best_of(others: Sequence[Contestant], number: str) -> list[Contestant]:
    """Each peer's best try, for one number."""
    names = dict.fromkeys(other.entrant.name for other in others)
    tries = [[other for other in others if other.entrant.name == name] for name in names]
    return [min(each, key=lambda other: other.curve[-1][number]) for each in tries]


def compare(mine: Contestant, others: Sequence[Contestant]) -> list[Line]:
    """Each peer's best try, for each number, and when ours got there."""
    found = []
    for title, number in NUMBERS.items():
        for best in best_of(others, number):
            last, seconds = best.curve[-1], reached(mine.curve, number, best.curve[-1][number])
            found.append(
                Line(
                    peer=best.entrant.name,
                    number=title,
                    rate=best.rate,
                    steps=last["step"],
                    value=last[number],
                    ours=mine.curve[-1][number],
                    seconds=seconds,
                    share=None if seconds is None else seconds / last["seconds"],
                    wanted=best.entrant.share,
                )
            )
    return found


def finish(
    mine: Contestant, others: Sequence[Contestant], draws: int
) -> dict[str, dict[str, float]]:
    """Bits/dim at the end by many draws, with standard errors, and what ours has less; prints them."""
    own, found = mine.bits(draws), dict[str, dict[str, float]]()
    for each in (mine, *best_of(others, "bits")):
        bits = own if each is mine else each.bits(draws)
        row = dict(zip(("bits", "error"), _mean(bits), strict=True))
        if each is not mine:
            row |= zip(("less", "its error"), _mean(bits - own), strict=True)
        found[each.name] = row
    rows = [
        [name, *("-" if row.get(key) is None else f"{row[key]:.4f}" for key in ENDS)]
        for name, row in found.items()
    ]
    print(f"at the end, {len(own)} images, {draws} levels each")
    table(["network", *ENDS.values()], rows)
    return found


def _mean(values: Tensor) -> tuple[float, float]:
    """Their mean and its standard error."""
    return float(values.mean()), float(values.std()) / sqrt(len(values))


def options() -> argparse.ArgumentParser:
    """The options of the script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    timing_arguments(parser, rounds=3)
    add = parser.add_argument
    add("--seconds", type=float, default=180.0, help="of training, for each")
    add("--batch", type=int, default=64)
    add("--looks", type=int, default=10, help="at ours in each turn; a peer has one")
    add("--images", type=int, default=256, help="held out")
    add("--draws", type=int, default=4, help="levels that each of them visits")
    add("--last-draws", type=int, default=16, help="levels at the end, for ours and each best try")
    add("--root", type=Path, help="the folder that holds MNIST/raw")
    return parser


def contest(data: Dataset, arguments: argparse.Namespace) -> list[Contestant]:
    """Everybody who is there, trained in turns; ours comes first."""
    there = [entrant for entrant in PEERS if entrant.installed]
    for entrant in PEERS:
        if entrant not in there:
            print(f"without {entrant.name}, which is not installed")
    # The last: the first ones are those that ours was tuned on.
    held = Held(data.validation[-arguments.images :], arguments.draws, data.train[:64])
    every = [
        Contestant(
            entrant,
            rate,
            Batches(data.train, None, arguments.batch, seed=0),
            held,
            clock_of(arguments),
        )
        for entrant in (GENMOD, *there)
        for rate in entrant.rates
    ]
    table(["network", "parameters"], [(each.name, each.parameters) for each in every])
    turns = {
        each.name: partial(
            each.turn,
            arguments.seconds / arguments.rounds,
            arguments.looks if each.entrant is GENMOD else 1,
        )
        for each in every
    }
    take_turns(turns, arguments.rounds, warmup=0)
    return every


def main(argv: Sequence[str] | None = None) -> None:
    """Train in turns, compare, print."""
    arguments = options().parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value), end=", ")
    print(f"batch {arguments.batch}, {arguments.seconds:g} s of training each")
    mine, *others = contest(LOADERS["mnist"](arguments.root), arguments)
    lines = compare(mine, others)
    print()
    head = [
        "peer",
        "number",
        "its rate",
        "its steps",
        "it ends at",
        "ours ends at",
        "ours is there",
    ]
    table([*head, "share", "wanted"], [line.cells() for line in lines])
    ends = finish(mine, others, arguments.last_draws)
    write(
        arguments.out,
        {
            "seconds": arguments.seconds,
            "batch": arguments.batch,
            "curves": {each.name: each.curve for each in (mine, *others)},
            "parameters": {each.name: each.parameters for each in (mine, *others)},
            "table": [vars(line) for line in lines],
            "ends": ends,
        },
    )


if __name__ == "__main__":
    main()
