"""L against L_simple against other weights: the same network, data and schedule; bits, and looks.

Run ``python examples/objectives.py``, or with ``--data mnist`` (the network is then a U-Net). The
figures are runs/examples/objectives.png (samples) and runs/examples/objectives_steps.png (what each
noise level costs, and which objective paid attention to which).

All are weights on the levels of one integrand: 1 is the bound itself, L_simple counts steps of the
schedule alike, min-SNR caps the weight of clean levels, and the sigmoid, written here by hand, neglects
what is cleaner than one can see. The bound should win on bits, and the others on looks.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from genmod import plots
from genmod.data import Dataset, digits, mnist
from genmod.evaluation import evaluate, quality
from genmod.models import Diffusion
from genmod.nn import Convolutions, Networks, Perceptrons
from genmod.objectives import Bound, MinSNR, Objective, Simple, Weighted
from genmod.schedules import Cosine
from genmod.training import fit, train

DATA: dict[str, Callable[[], Dataset]] = {"digits": digits, "mnist": mnist}
NETWORKS: dict[str, Networks] = {
    "digits": Perceptrons(depth=4, dropout=0.1),
    "mnist": Convolutions(dropout=0.1),
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


def main(data: Dataset, steps: int) -> None:
    """Train by each objective; price all by the one bound, and look at samples."""
    assert data.bins is not None
    # A few hundred images are enough to choose the best weights by.
    fewer = replace(data, validation=data.validation[:500], labels=None)
    pictures, profiles = {"test images": data.test[:36]}, {}
    for name, objective in OBJECTIVES.items():
        torch.manual_seed(0)
        # At the clean end the noise is as wide as a bin on [-1, 1]: the decoder has little to do.
        schedule = Cosine(clean=2 * math.log((data.bins - 1) / 2), noisy=-6.0)
        network = NETWORKS[data.name].denoiser(data.shape)
        model = Diffusion(data.shape, data.bins, denoiser=network, schedule=schedule, steps=128)
        train(fit(model, fewer, objective, steps=steps, learning_rate=2e-3))
        report = evaluate(model, data.test[:400])
        print(
            f"{name:14} test, {report.stamp.value}: {report.value} nats = "
            f"{report.bits_per_dim} bits/dim"
        )
        for term, nats in report.terms.items():
            print(f"  {term}: {nats} nats")
        print(f"  {quality(model, data, 500, name='samples')}")
        assert report.scores is not None
        assert report.scores.levels is not None
        profiles[name] = report.scores.levels
        pictures[name] = model.sample(36).cpu()

    plots.save(plots.samples(pictures, highest=data.bins - 1), FIGURE)
    paid = FIGURE.with_stem("objectives_steps")
    plots.save(plots.step_profile(profiles), paid)
    print(f"figures: {FIGURE}, {paid}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the images")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each training")
    chosen = parser.parse_args()
    main(DATA[chosen.data](), chosen.steps)
