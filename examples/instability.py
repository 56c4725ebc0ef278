"""Why a diffusion fixes its encoder: nats per level while hierarchies learn theirs, seed by seed.

Run ``python examples/instability.py``; the figure is runs/examples/instability.png. What is seen
with the default settings, on the plain bound:

* Bottom-up, all levels die within 100 steps. z2 and z3 stay dead in every run; z1 wakes sooner or
  later, depending on the seed. The test bounds of four seeds end 6 nats apart.
* Top-down, all levels die at first. In one run none wakes again, in the others different ones do,
  hundreds of steps apart. The bounds end 8 nats apart.
* The diffusion's rates fall smoothly, and for all seeds alike. The bounds end 0.2 nats apart.

That the encoder is fixed makes training steady; it does not by itself make the bound better. Here
the diffusion's is about that of the better bottom-up runs.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from genmod import plots
from genmod.data import Dataset, digits
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
"""Points of a curve: each is the mean over as many batches as that leaves."""
LEVELS = ("z1, next to the data", "z2", "z3, the top")
THIRDS = ("steps with t ≤ 1/3, next to the data", "1/3 < t ≤ 2/3", "t > 2/3, the noisiest")
CAPTION = (
    "Digits, trained on the plain bound. Hierarchies of 16, 8 and 4 dimensions; a level at 0 carries "
    "nothing. Bottom-up, z1 and z2 are sampled log-ratios; all other rates are KL divergences. The "
    "diffusion has 60 latents, and each of its panels a scale of its own."
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
    """Mean nats of a batch for three levels, from the data up; a diffusion's time is cut in three."""
    if "steps" not in elbo.rates:
        nats = {level.name: level.nats.mean() for level in elbo.levels()}
        return torch.stack([nats[name] for name in ("z1", "z2", "z3")])
    steps = elbo.rates["steps"]
    third, paid = (3 * steps.level).ceil(), steps.weight * steps.nats
    return torch.stack([(paid * (third == k)).sum(1).mean() for k in (1, 2, 3)])


def record(model: LatentModel, data: Dataset, steps: int, seed: int) -> Tensor:
    """Train on the plain bound; what each level cost on the way, ``(3, points)``."""
    # ``fit`` is a generator, so recording is a line of one's own loop.
    loop = training_loop(model, data, steps=steps, batch_size=64, learning_rate=2e-3, seed=seed)
    curves = torch.stack([levels(step.elbo) for step in loop], 1).cpu()
    every = max(1, steps // POINTS)
    return torch.stack([part.mean(1) for part in curves.split(every, 1)], 1)


def main(steps: int, seeds: int) -> None:
    """Train each model from several seeds; say what came of it, and draw how."""
    data = digits()
    curves: dict[str, list[Tensor]] = {}
    for name, inference in MODELS.items():
        curves[name] = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = build(data, inference)
            curves[name].append(record(model, data, steps, seed))
            report = evaluate(model, data.test)
            paid = ", ".join(f"{nats:.2f}" for nats in curves[name][-1][:, -1])
            title = name.replace("\n", " ")
            print(f"{title}, seed {seed}: {report.value} nats (test, {report.stamp.value})")
            print(f"  nats per level at the end of training, from the data up: {paid}")
    plots.save(draw(curves, steps), FIGURE)
    print(f"figure: {FIGURE}")


def draw(curves: Mapping[str, list[Tensor]], steps: int) -> Figure:
    """A row for each model, a column for each level, a line for each seed."""
    made = figure(10.4, 8.6, "Nats paid for each level while training, seed by seed", CAPTION)
    panels = made.subplots(len(curves), 3, sharex=True, squeeze=False)
    for row, (name, seeds) in zip(panels, curves.items(), strict=True):
        highest, fixed = torch.stack(seeds).amax((0, 2)), MODELS[name] is None
        for level, axes in enumerate(row):
            plain(axes).set_title((THIRDS if fixed else LEVELS)[level], fontsize=LABEL, color=INK)
            for seed, (curve, color) in enumerate(zip(seeds, COLORS, strict=False)):
                places = torch.linspace(0, steps, len(curve[level]) + 1)[1:]
                axes.plot(places, curve[level], color=color, lw=1.8, label=f"seed {seed}")
            # Levels of a hierarchy on one scale, so that a dead one is seen to be dead.
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
