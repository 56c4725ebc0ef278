"""Latents to look at: a traversal, a map, paths and arithmetic between images, and a predictive check.

Run ``python examples/latents.py``, or with ``--data mnist``. The figures are runs/examples/latents.png (one
unit at a time, the most used first), runs/examples/latents_map.png (all test images by their codes),
runs/examples/latents_paths.png (from image to image, and along the direction from ones to sevens) and
runs/examples/latents_check.png (statistics of the data beside those of the model's own data).
"""

import argparse
from pathlib import Path

import torch

from genmod import plots
from genmod.data import Dataset, load
from genmod.editing import interpolate, latent_direction, move
from genmod.evaluation import evaluate, latent_map, predictive_check, traverse
from genmod.models import VAE
from genmod.training import fit

DATA = ("digits", "mnist")
FIGURE = Path("runs/examples/latents.png")
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def main(data: Dataset, steps: int, replicates: int) -> None:
    """Train a VAE and look at its latents from every side."""
    assert data.bins is not None
    assert data.labels is not None
    torch.manual_seed(0)
    model = VAE(data, latents=10)
    fit(model, data, steps=steps)
    report = evaluate(model, data.cut("test", 1000))
    print(f"test, {report.stamp.value}: {report.value} nats")

    # One unit at a time: what does it change, and how many nats does it carry?
    found = traverse(model, data.cut("test", 1000))
    print(found)
    plots.save(plots.traversal(found, title=f"{data.name}: each unit of a VAE"), FIGURE)

    # All rows on the two principal axes of their codes, colored by label.
    codes = latent_map(model, data)
    print(codes)
    map_ = plots.save(
        plots.latent_spaces({f"{data.name}: test images": codes}, title="A map of the codes"),
        FIGURE.with_name("latents_map.png"),
    )

    # Between images on a circle and on a line; and from ones to sevens, by the difference of mean codes.
    top = data.bins - 1
    a, b = data.test[:2], data.test[2:4]
    rows = []
    for path in ("spherical", "linear"):
        ways = interpolate(model, a, b, len(STRENGTHS), path=path)
        rows += [plots.Row(path, way / top) for way in ways]
    label = data.labels["train"]
    sevens, ones = data.train[label == 7], data.train[label == 1]
    direction = latent_direction(model, sevens, ones)
    for way in move(model, ones[:2], direction, STRENGTHS):
        rows.append(plots.Row("one to seven", way / top, under=[f"{s:g}" for s in STRENGTHS]))
    paths = plots.save(
        plots.strips(rows, title="Through the latent space"), FIGURE.with_name("latents_paths.png")
    )

    # Do data sets that the model draws look like the test part?
    check = predictive_check(model, data.cut("test", 300), replicates=replicates)
    print(check)
    compared = plots.predictive_check(check, title="Test data beside data that the model draws")
    checked = plots.save(compared, FIGURE.with_name("latents_check.png"))
    print(f"figures: {FIGURE}, {map_}, {paths}, {checked}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=DATA, default="digits", help="the data set")
    parser.add_argument("--steps", type=int, default=2000, help="training steps")
    parser.add_argument(
        "--replicates", type=int, default=200, help="data sets that the model draws"
    )
    chosen = parser.parse_args()
    main(load(chosen.data), chosen.steps, chosen.replicates)
