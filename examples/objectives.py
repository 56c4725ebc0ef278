"""L, L_simple and other weights with the same network, data and schedule: bits and sample quality.

Run ``python examples/objectives.py``, or with ``--data mnist`` (the network is then a U-Net). Figures:
runs/examples/objectives.png (samples), runs/examples/objectives_steps.png (the bound by noise level).

All are weights on the levels of one integrand. Weight 1 is the bound itself, L_simple gives every step of
the schedule the same weight, min-SNR limits the weight of clean levels, and the sigmoid, written here by
hand, gives little weight to levels that are too clean to be visible. Some objectives do not train the
scale of the decoder's last step, so it is fitted to training images for all. All keep the averaged
weights with the best validation bound. By default (one seed, 28 November 2026) L has 2.21 bits/dim and a
Fréchet distance of 91, L_simple 2.41 and 87, min-SNR 2.41 and 69: the order of the lecture's table. See
docs/guides/objectives.md.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch

from genmod import plots
from genmod.data import Dataset, load
from genmod.diffusion import fit_scale
from genmod.evaluation import evaluate, quality
from genmod.models import Diffusion
from genmod.nn import ConvNets, MLPs, Networks
from genmod.objectives import Bound, MinSNR, Objective, Simple, Weighted
from genmod.schedules import Cosine
from genmod.training import fit

DATA = ("digits", "mnist")
NETWORKS: dict[str, Networks] = {
    "digits": MLPs(depth=4, dropout=0.1),
    "mnist": ConvNets(dropout=0.1),
}
FIGURE = Path("runs/examples/objectives.png")


def sigmoid(log_snr: torch.Tensor) -> torch.Tensor:
    """Full weight for noise, none for details: Hoogeboom et al., "Simpler Diffusion" (2024)."""
    return torch.sigmoid(-log_snr)


OBJECTIVES: dict[str, Objective] = {
    "L": Bound(),
    "L_simple": Simple(),
    "min-SNR": MinSNR(5.0),
    "sigmoid weight": Weighted(sigmoid),
}


def main(data: Dataset, steps: int, samples: int, seed: int) -> None:
    """Train by each objective; evaluate all on the same bound, and draw samples."""
    assert data.bins is not None
    # A few hundred images are enough to choose the best weights.
    fewer = replace(data, validation=data.validation[:500], labels=None)
    pictures, profiles, table = {"test images": data.test[:36]}, {}, []
    for name, objective in OBJECTIVES.items():
        torch.manual_seed(seed)
        # At the clean end the noise is as wide as a bin on [-1, 1]; the decoder models finer details.
        schedule = Cosine(clean=2 * math.log((data.bins - 1) / 2), noisy=-6.0)
        network = NETWORKS[data.name].denoiser(data.shape)
        model = Diffusion(data.shape, data.bins, denoiser=network, schedule=schedule, steps=128)
        fit(model, fewer, objective, steps=steps, learning_rate=2e-3, seed=seed)
        fit_scale(model, data.train[:500])
        report, looks = evaluate(model, data.test[:400]), quality(model, data, samples)
        table.append(
            f"{name:14}  {report.bits_per_dim} ({report.stamp.value})  {looks.frechet:6.1f}  "
            f"{looks.classes:5.2f}"
        )
        print(table[-1])
        assert report.scores is not None
        assert report.scores.levels is not None
        profiles[name] = report.scores.levels
        pictures[name] = model.sample(36).cpu()

    print(f"{data.name}, {steps} steps, seed {seed}, test images (the bound in bits/dim, not nats)")
    print("\n".join([f"{'objective':14}  bits/dim of the bound   Fréchet  class score", *table]))
    print(
        f"Fréchet distance of N = {looks.samples} samples from {looks.real} test images: real against "
        f"real {looks.zero:.1f}; class score of real ones {looks.real_classes:.2f}"
    )
    plots.save(plots.samples(pictures, data.bins - 1, title="Samples, by objective"), FIGURE)
    steps_figure = FIGURE.with_stem("objectives_steps")
    plots.save(plots.step_profile(profiles, title="The bound by noise level"), steps_figure)
    print(f"figures: {FIGURE}, {steps_figure}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each training run")
    parser.add_argument(
        "--samples", type=int, default=1000, help="samples for the Fréchet distance"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, batches and noise")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps, chosen.samples, chosen.seed)
