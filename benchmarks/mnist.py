r"""Quality for seconds: a model of ``genmod compare``, by default the diffusion, on gray images.

The data are MNIST and Fashion-MNIST. The model is trained with the settings of the comparison and as many
steps as fit some minutes (or ``--steps``, on a machine that others use), and scored on the whole test set:
an exact discretized decoder, so its bound is a code length. ``bits/dim`` is over the 784 pixels; ± is the
standard error over test images; where not every level of the diffusion is visited, the number is stamped
an estimate of the bound. Seconds are those of the processor, all threads together.

Run: python benchmarks/mnist.py         (the data: see genmod.data.load, or name their --root)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from common import LOADERS, machine, table, write

from genmod.compare.candidate import BuildInputs, Candidate, Plan
from genmod.compare.suites import IMAGES
from genmod.data import Dataset
from genmod.evaluation import Report, evaluate
from genmod.model import LatentModel

TARGETS = {
    ("mnist", "diffusion"): 1.10,
    ("fashion-mnist", "diffusion"): 2.90,
    ("mnist", "HVAE, top-down"): 1.20,
    ("fashion-mnist", "HVAE, top-down"): 3.10,
}
"""Bits/dim, at most, after ten minutes on two cores."""
_VALIDATIONS = 10
"""Each costs about as much as 60 steps."""
_ENDLESS = 10**7
"""Steps that fit no budget."""


@dataclass(frozen=True)
class Trained:
    """A model after its time.

    Args:
        model: with the averaged weights that did best on the validation images.
        plan: how it was trained.
        seconds: of the processor, validations included.
        curve: ``seconds, step, images, bits_per_dim`` at every look at the validation images.
    """

    model: LatentModel
    plan: Plan
    seconds: float
    curve: list[dict[str, float]]


def candidate(name: str, adamw: float | None = None, bfloat16: bool = False) -> Candidate:
    """A candidate of the suite for images, with fewer validations.

    Args:
        name: its name in the suite.
        adamw: the learning rate of AdamW, in place of the candidate's own optimizer.
        bfloat16: whether its networks are in bfloat16; if not, in the type that is faster.

    Raises:
        SystemExit: no candidate of that name, or one that comes after others.
    """
    alone = {each.name: each for each in IMAGES if not each.after}
    if name not in alone:
        raise SystemExit(f"no model {name!r} that stands alone; there are {', '.join(alone)}")
    plan = replace(alone[name].plan, validations=_VALIDATIONS, autocast=bfloat16 or None)
    if adamw is not None:
        plan = replace(plan, muon=False, learning_rate=adamw)
    return replace(alone[name], plan=plan)


def train(
    who: Candidate, data: Dataset, minutes: float, seed: int, steps: int | None = None
) -> Trained:
    """Train by the candidate's plan, with as many steps as fit some minutes, or so many steps."""
    torch.manual_seed(seed)
    model = who.build(BuildInputs(data, 1.0, {}))
    plan, pace = who.plan.with_precision(model, data, seed)
    plan = plan.times((steps or _ENDLESS) / plan.steps)
    plan = plan if steps else plan.within_budget(60 * minutes, pace)
    kind = "bfloat16" if plan.autocast else "float32"
    print(
        f"{data.name}: {plan.steps:,} steps of {plan.batch_size}, {1e3 * pace.step:.0f} ms each, {kind}"
    )
    curve, began = [], time.process_time()
    for step in plan.fit(model, data, seed):
        if step.validation is not None and step.validation.bits_per_dim is not None:
            seconds = time.process_time() - began
            bits = step.validation.bits_per_dim
            images = step.number * plan.batch_size
            curve.append(
                {"seconds": seconds, "step": step.number, "images": images, "bits_per_dim": bits}
            )
            print(f"  {seconds:6.0f} s  step {step.number:6,}  validation {bits:.4f}", flush=True)
    return Trained(model, plan, time.process_time() - began, curve)


def measure(
    who: Candidate, data: Dataset, arguments: argparse.Namespace
) -> tuple[dict[str, object], list[object]]:
    """Train and score on one data set; returns a record for JSON, and a line of the table."""
    trained = train(who, data, arguments.minutes, arguments.seed, arguments.steps)
    trained.model.save(arguments.out.parent / f"{data.name}-{who.slug}")
    noisy, began = trained.model.prior.has_timesteps, time.perf_counter()
    report = evaluate(
        trained.model,
        data,
        name=who.name,
        timesteps=(arguments.draws or None) if noisy else None,
        replicates=arguments.replicates if noisy else 1,
        seed=arguments.seed,
        seconds=trained.seconds,
    )
    record: dict[str, object] = {
        "data": data.name,
        "plan": asdict(trained.plan),
        "curve": trained.curve,
        "report": report.to_dict(),
        "scoring": {
            "draws": arguments.draws or None,
            "replicates": arguments.replicates,
            "seconds": time.perf_counter() - began,
        },
    }
    return record, row(data.name, report, trained.plan.steps)


def row(name: str, report: Report, steps: int) -> list[object]:
    """A line of the table."""
    bits, target = report.bits_per_dim, TARGETS.get((name, report.name))
    if bits is None:
        raise SystemExit(f"{report.name} gives no mass: no bits/dim")
    wanted = "" if target is None else f"<= {target:.2f}"
    reached = "" if target is None else "yes" if bits.mean <= target else "no"
    return [
        name,
        f"{report.seconds or 0:.0f}",
        steps,
        report.parameters,
        str(report.value),
        f"{bits.mean:.4f} ± {bits.error:.4f}",
        report.stamp.value,
        wanted,
        reached,
    ]


HEAD = [
    "data",
    "seconds",
    "steps",
    "parameters",
    "nats",
    "bits/dim",
    "stamp",
    "target",
    "reached",
]


def main(argv: Sequence[str] | None = None) -> None:
    """Every data set in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--root", type=Path, help="the folder that holds MNIST/raw")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each")
    parser.add_argument("--steps", type=int, help="of training, in place of minutes")
    parser.add_argument(
        "--bfloat16", action="store_true", help="networks in bfloat16, without measuring first"
    )
    parser.add_argument("--adamw", type=float, help="its learning rate, in place of Muon")
    parser.add_argument("--model", default="diffusion", help="another candidate of the suite")
    parser.add_argument("--draws", type=int, default=8, help="levels a test image visits; 0: all")
    parser.add_argument("--replicates", type=int, default=2, help="times that they are scored")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/mnist.json"))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(", ".join(f"{name} {value}" for name, value in machine().items() if value))
    found, rows = [], []
    for name in arguments.data:
        chosen = candidate(arguments.model, arguments.adamw, arguments.bfloat16)
        record, line = measure(chosen, LOADERS[name](arguments.root), arguments)
        found.append(record)
        rows.append(line)
        write(arguments.out, {"model": arguments.model, "runs": found})
    print()
    table(HEAD, rows)


if __name__ == "__main__":
    main()
