"""The number of latents T in training and in evaluation: a sweep, as in the ablation of VDM.

Run ``python examples/tsweep.py``, or with ``--data mnist`` (the network is then a U-Net). The figure
is runs/examples/tsweep.png: bits/dim of each denoiser against the T that it is evaluated with.

Each denoiser is trained on the bound of a chain of T latents, or of infinitely many, and evaluated in
chains of every length: it is conditioned on the log-SNR, not on the step. One that was trained with few
latents has not learned the noise levels between them.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), table 2.
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
from genmod.denoisers import Learned
from genmod.evaluation import evaluate
from genmod.models import Diffusion
from genmod.nn import ConvNets, MLPs, Networks
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.schedules import LinearLogSNR
from genmod.training import fit

DATA = ("digits", "mnist")
NETWORKS: dict[str, Networks] = {
    "digits": MLPs(depth=4, dropout=0.1),
    "mnist": ConvNets(dropout=0.1),
}
FIGURE = Path("runs/examples/tsweep.png")
LATENTS: dict[str, int | None] = {
    "T = 8": 8,
    "T = 32": 32,
    "T = 128": 128,
    "T = infinity": None,
}


def main(data: Dataset, steps: int) -> None:
    """Train with each number of latents, evaluate with each: a table, and a curve for each training."""
    assert data.bins is not None
    # A few hundred images are enough to choose the best weights.
    fewer = replace(data, validation=data.validation[:500], labels=None)
    # At the clean end the noise is as wide as a bin on [-1, 1]; the decoder models finer details.
    schedule = LinearLogSNR(clean=2 * math.log((data.bins - 1) / 2), noisy=-6.0)
    bits: dict[str, list[float]] = {}
    for trained, count in LATENTS.items():
        torch.manual_seed(0)
        denoiser = Learned(NETWORKS[data.name].denoiser(data.shape))
        model = Diffusion(data.shape, data.bins, denoiser=denoiser, schedule=schedule, steps=count)
        fit(model, fewer, steps=steps, learning_rate=2e-3)
        bits[trained] = []
        for name, latents in LATENTS.items():
            chain = Diffusion(
                bins=data.bins,
                denoiser=denoiser,
                schedule=schedule,
                decoder=model.decoder,
                steps=latents,
            ).to(model.device)
            # All levels of a chain are visited: a bound. In continuous time only some: an estimate.
            draws = 64 if latents is None else None
            report = evaluate(chain, data.test[:400], timesteps=draws)
            print(
                f"trained with {trained:12} evaluated with {name:12} test, {report.stamp.value:8} "
                f"{report.value} nats = {report.bits_per_dim} bits/dim"
            )
            assert report.bits_per_dim is not None
            bits[trained].append(report.bits_per_dim.mean)
    plots.save(draw(bits), FIGURE)
    print(f"figure: {FIGURE}")


def draw(bits: Mapping[str, Sequence[float]]) -> Figure:
    """Bits/dim against the number of latents, a line for each training; the last one is infinity."""
    made = figure(8.4, 4.6, "More latents tighten the bound if the training had as many")
    axes = plain(made.add_subplot())
    for (name, found), color in zip(bits.items(), plots.palette(bits).values(), strict=True):
        axes.plot(range(len(found)), found, color=color, lw=2.0, marker="o", label=name)
    axes.set_xticks(range(len(LATENTS)), list(LATENTS))
    label_axes(axes, "evaluated with", "bits/dim (test)")
    right = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False}
    axes.legend(title="trained with", fontsize=LABEL, title_fontsize=LABEL, **right)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each training run")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps)
