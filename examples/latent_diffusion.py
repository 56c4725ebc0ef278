"""Latent diffusion on the digits, in two stages: a VAE, then a diffusion as its prior.

Run ``python examples/latent_diffusion.py``; the figure is runs/examples/latent_diffusion.png.
"""

import argparse
from pathlib import Path

import torch

from genmod import plots
from genmod.data import digits
from genmod.evaluation import evaluate
from genmod.models import VAE, LatentDiffusion
from genmod.objectives import Beta
from genmod.training import fit, train

FIGURE = Path("runs/examples/latent_diffusion.png")


def main(steps: int) -> None:
    """Fit the autoencoding VAE, freeze it, fit the prior; report the bound of both stages."""
    torch.manual_seed(0)
    data = digits()
    assert data.bins is not None
    vae = VAE(data.shape, data.bins, latents=16, dropout=0.1)
    model = LatentDiffusion(vae=vae)

    # Stage one asks less for the latents than they cost (beta < 1): a prior is still to be learned.
    first = model.first_stage()
    train(fit(first, data, Beta(0.5), steps=steps))
    before = evaluate(first, data.test)
    drawn = first.sample(36).cpu()

    # Stage two: only the prior is trained, on the plain bound of the whole model.
    model.freeze(data.train.to(model.prior.anchor.device))
    train(fit(model, data, steps=steps))
    after = evaluate(model, data.test, draws=32, replicates=4)
    print(model)

    for stage, report in {"prior N(0, I)": before, "prior by diffusion": after}.items():
        print(f"{stage}, test, {report.stamp.value}: {report.value} nats")
        for name, term in report.terms.items():
            print(f"  {name}: {term} nats")

    pictures = {
        "test images": data.test[:36],
        "samples, prior N(0, I)": drawn,
        "samples, prior by diffusion": model.sample(36).cpu(),
    }
    plots.save(plots.samples(pictures, highest=data.bins - 1), FIGURE)
    print(f"figure: {FIGURE}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="steps of training, in each stage")
    main(parser.parse_args().steps)
