r"""Do one-line models work as they come? Each against the per-pixel histogram, which costs nothing.

Every model is built from the data alone, trained by ``fit`` with its own defaults, and scored on held-out
rows. ``z`` is the mean gain over the histogram in paired standard errors, so that hard images count on
both sides: above 3, the model beats the histogram. Defaults are chosen with ``--part validation``.

Run: python benchmarks/defaults.py                           (the digits: minutes on one thread)
     python benchmarks/defaults.py --data mnist fashion-mnist --root FOLDER --rows 1000
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from common import LOADERS, table, write

from genmod import fit
from genmod.data import Dataset
from genmod.data.images import digits
from genmod.evaluation import baselines, score
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion, LatentDiffusion
from genmod.schedules import (
    Cosine,
    CosineBeta,
    Laplace,
    LinearBeta,
    LinearLogSNR,
    Logistic,
    LogNormal,
    MonotoneNetwork,
    Polynomial,
    RectifiedFlow,
    ScaledLinearBeta,
    Schedule,
    Shifted,
    Sigmoid,
    SigmoidBeta,
    Table,
    VarianceExploding,
    ZeroTerminalSNR,
)
from genmod.schedules.consistency import clean_end

WANTED = 3.0
"""Paired standard errors by which a model has to beat the histogram."""

FREE: Mapping[str, Callable[[], Schedule]] = {
    "LinearLogSNR": LinearLogSNR,
    "Cosine": Cosine,
    "Cosine, offset": lambda: Cosine(0.008),
    "Sigmoid": Sigmoid,
    "LogNormal": LogNormal,
    "Laplace": Laplace,
    "Logistic": Logistic,
    "Polynomial": Polynomial,
    "MonotoneNetwork": MonotoneNetwork,
    "RectifiedFlow": RectifiedFlow,
    "VarianceExploding": lambda: VarianceExploding(LogNormal()),
    "Shifted": lambda: Shifted(Cosine(), -1.0),
}
"""Every schedule whose clean end is free: a model sets it for its data."""

TABLES: Mapping[str, Callable[[], Table]] = {
    "LinearBeta": LinearBeta,
    "ScaledLinearBeta": ScaledLinearBeta,
    "CosineBeta": CosineBeta,
    "SigmoidBeta": SigmoidBeta,
    "ZeroTerminalSNR": lambda: ZeroTerminalSNR(LinearBeta()),
}
"""Tables of betas, which are cut."""

Build = Callable[[Dataset], LatentModel]


@dataclass(frozen=True)
class Line:
    """A line of the table: bits/dim on held-out rows, and the paired gain over the histogram.

    ``seconds`` are the process's own, of all its threads, for training and scoring.
    """

    data: str
    model: str
    bits: float
    histogram: float
    z: float
    seconds: float

    @property
    def passes(self) -> bool:
        """Whether the model beats the histogram."""
        return self.z > WANTED


def models(data: Dataset) -> Iterator[tuple[str, Build]]:
    """One-line models, by name; on the digits with every schedule, at T = 100 and in continuous time."""
    yield "VAE", VAE
    yield "HVAE, bottom-up", lambda d: HVAE(d, inference="bottom-up")
    yield "HVAE, top-down", lambda d: HVAE(d, inference="top-down")
    yield "LatentDiffusion", LatentDiffusion
    yield "Diffusion", Diffusion
    if data.name != "digits":
        yield "Diffusion, Cosine", lambda d: Diffusion(d, schedule=Cosine())
        return
    for steps in (100, None):
        name = "continuous" if steps is None else f"T = {steps}"
        for label, build in FREE.items():
            yield f"Diffusion, {label}, {name}", _diffusion(build, steps)
        for label, build in TABLES.items():
            # The last interval of a table that ends in pure noise is no part of continuous time.
            if steps is not None or label != "ZeroTerminalSNR":
                yield f"Diffusion, {label} cut, {name}", _diffusion(_cut(build, data), steps)


def _diffusion(schedule: Callable[[], Schedule], steps: int | None) -> Build:
    return lambda data: Diffusion(data, schedule=schedule(), steps=steps)


def _cut(table: Callable[[], Table], data: Dataset) -> Callable[[], Schedule]:
    return lambda: table().cut(clean=clean_end(data.spec.bins))


def measure(name: str, build: Build, data: Dataset, arguments: argparse.Namespace) -> Line:
    """Train one model and compare it with the histogram, row by row."""
    bins, rows = data.spec.bins, data.parts()[arguments.part][: arguments.rows]
    assert bins is not None
    torch.manual_seed(arguments.seed)
    began, model = time.process_time(), build(data)
    fit(model, data, steps=arguments.steps, seed=arguments.seed, progress=False)
    value = score(model, rows).value
    histogram = baselines.pixel_histogram(data.train, rows, bins).log_prob
    gain, nats_per_bit = value - histogram, math.log(2) * rows[0].numel()
    return Line(
        data.name,
        name,
        float(-value.mean()) / nats_per_bit,
        float(-histogram.mean()) / nats_per_bit,
        float(gain.mean() / (gain.std() / len(gain) ** 0.5)),
        time.process_time() - began,
    )


def main(given: Sequence[str] | None = None) -> None:
    """Print the table; fail if a line does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["digits"], choices=["digits", *LOADERS])
    parser.add_argument("--root", type=Path, help="folder of MNIST and Fashion-MNIST")
    parser.add_argument(
        "--only", default="", help="the model of this name, or all whose names contain it"
    )
    parser.add_argument("--part", default="test", choices=["validation", "test"])
    parser.add_argument("--rows", type=int, help="held-out rows; all by default")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file to write the numbers to")
    arguments = parser.parse_args(given)
    lines = []
    for name in arguments.data:
        data = digits() if name == "digits" else LOADERS[name](arguments.root)
        known = dict(models(data))
        named = [arguments.only] if arguments.only in known else known
        for label in (label for label in named if arguments.only in label):
            lines.append(measure(label, known[label], data, arguments))
            line = lines[-1]
            scores = f"{line.bits:.3f} bits/dim, z = {line.z:+.1f}, {line.seconds:.0f} s"
            print(f"{line.data}: {line.model}: {scores}", flush=True)
    head = ("model", "data", "bits/dim", "histogram", "z", "s")
    table(head, [(s.model, s.data, s.bits, s.histogram, s.z, s.seconds) for s in lines])
    write(arguments.out, {"lines": [asdict(line) for line in lines]})
    failed = [f"{line.model} on {line.data}" for line in lines if not line.passes]
    if failed:
        raise SystemExit(f"not above the histogram by {WANTED} errors: {', '.join(failed)}")


if __name__ == "__main__":
    main()
