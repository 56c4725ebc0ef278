"""A diffusion on the digits, from parts: trained in continuous time, priced in any number of steps.

Run ``python examples/diffusion.py``; the figures are runs/examples/diffusion.png (samples) and
runs/examples/diffusion_steps.png (what each noise level costs).
"""

import argparse
from pathlib import Path

import torch

from genmod import plots
from genmod.data import digits
from genmod.denoisers import Learned, Velocity
from genmod.evaluation import evaluate
from genmod.models import Diffusion
from genmod.nn import DenoisingMLP
from genmod.schedules import LinearLogSNR
from genmod.training import fit, train

FIGURE = Path("runs/examples/diffusion.png")


def main(steps: int) -> None:
    """Train once; price and sample the same denoiser as chains of several lengths."""
    torch.manual_seed(0)
    data = digits()
    assert data.bins is not None
    network = DenoisingMLP(data.shape, depth=4, dropout=0.1)
    denoiser, schedule = Learned(network, Velocity()), LinearLogSNR(clean=4.0, noisy=-6.0)
    model = Diffusion(data.shape, data.bins, denoiser=denoiser, schedule=schedule)
    print(model)
    train(fit(model, data, steps=steps, learning_rate=2e-3))

    # In continuous time a sample visits a few levels: an estimate of the bound, itself noisy.
    report = evaluate(model, data.test, draws=32, replicates=4)
    print(
        f"continuous time, test, {report.stamp.value}: {report.value} nats = "
        f"{report.bits_per_dim} bits/dim; from drawn levels alone: {report.noise:.2f} nats"
    )

    # The network is told the log-SNR, not the time, so it also serves a chain of T latents, whose
    # every level can be visited: a bound.
    pictures, profiles = {"test images": data.test[:36]}, {}
    for count in (8, 32, 128):
        chain = Diffusion(
            bins=data.bins, denoiser=denoiser, schedule=schedule, decoder=model.decoder, steps=count
        )
        report = evaluate(chain, data.test)
        print(f"T = {count}, test, {report.stamp.value}: {report.bits_per_dim} bits/dim")
        pictures[f"samples, T = {count}"] = chain.sample(36)
        assert report.scores is not None
        assert report.scores.levels is not None
        profiles[f"T = {count}"] = report.scores.levels

    plots.save(plots.samples(pictures, highest=data.bins - 1), FIGURE)
    profile = FIGURE.with_name("diffusion_steps.png")
    plots.save(plots.step_profile(profiles), profile)
    print(f"figures: {FIGURE}, {profile}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="steps of training")
    main(parser.parse_args().steps)
