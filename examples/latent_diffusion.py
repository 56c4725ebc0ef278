"""Latent diffusion: a VAE whose prior is a diffusion, fitted in two stages and jointly.

Run ``python examples/latent_diffusion.py``, or with ``--data mnist`` (the latent is then an
image, and its denoiser a U-Net). The figure is runs/examples/latent_diffusion.png.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from genmod import plots
from genmod.data import Dataset, load
from genmod.evaluation import Report, evaluate
from genmod.model import LatentModel
from genmod.models import LatentDiffusion
from genmod.objectives import Beta
from genmod.training import fit

DATA = ("digits", "mnist")
LATENTS: dict[str, int | tuple[int, ...]] = {"digits": 16, "mnist": (4, 7, 7)}
FIGURE = Path("runs/examples/latent_diffusion.png")


def main(data: Dataset, steps: int) -> None:
    """Train by both recipes, and evaluate them on the same bound."""
    assert data.bins is not None
    # A few hundred images are enough to choose the best weights.
    fewer = replace(data, validation=data.validation[:500], labels=None)
    test = data.test[:1000]
    pictures = {"test images": data.test[:16]}

    # Two stages. In the first, the rates have a weight below one (beta < 1), because the final prior
    # fits the latents better than N(0, I).
    torch.manual_seed(0)
    staged = LatentDiffusion(data.shape, data.bins, latents=LATENTS[data.name], dropout=0.1)
    first = staged.first_stage()
    fit(first, fewer, Beta(0.5), steps=steps)
    show("prior N(0, I)", evaluate(first, test))
    pictures["samples, prior N(0, I)"] = means(first)

    # From here on encoder and decoder are frozen; only the prior learns.
    staged.cpu().freeze(data.train[:2000])
    fit(staged, fewer, steps=steps)
    print(staged)
    show("two stages", evaluate(staged, test, timesteps=32, replicates=4))
    pictures["samples, two stages"] = means(staged)

    # Jointly: all parts of the same model on the same bound, for the same total number of steps.
    torch.manual_seed(0)
    joint = LatentDiffusion(data.shape, data.bins, latents=LATENTS[data.name], dropout=0.1)
    fit(joint, fewer, steps=2 * steps, stages="joint")
    show("jointly", evaluate(joint, test, timesteps=32, replicates=4))
    pictures["samples, jointly"] = means(joint)

    title = "Samples: a Gaussian prior, and a diffusion as the prior"
    plots.save(plots.samples(pictures, data.bins - 1, columns=4, title=title), FIGURE)
    print(f"figure: {FIGURE}")


def means(model: LatentModel) -> torch.Tensor:
    """Draw latents from the prior; the mean of the decoder for each."""
    with torch.no_grad():
        return model.decoder(model.prior.sample(16)).mean.cpu()


def show(recipe: str, report: Report) -> None:
    """Print the bound and its terms."""
    print(f"{recipe}, test, {report.stamp.value}: {report.value} nats", end="")
    print(f" = {report.bits_per_dim} bits/dim")
    for name, term in report.terms.items():
        print(f"  {name}: {term} nats")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each of the two stages")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps)
