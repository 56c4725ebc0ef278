"""An autoencoder on the digits: it reconstructs, it bounds nothing, and it cannot be sampled.

Run ``python examples/autoencoder.py``; the figure is runs/examples/autoencoder.png.
"""

import argparse
from pathlib import Path

import torch

from genmod import plots
from genmod.data import digits
from genmod.evaluation import evaluate
from genmod.models import Autoencoder
from genmod.training import fit, train

FIGURE = Path("runs/examples/autoencoder.png")


def main(steps: int) -> None:
    """Train, report, and feed the decoder noise."""
    torch.manual_seed(0)
    data = digits()
    assert data.bins is not None
    model = Autoencoder(data.shape, data.bins, latents=8)
    print(model)
    train(fit(model, data, steps=steps))
    model.cpu()

    report = evaluate(model, data.test)
    print(f"log p(x | z) at the code: {report.value} nats (test, stamp: {report.stamp.value})")

    # Nothing says how codes are distributed. N(0, I) is the guess that the lecture tries first, and
    # noise with the codes' own mean and spread is a better guess that is still only a guess.
    codes = model.encode(data.train)
    assert isinstance(codes, torch.Tensor)
    noise = torch.randn(36, codes.shape[1])
    pictures = {
        "test images": data.test[:36],
        "x' = d(e(x))": model.reconstruct(data.test[:36]),
        "d(noise), N(0, I)": model.decode(noise).mean,
        "d(noise), spread of the codes": model.decode(codes.mean(0) + codes.std(0) * noise).mean,
    }
    plots.save(plots.samples(pictures, highest=data.bins - 1), FIGURE)
    print(f"figure: {FIGURE}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="steps of training")
    main(parser.parse_args().steps)
