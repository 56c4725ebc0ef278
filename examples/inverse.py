"""Inverse problems: inpainting, super-resolution and deblurring with one diffusion, trained once.

Run ``python examples/inverse.py``, or with ``--data mnist``. The diffusion never saw a measurement while
it was trained. The figure is runs/examples/inverse.png.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch

from genmod import plots
from genmod.data import Dataset, load
from genmod.evaluation import evaluate
from genmod.inverse import MMPS, AveragePool, Blur, Mask, Operator
from genmod.models import Diffusion, with_denoiser
from genmod.nn import ConvNets, MLPs, Networks
from genmod.schedules import LinearLogSNR
from genmod.training import fit

DATA = ("digits", "mnist")
NETWORKS: dict[str, Networks] = {
    "digits": MLPs(depth=4, dropout=0.1),
    "mnist": ConvNets(dropout=0.1),
}
FIGURE = Path("runs/examples/inverse.png")
NOISE, IMAGES = 0.1, 8


def main(data: Dataset, steps: int, draws: int) -> None:
    """Train a prior; measure test images in three ways; draw samples of the posterior."""
    assert data.bins is not None
    fewer = replace(data, validation=data.validation[:500], labels=None)
    torch.manual_seed(0)
    schedule = LinearLogSNR(clean=2 * math.log((data.bins - 1) / 2), noisy=-6.0)
    network = NETWORKS[data.name].denoiser(data.shape)
    model = Diffusion(data.shape, data.bins, denoiser=network, schedule=schedule, steps=64)
    fit(model, fewer, steps=steps, learning_rate=2e-3)
    report = evaluate(model, data.test[:200])
    print(f"the prior, test, {report.stamp.value}: {report.value} nats = ", end="")
    print(f"{report.bits_per_dim} bits/dim")

    model.cpu()
    x = model.encoder.real(data.test[:IMAGES])
    ink = data.test[:IMAGES] / (data.bins - 1)
    rows = [plots.Row("test images", ink)]
    for name, operator in operators(data.shape).items():
        y = operator(x)
        y = y + NOISE * torch.randn_like(y)
        # Each measurement is repeated, so that one run draws several samples for it.
        repeated = y.repeat_interleave(draws, 0)
        posterior = with_denoiser(model, lambda d, a=operator, m=repeated: MMPS(d, a, m, NOISE))
        drawn = posterior.sample(len(repeated)).unflatten(0, (len(y), draws)) / (data.bins - 1)
        rows += [plots.Row(f"{name}\nmeasured", shown(operator, y))]
        rows += [plots.Row(f"draw {i + 1}", drawn[:, i]) for i in range(2)]
        rows += [plots.Row(f"mean of {draws}", drawn.float().mean(1))]
        one, mean = error(drawn[:, 0], ink), error(drawn.mean(1), ink)
        misfit = (operator(2 * drawn[:, 0] - 1) - y).square().mean().sqrt()
        print(f"{name}: error of a draw {one:.3f}, of their mean {mean:.3f} (black is 1); ", end="")
        print(f"A draw - y {misfit:.3f}, its noise {NOISE}")
    plots.save(plots.strips(rows, "From a measurement to images: draws, and their mean"), FIGURE)
    print(f"figure: {FIGURE}")


def operators(shape: tuple[int, ...]) -> dict[str, Operator]:
    """The lower half hidden; blocks of 2 x 2 averaged; blurred by a tenth of the side."""
    observed = torch.ones(shape, dtype=torch.bool)
    observed[:, shape[1] // 2 :] = False
    return {
        "inpainting": Mask(observed),
        "super-resolution": AveragePool(shape, 2),
        "deblurring": Blur(shape, shape[1] / 10),
    }


def shown(operator: Operator, y: torch.Tensor) -> torch.Tensor:
    """A measurement as an image; entries that were not measured are empty."""
    if operator.outputs == operator.inputs:
        return ((y + 1) / 2).clamp(0, 1)
    weight = operator.adjoint(torch.ones_like(y))
    return torch.where(weight > 0, (operator.adjoint(y) / weight + 1) / 2, torch.nan).clamp(0, 1)


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Root mean square."""
    return float((found - truth).square().mean().sqrt())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="training steps")
    parser.add_argument("--draws", type=int, default=16, help="draws for each image (at least 2)")
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps, chosen.draws)
