r"""A ladder of VAEs on binarized MNIST: the same data, minutes and test bits for every model, in one run.

Every model is trained for some minutes and scored on one fixed draw of the test bits. Columns, in nats:

* **-ELBO**: minus the bound on all test rows;
* **IW-K**: that, minus the gain of ``K`` importance samples on a fixed part of the rows; the errors of
  both are combined;
* **interval**: floor and ceiling of ``-log p(x)`` on these rows, and their **width**; *vacuous* where the
  weights are too heavy;
* **structure**: the largest IW-K above the entropy of the coin flips, which no model can save;
* **active**: units whose posterior mean has a variance above 0.01 over these rows (Burda et al. 2016);
* **vs first**: the paired difference of the bounds from the first model; negative is better.

The diffusion prior is trained on the latents of the first model, in minutes of its own. A diffusion in
continuous time has no importance weights.

Run: python benchmarks/vae.py --minutes 10        (the data: see genmod.data.mnist, or name their --root)
Smoke test: python benchmarks/vae.py --quick
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from common import LOADERS, machine, table, write
from torch import Tensor

from genmod.compare.candidate import BuildInputs, Plan
from genmod.compare.suites import image_top_down
from genmod.data import Dataset, binarized, digits
from genmod.elbo import Measure
from genmod.evaluation import Estimate, collapse, log_weights, paired
from genmod.evaluation.evidence import Evidence
from genmod.evaluation.scoring import Scores, score
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion, LatentDiffusion
from genmod.nn import ConvNets, MLPs
from genmod.objectives import IWAE, Objective
from genmod.priors import VampPrior

TARGETS = {"VAE": 88.5, "IWAE-50": 87.0, "HVAE, top-down": 82.0, "HVAE, deep": 82.0}
"""Nats of the largest IW-K, at most, after ten minutes on two cores."""
_ENDLESS = 10**7
"""Steps that no budget pays for."""
_LATENTS = 50


@dataclass(frozen=True)
class Recipe(Plan):
    """How a model is trained.

    Args:
        draws: ``K`` of importance-weighted training; 0: the bound.
    """

    draws: int = 0

    @property
    def objective(self) -> Objective:
        """The importance-weighted bound of so many draws, or the bound."""
        return IWAE(self.draws) if self.draws else super().objective


Build = Callable[[Dataset, Mapping[str, LatentModel]], LatentModel]
"""A model of the data, beside the trained models by name."""


def plain(data: Dataset, trained: Mapping[str, LatentModel]) -> VAE:
    """The network of the IWAE paper: two layers of 200 on both sides of 50 latents."""
    return VAE(data, latents=_LATENTS, networks=MLPs(width=200, depth=2))


def vamp(data: Dataset, trained: Mapping[str, LatentModel]) -> VAE:
    """The same network under a mixture of its own posteriors, which start at training rows."""
    prior = VampPrior(200, data.train[:200])
    return VAE(data, latents=_LATENTS, networks=MLPs(width=200, depth=2), prior=prior)


def with_diffusion(data: Dataset, trained: Mapping[str, LatentModel]) -> LatentDiffusion:
    """The first model, frozen, under a diffusion over its latents."""
    first = trained["VAE"]
    assert isinstance(first, VAE)
    model = LatentDiffusion(vae=first, diffusion=Diffusion(_LATENTS, networks=MLPs(width=256)))
    model.freeze(data.train[:10_000])
    return model


def top_down(data: Dataset, trained: Mapping[str, LatentModel]) -> LatentModel:
    """Three levels with convolutions: the top-down hierarchy of ``genmod compare``."""
    return image_top_down(BuildInputs(data, 1.0, {}))


def deep(data: Dataset, trained: Mapping[str, LatentModel]) -> LatentModel:
    """Twelve levels over three resolutions, of residual blocks."""
    return HVAE(data, levels=12, latents=4, networks=ConvNets(width=16, patch=4))


def recipe(warm: int = 0, learning_rate: float = 1e-3, **settings: int) -> Recipe:
    """One with ten thousand steps, which the minutes make more or fewer."""
    return Recipe(
        10_000,
        batch_size=100,
        learning_rate=learning_rate,
        weight_decay=0.01,
        warm=warm,
        validation_rows=1000,
        **settings,
    )


MODELS: dict[str, tuple[Build, Recipe]] = {
    "VAE": (plain, recipe()),
    "IWAE-50": (plain, recipe(draws=50)),
    "VampPrior": (vamp, recipe()),
    "diffusion prior": (with_diffusion, recipe()),
    "HVAE, top-down": (top_down, recipe(warm=2400)),
    "HVAE, deep": (deep, recipe(warm=2400)),
}
"""From the bottom of the ladder up."""


# ---------------------------------------------------------------------- training


def train(
    build: Build, plan: Recipe, data: Dataset, trained: Mapping[str, LatentModel], minutes: float
) -> tuple[LatentModel, int, float]:
    """A model after its minutes, its steps, and its seconds."""
    torch.manual_seed(0)
    model = build(data, trained)
    chosen, pace = plan.with_precision(model, data, 0)
    chosen = chosen.times(_ENDLESS / chosen.steps).within_budget(60 * minutes, pace)
    warm = min(plan.warm, chosen.steps // 4)
    began = time.perf_counter()
    for step in replace(chosen, warm=warm).fit(model, data, 0):
        if step.validation is not None:
            seconds = time.perf_counter() - began
            print(f"  {seconds:6.0f} s  step {step.number:6,}  {step.validation}", flush=True)
    return model.eval(), chosen.steps, time.perf_counter() - began


# ---------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Result:
    """A trained and scored model.

    Args:
        name: its name.
        scores: the bound of all test rows.
        gains: by ``K``, how far the importance-weighted bound of each fixed row lies above the bound.
        evidence: the interval of these rows.
        active: active units, and all units.
        parameters, steps, seconds: what it took.
    """

    name: str
    scores: Scores
    gains: Mapping[int, Tensor]
    evidence: Evidence | None
    active: tuple[int, int] | None
    parameters: int
    steps: int
    seconds: float

    @property
    def bound(self) -> Estimate:
        """Minus the bound on all rows."""
        return Estimate.of(-self.scores.value)

    def weighted(self, draws: int) -> Estimate:
        """IW-K: the bound on all rows less the gain on some, errors combined."""
        gain = Estimate.of(self.gains[draws])
        return Estimate(self.bound.mean - gain.mean, math.hypot(self.bound.error, gain.error))


def measure(
    name: str,
    model: LatentModel,
    data: Dataset,
    draws: Sequence[int],
    rows: int,
    took: tuple[int, float],
) -> Result:
    """Score a model on all test rows, and some of them by importance weights."""
    scores = score(model, data)
    gains: dict[int, Tensor] = {}
    evidence, active = None, None
    if not model.prior.has_timesteps:
        x = data.test[:rows]
        weights = log_weights(model, x, importance_samples=max(draws))
        for count in draws:
            groups = weights[:, : max(draws) // count * count].reshape(len(x), -1, count)
            values = (groups.logsumexp(2) - math.log(count)).mean(1)
            gains[count] = values - scores.value[:rows]
        evidence = Evidence(*weights.shape)
        evidence.add(weights)
        levels = collapse(model, x).levels
        active = sum(each.active for each in levels), sum(each.units for each in levels)
    parameters = sum(each.numel() for each in model.parameters())
    return Result(name, scores, gains, evidence, active, parameters, *took)


# ---------------------------------------------------------------------- the table


def line(result: Result, first: Result, entropy: float, draws: Sequence[int]) -> list[object]:
    """A line of the table."""
    weighted = [str(result.weighted(count)) if result.gains else "-" for count in draws]
    interval = width = structure = "-"
    if result.evidence is not None:
        low, high = result.evidence.interval(Measure.MASS)
        vacuous = math.isinf(high.mean)
        interval = f"{-low.mean:.2f}" + ("" if vacuous else f" .. {-high.mean:.2f}")
        width = "vacuous" if vacuous else f"{high.mean - low.mean:.2f}"
        structure = f"{result.weighted(max(draws)).mean - entropy:.2f}"
    beside = "" if result is first else str(paired(first.scores, result.scores))
    return [
        result.name,
        str(result.bound),
        *weighted,
        interval,
        width,
        structure,
        "-" if result.active is None else f"{result.active[0]} / {result.active[1]}",
        beside,
        TARGETS.get(result.name, ""),
        result.parameters,
        result.steps,
        f"{result.seconds:.0f}",
    ]


def record(result: Result, draws: Sequence[int]) -> dict[str, object]:
    """The numbers of a model for JSON."""
    ends = None if result.evidence is None else result.evidence.interval(Measure.MASS)
    return {
        "name": result.name,
        "bound": asdict(result.bound),
        "weighted": {k: asdict(result.weighted(k)) for k in draws if result.gains},
        "interval": None if ends is None else [asdict(end) for end in ends],
        "pareto_k": None if result.evidence is None else result.evidence.pareto_k,
        "active": result.active,
        "parameters": result.parameters,
        "steps": result.steps,
        "seconds": result.seconds,
    }


def quicker(arguments: argparse.Namespace) -> argparse.Namespace:
    """A few steps and rows, of the small digits: whether everything runs."""
    small = {"data": "digits", "minutes": 0.02, "rows": 16, "draws": [1, 4, 8]}
    return argparse.Namespace(**{**vars(arguments), **small})


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score the ladder, one model after another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=["digits", *LOADERS], default="mnist")
    parser.add_argument("--root", type=Path, help="the folder that holds MNIST/raw")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each")
    parser.add_argument("--rows", type=int, default=1000, help="test rows with importance weights")
    parser.add_argument(
        "--draws", type=int, nargs="+", default=[1, 100, 500], help="each K of IW-K"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="seconds, on the digits: a smoke test")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/vae.json"))
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments = quicker(arguments)
    torch.set_num_threads(arguments.threads)
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value))
    gray = digits() if arguments.data == "digits" else LOADERS[arguments.data](arguments.root)
    data = binarized(gray)
    entropy = data.entropy_floor or 0.0
    print(f"{data.name}: {len(data.test):,} test rows, {entropy:.2f} nats of coin flips")
    trained: dict[str, LatentModel] = {}
    results: list[Result] = []
    for name in arguments.models:
        print(name, flush=True)
        build, plan = MODELS[name]
        trained[name], *took = train(build, plan, data, trained, arguments.minutes)
        results.append(
            measure(name, trained[name], data, arguments.draws, arguments.rows, (took[0], took[1]))
        )
        found = [record(result, arguments.draws) for result in results]
        write(arguments.out, {"entropy": entropy, "models": found}, tell=False)
    print()
    head = ["model", "-ELBO", *(f"IW-{count}" for count in arguments.draws)]
    head += ["interval", "width", "structure", "active", "vs first", "target", "parameters"]
    rows = [line(result, results[0], entropy, arguments.draws) for result in results]
    table([*head, "steps", "seconds"], rows)


if __name__ == "__main__":
    main()
