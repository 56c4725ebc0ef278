"""Why a diffusion fixes its encoder: the rate of each level during training, for several seeds.

Run ``python examples/instability.py``; the figure is runs/examples/instability.png. With the
default settings and the plain bound:

* Bottom-up, the rates of all levels fall to zero within 100 steps. Those of z2 and z3 stay there; z1 is
  used again sooner or later, depending on the seed. The bounds of four seeds end 6 nats apart.
* Top-down, all rates fall to zero at first. In one run they stay there; in the others different levels are
  used again, hundreds of steps apart. The bounds end 8 nats apart.
* The rates of the diffusion fall smoothly, alike for all seeds. The bounds end 0.2 nats apart.

A fixed encoder makes training stable. It does not by itself improve the bound: here that of the diffusion
is about that of the better bottom-up runs.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod import plots
from genmod.data import Dataset, load
from genmod.decoders import DiscretizedLogisticDecoder, PredictedScale
from genmod.elbo import ELBO
from genmod.evaluation import evaluate
from genmod.model import LatentModel
from genmod.models import HVAE, Diffusion, Inference
from genmod.nn import MLPs
from genmod.plots.style import COLORS, INK, LABEL, figure, label_axes, plain
from genmod.schedules import LinearLogSNR
from genmod.training import training_loop

FIGURE = Path("runs/examples/instability.png")
MODELS = {
    "hierarchical VAE,\nbottom-up": Inference.BOTTOM_UP,
    "hierarchical VAE,\ntop-down": Inference.TOP_DOWN,
    "diffusion,\nfixed encoder": None,
}
POINTS = 50
"""The number of points of a curve; each is a mean over several batches."""
LEVELS = ("z1, next to the data", "z2", "z3, the top")
THIRDS = ("steps with t ≤ 1/3, next to the data", "1/3 < t ≤ 2/3", "t > 2/3, the noisiest")
CAPTION = (
    "Digits, trained on the plain bound. Hierarchies of 16, 8 and 4 dimensions; a level at 0 is unused. "
    "Bottom-up, z1 and z2 are sampled log-ratios; all other rates are KL divergences. The "
    "diffusion has 60 latents, and each of its panels has its own scale."
)


def build(data: Dataset, inference: Inference | None) -> LatentModel:
    """A hierarchy that learns its encoder, or a diffusion, whose encoder is fixed."""
    assert data.bins is not None
    shape, bins, small = data.shape, data.bins, MLPs(64, dropout=0.1)
    if inference is not None:
        return HVAE(shape, bins, latents=(16, 8, 4), inference=inference, networks=small)
    outputs = small.build(shape, (2, *shape))
    decoder = DiscretizedLogisticDecoder(outputs, shape, bins, PredictedScale(0.5))
    schedule = LinearLogSNR(clean=2.0, noisy=-6.0)
    return Diffusion(shape, bins, schedule=schedule, steps=60, decoder=decoder, networks=small)


def levels(elbo: ELBO) -> Tensor:
    """Mean nats of a batch for three levels, from the data up (a diffusion: three parts of time)."""
    if "steps" not in elbo.rates:
        means = {level.name: level.nats.mean() for level in elbo.levels()}
        return torch.stack([means[name] for name in ("z1", "z2", "z3")])
    steps = elbo.rates["steps"]
    third, nats = (3 * steps.level).ceil(), steps.weight * steps.nats
    return torch.stack([(nats * (third == k)).sum(1).mean() for k in (1, 2, 3)])


def record(model: LatentModel, data: Dataset, steps: int, seed: int) -> Tensor:
    """Train on the plain bound; the rate of each level during training, ``(3, points)``."""
    # ``training_loop`` is a generator, so recording is one line.
    loop = training_loop(model, data, steps=steps, batch_size=64, learning_rate=2e-3, seed=seed)
    curves = torch.stack([levels(step.elbo) for step in loop], 1).cpu()
    every = max(1, steps // POINTS)
    return torch.stack([part.mean(1) for part in curves.split(every, 1)], 1)


def main(steps: int, seeds: int) -> None:
    """Train each model from several seeds; print the bounds, and draw the rates."""
    data = load("digits")
    curves: dict[str, list[Tensor]] = {}
    for name, inference in MODELS.items():
        curves[name] = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = build(data, inference)
            curves[name].append(record(model, data, steps, seed))
            report = evaluate(model, data.test)
            ends = ", ".join(f"{nats:.2f}" for nats in curves[name][-1][:, -1])
            title = name.replace("\n", " ")
            print(f"{title}, seed {seed}: {report.value} nats (test, {report.stamp.value})")
            print(f"  nats per level at the end of training, from the data up: {ends}")
    plots.save(draw(curves, steps), FIGURE)
    print(f"figure: {FIGURE}")


def draw(curves: Mapping[str, list[Tensor]], steps: int) -> Figure:
    """A row for each model, a column for each level, a line for each seed."""
    made = figure(10.4, 8.6, "The rate of each level during training, for several seeds", CAPTION)
    panels = made.subplots(len(curves), 3, sharex=True, squeeze=False)
    for row, (name, seeds) in zip(panels, curves.items(), strict=True):
        highest, fixed = torch.stack(seeds).amax((0, 2)), MODELS[name] is None
        for level, axes in enumerate(row):
            plain(axes).set_title((THIRDS if fixed else LEVELS)[level], fontsize=LABEL, color=INK)
            for seed, (curve, color) in enumerate(zip(seeds, COLORS, strict=False)):
                places = torch.linspace(0, steps, len(curve[level]) + 1)[1:]
                axes.plot(places, curve[level], color=color, lw=1.8, label=f"seed {seed}")
            # All levels of a hierarchy have one scale, so that an unused level is visible.
            top = float(highest[level] if fixed else highest.max())
            axes.set_ylim(-0.03 * top, 1.05 * top)
        label_axes(row[0], "", f"{name}\nnats")
    for axes in panels[-1]:
        label_axes(axes, "step of training", "")
    panels[0][1].legend(frameon=False)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="steps of training of each run")
    parser.add_argument("--seeds", type=int, default=4, help="runs of each model")
    chosen = parser.parse_args()
    main(chosen.steps, chosen.seeds)
