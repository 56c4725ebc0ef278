"""Sample quality by number of steps: one trained diffusion, sampled by several samplers.

Run ``python examples/samplers.py``, or with ``--data mnist``. Figures: runs/examples/samplers.png (Fréchet
distance by evaluations of the denoiser), runs/examples/samplers_few.png (8 evaluations, of the same noise).
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.figure import Figure

from genmod import plots
from genmod.data import Dataset, load
from genmod.evaluation import evaluate, quality
from genmod.models import Diffusion
from genmod.nn import ConvNets, MLPs, Networks
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.samplers import DDIM, Ancestral, DPMSolver, Heun, Sampler, UniformLogSNR, UniPC
from genmod.schedules import LinearLogSNR
from genmod.training import fit

DATA = ("digits", "mnist")
NETWORKS: dict[str, Networks] = {
    "digits": MLPs(depth=4, dropout=0.1),
    "mnist": ConvNets(dropout=0.1),
}
FIGURE = Path("runs/examples/samplers.png")
SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "DDIM": DDIM(),
    "Heun": Heun(),
    "DPM-Solver++ 2M": DPMSolver(order=2),
    "UniPC": UniPC(),
}
EVALUATIONS, FEW = (4, 8, 16, 32, 64, 128), 8
"""Evaluations of the denoiser; and those of the samples that are shown."""


def main(data: Dataset, steps: int, count: int) -> None:
    """Train once; measure the samples of every sampler for every number of evaluations."""
    assert data.bins is not None
    # A few hundred images are enough to choose the best weights.
    fewer = replace(data, validation=data.validation[:500], labels=None)
    torch.manual_seed(0)
    # At the clean end the noise is as wide as a bin on [-1, 1]; the decoder models finer details.
    schedule = LinearLogSNR(clean=2 * math.log((data.bins - 1) / 2), noisy=-6.0)
    network = NETWORKS[data.name].denoiser(data.shape)
    model = Diffusion(data.shape, data.bins, denoiser=network, schedule=schedule, steps=128)
    fit(model, fewer, steps=steps, learning_rate=2e-3)
    report = evaluate(model, data.test[:400])
    print(f"test, {report.stamp.value}: {report.value} nats = {report.bits_per_dim} bits/dim")

    rows = [plots.Row("test images", data.test[:16] / (data.bins - 1))]
    curves: dict[str, list[float]] = {}
    for name, sampler in SAMPLERS.items():
        curves[name] = []
        for budget in EVALUATIONS:
            # Heun evaluates the denoiser twice per step.
            taken = max(n for n in range(1, budget + 1) if sampler.evaluations(n) <= budget)
            images = model.sample(
                count, sampler=sampler, steps=taken, grid=UniformLogSNR(), seeds=range(count)
            )
            found = quality(images.cpu(), data, name=f"{name}, {budget} evaluations")
            print(found)
            curves[name].append(found.frechet)
            if budget == FEW:
                rows.append(plots.Row(name, images[:16].cpu() / (data.bins - 1)))

    few, title = FIGURE.with_stem("samplers_few"), f"Samples of {FEW} evaluations"
    plots.save(plots.strips(rows, title, side=0.5), few)
    print("figures:", plots.save(draw(curves, found.zero), FIGURE), few)


def draw(curves: Mapping[str, Sequence[float]], zero: float) -> Figure:
    """Fréchet distance against evaluations; a line shows that of real images."""
    made = figure(7.0, 4.4, "Fewer evaluations by a better sampler")
    axes = plain(made.add_subplot())
    for (name, found), color in zip(curves.items(), plots.palette(curves).values(), strict=True):
        axes.plot(EVALUATIONS, found, color=color, lw=2.0, marker="o", label=name)
    axes.axhline(zero, color="0.6", lw=1.2, ls="--", label="other real images")
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xticks(EVALUATIONS, [str(count) for count in EVALUATIONS])
    label_axes(axes, "evaluations of the denoiser", "Fréchet distance from test images")
    axes.legend(frameon=False, fontsize=LABEL)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="training steps")
    parser.add_argument("--samples", type=int, default=500, help="samples of each sampler")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps, chosen.samples)
