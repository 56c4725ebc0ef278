r"""A ladder of VAEs on binarized MNIST: the same data, minutes and test bits for every model, in one run.

Every model is trained for as many steps as some minutes on two cores allow, and scored on one fixed draw
of the test bits. Columns, in nats:

* **-ELBO**: minus the bound on all test rows;
* **refined**: the first column, minus the gain of 60 gradient steps on the posterior of each row, measured
  on a fixed part of the rows; the errors of both are combined;
* **IW-K**: likewise, with the gain of ``K`` importance samples on these rows;
* **interval**: floor and ceiling of ``-log p(x)`` on these rows, and their **width**; *vacuous* where the
  weights are too heavy;
* **structure**: the largest IW-K above the entropy of the coin flips, which no model can save;
* **active**: units whose posterior mean has a variance above 0.01 over these rows (Burda et al. 2016);
* **vs first**: the paired difference of the bounds from the first model; negative is better;
* **seconds**: of the processor, all threads together.

The diffusion prior begins with the trained first model, and both train on, in minutes of their own. A
diffusion in continuous time has no importance weights.

Each model has a folder below ``--out``, with its checkpoint, its weights and its results. The same command
continues after an interruption, and trains only what is missing.

Run: python benchmarks/vae.py --minutes 10        (the data: see genmod.data.load, or name their --root)
On a GPU, 15 minutes: python benchmarks/vae.py --device cuda --models IWAE-50 "HVAE, top-down" --steps 60000
Smoke test: python benchmarks/vae.py --quick
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from common import LOADERS, machine, table
from torch import nn
from vae_results import Result, Took, heads, line, load, markdown, measure, save

import genmod
from genmod.compare.candidate import BuildInputs, Plan, slug
from genmod.compare.suites import CODING, pixels
from genmod.data import Dataset, binarized
from genmod.data.images import digits
from genmod.files import write_text
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion
from genmod.nn import ConvNets, MLPs
from genmod.objectives import IWAE, Objective
from genmod.priors import VampPrior

TARGETS = {"VAE": 88.5, "IWAE-50": 87.0, "HVAE, top-down": 82.0, "HVAE, deep": 82.0}
"""Nats of the largest IW-K, at most, after ten minutes on two cores."""
_LATENTS = 50
_MINUTES = 10.0
"""Minutes of the numbers of steps below."""


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


def with_diffusion(data: Dataset, trained: Mapping[str, LatentModel]) -> VAE:
    """The first model under a diffusion over its latents, which starts near N(0, I); both train on."""
    prior = Diffusion(_LATENTS, networks=MLPs(width=128))
    model = VAE(data, latents=_LATENTS, networks=MLPs(width=200, depth=2), prior=prior)
    for new, old in zip(_coders(model), _coders(trained["VAE"]), strict=True):
        new.load_state_dict(old.state_dict())
    return model


def _coders(model: LatentModel) -> tuple[nn.Module, nn.Module]:
    return model.encoder, model.decoder


def top_down(data: Dataset, trained: Mapping[str, LatentModel]) -> LatentModel:
    """Three levels of vectors, from networks with convolutions."""
    decoder = pixels(CODING, (CODING.features,), BuildInputs(data, 1.0, {}))
    return HVAE(data, latents=(16, 16, 16), inference="top-down", networks=CODING, decoder=decoder)


def deep(data: Dataset, trained: Mapping[str, LatentModel]) -> LatentModel:
    """Twelve levels over three resolutions, of residual blocks."""
    return HVAE(data, levels=12, latents=4, networks=ConvNets(width=16, patch=4))


def recipe(
    steps: int, warm: int = 0, *, batch: int = 100, draws: int = 0, autocast: bool = False
) -> Recipe:
    """One with the learning rate and the validations that all of them share."""
    return Recipe(
        steps,
        batch_size=batch,
        learning_rate=1e-3,
        weight_decay=0.01,
        warm=warm,
        autocast=autocast,
        validations=10,
        validation_rows=1000,
        draws=draws,
    )


MODELS: dict[str, tuple[Build, Recipe]] = {
    "VAE": (plain, recipe(100_000)),
    # The batch of the paper: 50 draws of 20 rows are 1,000 rows for the decoder.
    "IWAE-50": (plain, recipe(56_000, batch=20, draws=50, autocast=True)),
    # Without a warm-up it collapses at once: all posteriors are equal, and so is their mixture.
    "VampPrior": (vamp, recipe(84_000, warm=9000, autocast=True)),
    "diffusion prior": (with_diffusion, recipe(40_000, autocast=True)),
    "HVAE, top-down": (top_down, recipe(22_000, warm=4400, autocast=True)),
    "HVAE, deep": (deep, recipe(9_000, warm=2400, autocast=True)),
}
"""From the bottom of the ladder up, with the steps of ten minutes on two cores: of 1,020 seconds of one
core, because two threads are about 1.7 times as fast as one."""


def plan_of(name: str, minutes: float, steps: int | None) -> Recipe:
    """The recipe of a model with the steps of some minutes, or so many steps."""
    full = MODELS[name][1]
    chosen = full.times(steps / full.steps if steps else minutes / _MINUTES)
    assert isinstance(chosen, Recipe)
    return replace(chosen, validations=min(chosen.validations, chosen.steps))


def train(name: str, plan: Recipe, model: LatentModel, data: Dataset, folder: Path) -> Took:
    """Train a model from the checkpoint in its folder, if there is one, and say what it took."""
    seconds = folder / "seconds.txt"
    before = float(seconds.read_text()) if seconds.exists() else 0.0
    began, best = time.process_time(), -float("inf")
    for step in plan.fit(model, data, 0, checkpoint=folder / "checkpoint.safetensors"):
        if step.validation is not None:
            so_far = before + time.process_time() - began
            write_text(seconds, f"{so_far:.0f}\n")
            best = max(best, step.validation.nats)
            print(f"  {so_far:6.0f} s  step {step.number:6,}  {step.validation}", flush=True)
    model.eval().save(folder / "model")
    return Took(plan.steps, before + time.process_time() - began, torch.get_num_threads(), best)


def run(
    name: str, data: Dataset, trained: dict[str, LatentModel], arguments: argparse.Namespace
) -> Result:
    """The result of a model: from its folder, or trained and scored now."""
    folder = arguments.out / slug(name)
    found = load(folder)
    if found is not None:
        if (folder / "model").exists() and name == "VAE":
            trained[name] = genmod.load(folder / "model").to(arguments.device)
        print(f"{name}: found in {folder}")
        return found
    print(name, flush=True)
    torch.manual_seed(0)
    model = MODELS[name][0](data, trained).to(arguments.device)
    folder.mkdir(parents=True, exist_ok=True)
    took = train(name, plan_of(name, arguments.minutes, arguments.steps), model, data, folder)
    trained[name] = model
    result = measure(name, model, data, arguments.draws, arguments.rows, took)
    save(folder, result)
    return result


def quicker(arguments: argparse.Namespace) -> argparse.Namespace:
    """A few steps and rows, of the small digits: whether everything runs."""
    small = {"data": "digits", "minutes": 0.005, "steps": None, "rows": 16, "draws": [1, 4, 8]}
    small["out"] = arguments.out / "quick"
    return argparse.Namespace(**{**vars(arguments), **small})


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options, with those of a smoke test where it is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=["digits", *LOADERS], default="mnist")
    parser.add_argument("--root", type=Path, help="the folder that holds MNIST/raw")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--minutes", type=float, default=_MINUTES, help="of training on two cores, each"
    )
    parser.add_argument("--steps", type=int, help="of every model, in place of minutes")
    parser.add_argument("--rows", type=int, default=1000, help="test rows with importance weights")
    parser.add_argument(
        "--draws", type=int, nargs="+", default=[1, 100, 500], help="each K of IW-K"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cuda: a GPU; choose --steps for it")
    parser.add_argument("--quick", action="store_true", help="seconds, on the digits: a smoke test")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/vae"), help="a folder")
    arguments = parser.parse_args(argv)
    return quicker(arguments) if arguments.quick else arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Train and score the ladder, one model after another."""
    arguments = options(argv)
    torch.set_num_threads(arguments.threads)
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value))
    gray = digits() if arguments.data == "digits" else LOADERS[arguments.data](arguments.root)
    data = binarized(gray)
    entropy = data.entropy_floor or 0.0
    print(f"{data.name}: {len(data.test):,} test rows, {entropy:.2f} nats of coin flips")
    trained: dict[str, LatentModel] = {}
    results: list[Result] = []
    for name in arguments.models:
        results.append(run(name, data, trained, arguments))
        rows = [
            line(each, results[0], entropy, arguments.draws, TARGETS.get(each.name))
            for each in results
        ]
        write_text(arguments.out / "table.md", markdown(rows, heads(arguments.draws)) + "\n")
    print()
    table(heads(arguments.draws), rows)


if __name__ == "__main__":
    main()
