"""A VAE on the digits: its bound term by term, an importance-weighted estimate, its latent space.

Run ``python examples/vae.py``; the figures are runs/examples/vae.png and
runs/examples/vae_latents.png.
"""

import argparse
from pathlib import Path

import torch

from genmod import plots
from genmod.data import digits
from genmod.evaluation import evaluate
from genmod.models import VAE
from genmod.training import fit, train

FIGURE = Path("runs/examples/vae.png")


def main(steps: int) -> None:
    """Train, report, sample."""
    torch.manual_seed(0)
    data = digits()
    assert data.bins is not None
    assert data.labels is not None
    model = VAE(data.shape, data.bins, latents=16, dropout=0.1)
    print(model)
    train(fit(model, data, steps=steps))
    model.cpu()

    report = evaluate(model, data.test, importance=64)
    print(f"test, {report.stamp.value}: {report.value} nats = {report.bits_per_dim} bits/dim")
    for name, term in report.terms.items():
        print(f"  {name}: {term} nats")
    print(f"test, estimate, {report.importance_draws} importance draws: {report.importance} nats")

    # A latent that costs nothing carries nothing: a unit below a hundredth of a nat has collapsed.
    assert report.scores is not None
    units = report.scores.units["prior"]
    print(f"  latents in use: {int((units > 0.01).sum())} of {len(units)}")

    pictures = {
        "test images": data.test[:36],
        "reconstructions": model.reconstruct(data.test[:36]),
        "samples": model.sample(36),
    }
    plots.save(plots.samples(pictures, highest=data.bins - 1), FIGURE)
    codes = model.encode(data.test)
    assert isinstance(codes, torch.Tensor)
    latents = FIGURE.with_name("vae_latents.png")
    plots.save(plots.latent_spaces({"VAE": codes}, data.labels["test"]), latents)
    print(f"figures: {FIGURE}, {latents}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="steps of training")
    main(parser.parse_args().steps)
