"""Linear and cosine noise schedules, with the same network and data.

Run ``python examples/schedules.py``, or with ``--data mnist`` (the network is then a U-Net). The
figures are runs/examples/schedules.png (the schedules), runs/examples/schedules_steps.png (the
bound by noise level) and runs/examples/schedules_samples.png (samples).

Both schedules are cut to the same ends, so they differ only in how their steps are spaced between them.
L_simple gives every step the same weight, so it depends on the schedule. Bits and a Fréchet distance are
printed for each.
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
from genmod.objectives import Bound, Objective, Simple
from genmod.schedules import Cosine, LinearBeta, Schedule, Table
from genmod.training import fit

DATA = ("digits", "mnist")
NETWORKS: dict[str, Networks] = {
    "digits": MLPs(depth=4, dropout=0.1),
    "mnist": ConvNets(dropout=0.1),
}
FIGURE = Path("runs/examples/schedules.png")
OBJECTIVES: dict[str, Objective] = {"L_simple": Simple(), "L": Bound()}


def schedules(bins: int) -> dict[str, Schedule]:
    """The two schedules, from noise as wide as a bin on [-1, 1] to almost pure noise."""
    table = LinearBeta(1000).table
    linear = Table(table[(table < 2 * math.log((bins - 1) / 2)) & (table > -6)])
    return {"linear betas": linear, "cosine": Cosine(0.008, *linear.log_snr_range())}


def main(data: Dataset, steps: int, samples: int) -> None:
    """Train with both schedules, by the lecture's objective and by the bound."""
    assert data.bins is not None
    # A few hundred images are enough to choose the best weights.
    fewer = replace(data, validation=data.validation[:500], labels=None)
    shown = schedules(data.bins)
    pictures, profiles = {"test images": data.test[:36]}, {}
    for objective, asked in OBJECTIVES.items():
        for name, schedule in shown.items():
            torch.manual_seed(0)
            network = NETWORKS[data.name].denoiser(data.shape)
            model = Diffusion(data.shape, data.bins, denoiser=network, schedule=schedule, steps=128)
            fit(model, fewer, asked, steps=steps, learning_rate=2e-3)
            fit_scale(model, data.train[:500])  # L_simple does not train it
            report = evaluate(model, data.test[:400])
            print(
                f"{objective:8} {name:12} test, {report.stamp.value}: {report.value} nats = "
                f"{report.bits_per_dim} bits/dim"
            )
            print(f"  {quality(model, data, samples, name='samples')}")
            pictures[f"{objective}, {name}"] = model.sample(36).cpu()
            assert report.scores is not None
            assert report.scores.levels is not None
            profiles[f"{objective}, {name}"] = report.scores.levels

    plots.save(plots.schedules(shown, title="The two schedules"), FIGURE)
    profile, drawn = (FIGURE.with_stem(f"schedules_{name}") for name in ("steps", "samples"))
    plots.save(plots.step_profile(profiles, title="The bound by noise level"), profile)
    plots.save(plots.samples(pictures, data.bins - 1, title="Samples, by schedule and loss"), drawn)
    print(f"figures: {FIGURE}, {profile}, {drawn}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each training run")
    parser.add_argument("--samples", type=int, default=500, help="samples for the Fréchet distance")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps, chosen.samples)
