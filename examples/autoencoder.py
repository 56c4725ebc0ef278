"""An autoencoder: it reconstructs, but decoding noise gives no images, and it bounds nothing.

Run ``python examples/autoencoder.py``, or with ``--data mnist``. The figures are
runs/examples/autoencoder.png (test images, reconstructions, decoded noise) and
runs/examples/autoencoder_latents.png (the latent space, colored by digit).
"""

import argparse
from pathlib import Path

import torch

from genmod import plots
from genmod.data import Dataset, load
from genmod.evaluation import evaluate
from genmod.models import Autoencoder
from genmod.training import fit

DATA = ("digits", "mnist")
FIGURE = Path("runs/examples/autoencoder.png")


def main(data: Dataset, steps: int) -> None:
    """Train x' = d(e(x)), report, and decode noise, as the lecture tries first."""
    assert data.bins is not None
    assert data.labels is not None
    torch.manual_seed(0)
    model = Autoencoder(data.shape, data.bins, latents=8)
    print(model)
    fit(model, data, steps=steps)

    report = evaluate(model, data.test[:1000])
    print(f"log p(x | z) at the code: {report.value} nats (test, stamp: {report.stamp.value})")

    # An autoencoder has no distribution of codes. N(0, I) is a guess; noise with the mean and the
    # standard deviation of the codes is a better guess.
    model.cpu()
    codes, labels = model.encode(data.train[:3000]), data.labels["train"][:3000]
    assert isinstance(codes, torch.Tensor)
    noise = torch.randn(36, codes.shape[1])
    for name, spread in {"codes": codes.std(0), "noise": noise.std(0)}.items():
        print(f"standard deviations of {name}: {spread.min():.2f} to {spread.max():.2f}")

    x = data.test[:36]
    pictures = {
        "test images": x,
        "x' = d(e(x))": model.reconstruct(x),
        "d(noise), N(0, I)": model.decode(noise).mean,
        "d(noise), spread of the codes": model.decode(codes.mean(0) + codes.std(0) * noise).mean,
    }
    drawn = plots.samples(
        pictures, highest=data.bins - 1, title="An autoencoder decodes noise badly"
    )
    plots.save(drawn, FIGURE)
    latents = FIGURE.with_name("autoencoder_latents.png")
    title = f"Autoencoder, {codes.shape[1]} latent dimensions"
    plots.save(
        plots.latent_spaces({title: codes}, labels, title="Codes of training images"), latents
    )
    print(f"figures: {FIGURE}, {latents}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="training steps")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps)
