"""A diffusion, trained in continuous time, evaluated and sampled with any number of steps.

Run ``python examples/diffusion.py``, or with ``--data mnist`` (the network is then a U-Net). Figures:
runs/examples/diffusion_chain.png (noise added to an image, and a sample denoised from noise),
runs/examples/diffusion.png (samples), runs/examples/diffusion_steps.png (the bound by noise level).
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch

from genmod import plots
from genmod.data import Dataset, load
from genmod.denoisers import Denoiser, Learned, VelocityTarget
from genmod.diffusion import NoisingEncoder
from genmod.diffusion.noising import NoisingPosterior
from genmod.evaluation import evaluate
from genmod.models import Diffusion
from genmod.nn import ConvNets, MLPs, Networks
from genmod.samplers import Ancestral
from genmod.schedules import LinearLogSNR, Schedule
from genmod.training import fit

DATA = ("digits", "mnist")
NETWORKS: dict[str, Networks] = {
    "digits": MLPs(depth=4, dropout=0.1),
    "mnist": ConvNets(dropout=0.1),
}
FIGURE = Path("runs/examples/diffusion.png")


def main(data: Dataset, steps: int) -> None:
    """Train once; evaluate and sample the same denoiser as chains of several lengths."""
    assert data.bins is not None
    # A few hundred images are enough to choose the best weights.
    fewer = replace(data, validation=data.validation[:500], labels=None)
    torch.manual_seed(0)
    # At the clean end the noise is as wide as a bin on [-1, 1]; the decoder models finer details.
    schedule = LinearLogSNR(clean=2 * math.log((data.bins - 1) / 2), noisy=-6.0)
    network = NETWORKS[data.name].denoiser(data.shape)
    denoiser = Learned(network, VelocityTarget())
    model = Diffusion(data.shape, data.bins, denoiser=denoiser, schedule=schedule)
    print(model)
    fit(model, fewer, steps=steps, learning_rate=2e-3)

    # In continuous time each sample visits a few levels: a noisy estimate of the bound.
    report = evaluate(model, data.test[:1000], timesteps=16, replicates=4)
    print(
        f"continuous time, test, {report.stamp.value}: {report.value} nats = "
        f"{report.bits_per_dim} bits/dim; error from drawn levels: {report.noise:.2f} nats"
    )

    # The network is conditioned on the log-SNR, not on the time. So it also serves a chain of T
    # latents, of which every level can be visited: a bound.
    pictures, profiles = {"test images": data.test[:36]}, {}
    for count in (8, 16, 64):
        chain = Diffusion(
            bins=data.bins, denoiser=denoiser, schedule=schedule, decoder=model.decoder, steps=count
        ).to(model.device)
        report = evaluate(chain, data.test[:400])
        print(f"T = {count}, test, {report.stamp.value}: {report.bits_per_dim} bits/dim")
        pictures[f"samples, T = {count}"] = chain.sample(36)
        assert report.scores is not None
        assert report.scores.levels is not None
        profiles[f"T = {count}"] = report.scores.levels

    plots.save(plots.samples(pictures, data.bins - 1, title="Samples, by steps"), FIGURE)
    profile, strip = (FIGURE.with_stem(f"diffusion_{name}") for name in ("steps", "chain"))
    plots.save(plots.step_profile(profiles, title="The bound by noise level"), profile)
    model.cpu()
    x = NoisingEncoder(schedule, data).real(data.test[:1])
    plots.save(plots.strips(both_ways(denoiser, schedule, x), "Noising and denoising"), strip)
    print(f"figures: {FIGURE}, {profile}, {strip}")


@torch.no_grad()
def both_ways(denoiser: Denoiser, schedule: Schedule, x: torch.Tensor) -> list[plots.Row]:
    """Forward: an image with more and more noise, in one step each. Reverse: step by step from noise."""
    t = torch.linspace(0, 1, 128, dtype=torch.float64)
    shown = torch.linspace(0, len(t) - 1, 12).long()
    forward = NoisingPosterior(x.expand(12, *x.shape[1:]), schedule).at(t[shown]).sample()
    z = torch.randn(x.shape)
    path = torch.cat([z, *Ancestral(denoiser, schedule).path(z, t.flip(0))])
    words = [rf"$\bar\alpha_t$ = {kept:.2f}" for kept in schedule.at(t[shown]).alpha.square()]
    return [
        plots.Row(r"forward: $q(z_t | x)$", (forward + 1) / 2, under=words),
        plots.Row(r"reverse: $p(z_s | z_t)$", (path[shown] + 1) / 2, under=words[::-1]),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="training steps")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps)
