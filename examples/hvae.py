"""Two hierarchical VAEs: bottom-up inference (nesting) and top-down inference (alignment).

Run ``python examples/hvae.py``, or with ``--data mnist``. The figures are runs/examples/hvae.png
(the rate of each level) and runs/examples/hvae_samples.png.
"""

import argparse
from pathlib import Path

import torch

from genmod import plots
from genmod.data import Dataset, load
from genmod.evaluation import evaluate
from genmod.models import HVAE, Inference
from genmod.objectives import WarmUp
from genmod.training import fit

DATA = ("digits", "mnist")
FIGURE = Path("runs/examples/hvae.png")


def main(data: Dataset, steps: int) -> None:
    """Train both, and show the rate of each level."""
    assert data.bins is not None
    rates, pictures = {}, {"test images": data.test[:36]}
    for inference in Inference:
        torch.manual_seed(0)
        model = HVAE(data.shape, data.bins, latents=(16, 16, 16), inference=inference, dropout=0.2)
        print(model)
        # Without a KL warm-up the hierarchy often collapses (examples/instability.py shows it).
        objective = WarmUp(max(1, steps // 3))
        fit(model, data, objective, steps=steps, batch_size=64, weight_decay=0.05)

        report = evaluate(model, data.test[:1000], importance_samples=32)
        print(f"test, {report.stamp.value}: {report.value} nats = {report.bits_per_dim} bits/dim")
        print(f"test, estimate, 32 importance samples: {report.importance} nats")

        # Top-down, each rate is a KL and never negative. Bottom-up, "z1" and "z2" are log-ratios of
        # a level and the model above it.
        found = {n: term for n, term in report.terms.items() if n != "reconstruction"}
        for name, term in sorted(found.items()):
            print(f"  {name}: {term} nats")
        title = inference.name.lower().replace("_", "-")
        rates[title] = {name: (term.mean, term.error) for name, term in found.items()}
        # z3 ~ p(z3), z2 ~ p(z2 | z3), z1 ~ p(z1 | z2), then the mean of the decoder.
        pictures[f"samples, {title}"] = model.cpu().decoder(model.prior.sample(36)).mean.detach()

    plots.save(plots.level_rates(rates, title="The rate of each level of latents"), FIGURE)
    drawn = FIGURE.with_name("hvae_samples.png")
    title = "Samples of hierarchical VAEs"
    plots.save(plots.samples(pictures, highest=data.bins - 1, title=title), drawn)
    print(f"figures: {FIGURE}, {drawn}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=1500, help="training steps")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps)
