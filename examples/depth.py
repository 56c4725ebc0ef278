"""Depth as a knob: one network as a hierarchical VAE of 1, 2, 4, ... levels, from VAE to diffusion.

Run ``python examples/depth.py``, or with ``--data mnist`` (the networks are then U-Nets). The figure is
runs/examples/depth.png: the bound against the number of levels, with a fixed and with a learned encoder.

Every model has the same decoder and the same denoiser, trained anew for the same number of steps. With
the fixed encoder it is a diffusion of as many latents, and a step visits one of them. With the learned
encoder a step visits all levels: it costs as many times more.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), section 3; Nielsen et al.,
"DiffEnc: Variational Diffusion with a Learned Encoder" (2024).
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.figure import Figure

from genmod import plots
from genmod.data import Dataset, load
from genmod.decoders import likelihood
from genmod.evaluation import Estimate, evaluate
from genmod.model import LatentModel
from genmod.models import Diffusion, with_depth
from genmod.nn import ConvNets, MLPs, Networks
from genmod.plots.style import LABEL, figure, label_axes, plain
from genmod.schedules import LinearLogSNR
from genmod.training import fit

DATA = ("digits", "mnist")
NETWORKS: dict[str, Networks] = {
    "digits": MLPs(width=128, dropout=0.1),
    "mnist": ConvNets(width=16, dropout=0.1),
}
FIGURE = Path("runs/examples/depth.png")
LEVELS = {"learned encoder": (1, 2, 4, 8, 16), "fixed encoder": (1, 2, 4, 8, 16, 64, 256, 1000)}


def build(data: Dataset, levels: int, learned: bool) -> LatentModel:
    """The same networks and initial weights at each depth."""
    networks, pixels = NETWORKS[data.name], data.shape[1] * data.shape[2]
    torch.manual_seed(0)

    def network(outputs: int) -> torch.nn.Module:
        return networks.build(data.shape, (outputs // pixels, *data.shape[1:]))

    assert data.bins is not None
    # The clean end is noisy: the decoder p(x | z_0) is a network of its own, as that of a VAE.
    schedule = LinearLogSNR(2.0, -6.0)
    decoder = likelihood(network, data.shape, data.bins)
    base = Diffusion(data, schedule=schedule, networks=networks, decoder=decoder, steps=levels)
    return with_depth(base, levels, learned_encoder=learned, networks=networks)


def main(data: Dataset, steps: int, most: int) -> None:
    """Train at each depth with both encoders: a table, and a curve for each."""
    few = replace(data, validation=data.validation[:500], labels=None)
    found: dict[str, dict[int, Estimate]] = {}
    for name, depths in LEVELS.items():
        found[name] = {}
        for levels in (count for count in depths if count <= most):
            model, start = build(data, levels, name == "learned encoder"), time.monotonic()
            fit(model, few, steps=steps, learning_rate=2e-3, progress=False)
            seconds = time.monotonic() - start
            report = evaluate(model, data.test[:400])
            assert report.bits_per_dim is not None
            found[name][levels] = report.bits_per_dim
            print(
                f"{name}, {levels:4} levels: test, {report.stamp.value}: {report.value} nats = "
                f"{report.bits_per_dim} bits/dim, {seconds:.0f} s"
            )
    print("figure:", plots.save(draw(found), FIGURE))


def draw(found: Mapping[str, Mapping[int, Estimate]]) -> Figure:
    """Bits/dim against the number of levels, a line for each encoder."""
    made = figure(7.4, 4.6, "Bits per dimension by depth: from a VAE to a diffusion")
    axes = plain(made.add_subplot())
    for (name, bits), color in zip(found.items(), plots.palette(found).values(), strict=True):
        means, errors = [b.mean for b in bits.values()], [b.error for b in bits.values()]
        axes.errorbar(list(bits), means, errors, color=color, lw=2.0, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(LEVELS["fixed encoder"], [str(count) for count in LEVELS["fixed encoder"]])
    axes.minorticks_off()
    label_axes(axes, "levels (1: a VAE; many, fixed: a diffusion)", "bits/dim (test)")
    axes.legend(frameon=False, fontsize=LABEL)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=1500, help="steps of each training run")
    parser.add_argument("--most", type=int, default=1000, help="the most levels of a model")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps, chosen.most)
