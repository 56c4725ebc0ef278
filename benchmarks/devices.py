"""Steps per second of ``fit`` in one process and in several, with the same rows in each step.

Every process has one thread. The number of processes takes turns, so that a slow minute of the machine
hits all alike, and the medians over turns are printed. Weights are compared: they must not depend on the
number of processes.

Run: python benchmarks/devices.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from genmod import VAE, Diffusion, data
from genmod.model import LatentModel
from genmod.training import training_loop

CASES: dict[str, tuple[Callable[[data.Dataset], LatentModel], int]] = {
    "VAE 64-400-20, batch 128": (lambda d: VAE(d, latents=20, width=400), 128),
    "VAE 64-400-20, batch 1024": (lambda d: VAE(d, latents=20, width=400), 1024),
    "diffusion, width 400, batch 1024": (lambda d: Diffusion(d, width=400), 1024),
}
WARM = 5
"""Steps that are not timed."""


def measure(name: str, steps: int) -> tuple[float, float]:
    """Steps per second of this process, and the sum of all weights at the end."""
    build, batch = CASES[name]
    d = data.load("digits")
    torch.manual_seed(0)
    model = build(d)
    x: Tensor = d.train
    loop = training_loop(model, x, steps=WARM + steps, batch_size=batch, progress=False)
    start = time.perf_counter()
    for step in loop:
        if step.number == WARM:
            start = time.perf_counter()
    seconds = time.perf_counter() - start
    total = sum(float(p.double().abs().sum()) for p in model.parameters())
    return steps / seconds, total


def launched(name: str, processes: int, steps: int) -> tuple[float, float]:
    """The same in one process, or in several."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, *(launcher if processes > 1 else [])]
        command += [__file__, "--case", name, "--steps", str(steps), "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        speed, total = json.loads(out.read_text(encoding="utf-8"))
    return float(speed), float(total)


def main() -> None:
    """Print the table, or measure one case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--case")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.case is not None:
        torch.set_num_threads(1)
        found = measure(given.case, given.steps)
        if os.environ.get("RANK", "0") == "0":
            given.out.write_text(json.dumps(found), encoding="utf-8")
        return
    print(
        "| model | " + " | ".join(f"{n} processes, steps/s" for n in given.processes) + " | ratio |"
    )
    print("|---|" + "---:|" * (len(given.processes) + 1))
    for name in CASES:
        speeds: dict[int, list[float]] = {count: [] for count in given.processes}
        totals = []
        for _ in range(given.turns):
            for count in given.processes:
                speed, total = launched(name, count, given.steps)
                speeds[count].append(speed)
                totals.append(total)
        if max(totals) - min(totals) > 1e-4 * max(totals):
            raise SystemExit(f"the weights of {name} depend on the number of processes: {totals}")
        medians = [statistics.median(each) for each in speeds.values()]
        cells = " | ".join(f"{each:.1f}" for each in medians)
        print(f"| {name} | {cells} | {medians[-1] / medians[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
