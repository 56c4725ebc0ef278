"""A VAE: its bound term by term, an importance-weighted estimate, its samples, its latent space.

Run ``python examples/vae.py``, or with ``--data mnist``. The figures are runs/examples/vae.png
(reconstructions and samples) and runs/examples/vae_latents.png (the latent space, colored by digit,
and a straight path through it, decoded).
"""

import argparse
from pathlib import Path

import torch

from genmod import plots
from genmod.data import Dataset, load
from genmod.evaluation import evaluate
from genmod.models import VAE
from genmod.training import fit

DATA = ("digits", "mnist")
FIGURE = Path("runs/examples/vae.png")


def main(data: Dataset, steps: int) -> None:
    """Train, report, sample, and interpolate between two images."""
    assert data.bins is not None
    assert data.labels is not None
    torch.manual_seed(0)
    model = VAE(data.shape, data.bins, latents=16, dropout=0.1)
    print(model)
    fit(model, data, steps=steps)

    report = evaluate(model, data.test[:1000], importance_samples=64)
    print(f"test, {report.stamp.value}: {report.value} nats = {report.bits_per_dim} bits/dim")
    for name, term in report.terms.items():
        print(f"  {name}: {term} nats")
    print(
        f"test, estimate, {report.importance_samples} importance samples: {report.importance} nats"
    )

    # Active units: a latent dimension with a rate below 0.01 nats has collapsed.
    assert report.scores is not None
    units = report.scores.per_dim["prior"]
    print(f"  active latents: {int((units > 0.01).sum())} of {len(units)}")

    # Sampling: z ~ p(z), then x ~ p(x | z). The mean of p(x | z) is the image without pixel noise.
    model.cpu()
    x, z = data.test[:36], model.prior.sample(36)
    pictures = {
        "test images": x,
        "reconstructions": model.reconstruct(x),
        "samples: mean of p(x | z)": model.decode(z).mean,
        "samples: x ~ p(x | z)": model.decode(z).sample(),
    }
    title = "A VAE: reconstructions, and samples from the prior"
    plots.save(plots.samples(pictures, highest=data.bins - 1, title=title), FIGURE)

    codes, labels = model.encode(data.train[:3000]), data.labels["train"][:3000]
    ends = model.encode(x[:2])
    assert isinstance(codes, torch.Tensor)
    assert isinstance(ends, torch.Tensor)
    path = torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, 9)[:, None])
    images = model.decode(path).mean / (data.bins - 1)
    title = f"VAE, {codes.shape[1]} latent dimensions"
    routes = {title: plots.Route(path, images, label="decoded along the path from A to B")}
    latents = FIGURE.with_name("vae_latents.png")
    drawn = plots.latent_spaces({title: codes}, labels, routes, title="A path through the codes")
    plots.save(drawn, latents)
    print(f"figures: {FIGURE}, {latents}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="training steps")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps)
