"""What a network predicts (noise, data or velocity), with few and with many denoising steps.

Run ``python examples/predictions.py``, or with ``--data mnist`` (the network is then a U-Net). Figures:
runs/examples/predictions.png (samples), predictions_bits.png (bound, Fréchet distance by steps).

The three are linear functions of each other, and trained on the same bound. They differ in how an error of
the network changes the image: that of predicted noise is multiplied by sigma / alpha, large at high noise.
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
from genmod.denoisers import DataTarget, Learned, NoiseTarget, Target, VelocityTarget
from genmod.evaluation import evaluate, quality
from genmod.models import Diffusion, with_steps
from genmod.nn import ConvNets, MLPs, Networks
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.schedules import LinearLogSNR
from genmod.training import fit

DATA = ("digits", "mnist")
NETWORKS: dict[str, Networks] = {
    "digits": MLPs(depth=4, dropout=0.1),
    "mnist": ConvNets(dropout=0.1),
}
FIGURE = Path("runs/examples/predictions.png")
TARGETS: dict[str, Target] = {
    "noise": NoiseTarget(),
    "data": DataTarget(),
    "velocity": VelocityTarget(),
}
STEPS = (4, 8, 16, 32, 64, 128)
Curves = Mapping[str, Sequence[float]]
SHOWN = (4, 16, 128)
"""The numbers of steps for which samples are shown."""


def main(data: Dataset, steps: int, samples: int) -> None:
    """Train once for each prediction; evaluate and sample it as chains of several lengths."""
    assert data.bins is not None
    # A few hundred images are enough to choose the best weights.
    fewer = replace(data, validation=data.validation[:500], labels=None)
    # At the clean end the noise is as wide as a bin on [-1, 1]; the decoder models finer details.
    schedule = LinearLogSNR(clean=2 * math.log((data.bins - 1) / 2), noisy=-6.0)
    rows = [plots.Row("test images", data.test[:16] / (data.bins - 1))]
    bits: dict[str, list[float]] = {}
    looks: dict[str, list[float]] = {}
    for name, target in TARGETS.items():
        torch.manual_seed(0)
        denoiser = Learned(NETWORKS[data.name].denoiser(data.shape), target)
        model = Diffusion(data.shape, data.bins, denoiser=denoiser, schedule=schedule)
        fit(model, fewer, steps=steps, learning_rate=2e-3)
        bits[name], looks[name] = [], []
        for count in STEPS:
            chain = with_steps(model, count + 1)
            report = evaluate(chain, data.test[:400])
            seen = quality(chain, data, samples, name=f"{name:8} {count:3} steps")
            print(f"{seen.name}, test, {report.stamp.value}: {report.value} nats\n  {seen}")
            assert report.bits_per_dim is not None
            looks[name].append(seen.frechet)
            bits[name].append(report.bits_per_dim.mean)
            if count in SHOWN:
                images = chain.sample(16).cpu() / (data.bins - 1)
                rows.append(plots.Row(f"{name}, {count} steps", images))

    print("figures:", plots.save(plots.strips(rows, "Samples, by prediction", side=0.5), FIGURE))
    print(plots.save(draw(bits, looks, seen.zero), FIGURE.with_stem("predictions_bits")))


def draw(bits: Curves, looks: Curves, zero: float) -> Figure:
    """Bits/dim, and the Fréchet distance, against the number of steps."""
    made, colors = figure(11.0, 4.4, "What the network predicts"), plots.palette(bits)
    labels = "bits/dim of the chain (test, bound)", "Fréchet distance of samples"
    for place, (curves, label) in enumerate(zip((bits, looks), labels, strict=True)):
        axes = plain(made.add_subplot(1, 2, place + 1))
        for name, found in curves.items():
            axes.plot(STEPS, found, color=colors[name], lw=2.2, marker="o", label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(STEPS, [str(count) for count in STEPS])
        label_axes(axes, "denoising steps", label)
    axes.axhline(zero, color="black", lw=1, ls=":", label="real against real")
    axes.legend(frameon=False, fontsize=LABEL)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each training run")
    parser.add_argument("--samples", type=int, default=500, help="samples for the Fréchet distance")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps, chosen.samples)
