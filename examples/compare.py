"""All models on one bound, beside the baselines that a model should beat.

Run ``python examples/compare.py``, or with ``--data mnist``; the figure is runs/examples/compare.png.
This is a small version of ``genmod compare``, to read and change. The command trains each model with its
own settings.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch

from genmod import fit, plots
from genmod.data import Dataset, load
from genmod.elbo import Measure
from genmod.evaluation import Report, baselines, evaluate
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.objectives import Bound, WarmUp
from genmod.schedules import LinearLogSNR

DATA = ("digits", "mnist")
FIGURE = Path("runs/examples/compare.png")


def main(data: Dataset, steps: int) -> None:
    """Train every model with the same settings; print a line for each, and draw samples."""
    assert data.bins is not None
    # A few hundred images are enough to choose the best weights.
    fewer = replace(data, validation=data.validation[:500], labels=None)
    test = data.test[:1000]
    for baseline in (
        baselines.pixel_histogram(data.train, test, data.bins),
        baselines.gaussian(data.train, test, data.bins),
    ):
        show(Report.of_baseline(baseline, data.spec.size, Measure.MASS))

    # Noise as wide as a bin on [-1, 1] at the clean end: the decoder models the finer detail.
    schedule = LinearLogSNR(clean=2 * math.log((data.bins - 1) / 2), noisy=-6.0)
    torch.manual_seed(0)
    models = {
        "autoencoder": Autoencoder(data),
        "VAE": VAE(data),
        "HVAE, bottom-up": HVAE(data, inference="bottom-up"),
        "HVAE, top-down": HVAE(data, inference="top-down"),
        "diffusion": Diffusion(data, schedule=schedule),
        "latent diffusion": LatentDiffusion(data),
    }
    pictures = {"test images": test[:16]}
    for name, model in models.items():
        # Without a warm-up the levels of a hierarchy collapse (examples/instability.py).
        objective = WarmUp(max(1, steps // 3)) if isinstance(model, HVAE) else Bound()
        # A latent diffusion has two stages of ``steps`` steps each: its VAE, then its diffusion.
        fit(model, fewer, objective, steps=steps)
        # Diffusions visit some of their levels (an estimate); all others visit all of theirs.
        sampled = isinstance(model, Diffusion | LatentDiffusion)
        show(evaluate(model, test, name=name, timesteps=32 if sampled else None))
        if model.measure is not Measure.NONE:
            with torch.no_grad():
                pictures[name] = model.decoder(model.prior.sample(16)).mean.cpu()

    drawn = plots.samples(pictures, data.bins - 1, columns=4, title="Samples of every model")
    plots.save(drawn, FIGURE)
    print(f"figure: {FIGURE}")


def show(report: Report) -> None:
    """One line: the stamp, the nats, and bits/dim for a mass."""
    bits = "" if report.bits_per_dim is None else f"{report.bits_per_dim.mean:7.3f} bits/dim"
    print(f"{report.name:24} {report.stamp.value:9} {report.value!s:>18} nats {bits}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=1000, help="training steps")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps)
