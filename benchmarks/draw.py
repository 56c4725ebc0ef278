"""Figures of what the benchmarks found, from the JSON that they write with ``--out``.

Run: python benchmarks/draw.py few_steps.json diffusion.json      (the figures land beside the files)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from genmod import plots
from genmod.plots.style import LABEL, PALE, figure, label_axes, plain

Found = Mapping[str, Any]
"""What a benchmark wrote."""


def few_steps(found: Found) -> Figure:
    """Fréchet distance against evaluations: each sampler on its best grid, the chain, real images."""
    chain, curves = found["chain"], dict[str, dict[int, float]]()
    for each in found["found"]:
        distance, curve = each["quality"]["frechet"], curves.setdefault(each["sampler"], {})
        budget = each["budget"]
        curve[budget] = min(distance, curve.get(budget, distance))
    caption = (
        f"N = {chain['samples']:,} samples against {chain['real']:,} test images of {found['data']}; "
        f"features {chain['sha256'][:12]}. Each sampler on the grid that suits it best."
    )
    made = figure(9.0, 5.4, "Few steps, by sampler", caption)
    axes = plain(made.add_subplot())
    colors = plots.palette(curves)
    for i, (name, curve) in enumerate(curves.items()):
        # More samplers than colors: the second round of them is dashed.
        style = {"color": colors[name], "ls": "-" if i < len(set(colors.values())) else "--"}
        axes.plot(list(curve), list(curve.values()), **style, lw=1.8, marker="o", label=name)
    levels = {f"the chain, {chain['evaluations']:,}": chain["frechet"], "real": chain["zero"]}
    for name, level in levels.items():
        axes.axhline(level, color=PALE, lw=1.2, ls=":")
        axes.annotate(
            name, (1.0, level), xycoords=("axes fraction", "data"), ha="right", va="bottom"
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({budget for curve in curves.values() for budget in curve})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    label_axes(axes, "evaluations of the denoiser", "Fréchet distance from test images")
    axes.legend(
        frameon=False,
        fontsize=LABEL - 2,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        handlelength=4,
    )
    return made


def diffusion(found: Found) -> Figure:
    """Noise error and bits/dim against seconds of training, ours and each peer's best try."""
    best: dict[str, Sequence[Mapping[str, float]]] = {}
    for name, curve in found["curves"].items():
        library, _, _ = name.rpartition(", ")
        known = best.get(library)
        if known is None or curve[-1]["bits"] < known[-1]["bits"]:
            best[library] = curve
    caption = (
        f"MNIST, batches of {found['batch']}, the same loss, images, levels and noise for all, about a "
        "million parameters each; a library at the learning rate, of three, that ends lowest."
    )
    made = figure(10.0, 4.4, "Quality against seconds", caption)
    for number, (key, label) in enumerate(
        (("mse", "mean squared error of the noise"), ("bits", "bits/dim (estimate of the bound)"))
    ):
        axes = plain(made.add_subplot(1, 2, number + 1))
        for (library, curve), color in zip(best.items(), plots.palette(best).values(), strict=True):
            seconds, height = [row["seconds"] for row in curve], [row[key] for row in curve]
            axes.plot(seconds, height, color=color, lw=2.0, marker=".", label=library)
        axes.set_yscale("log")
        label_axes(axes, "seconds of training, one thread", label)
        if number == 0:
            axes.legend(frameon=False, fontsize=LABEL - 2)
    return made


FIGURES: Mapping[str, Callable[[Found], Figure]] = {"few_steps": few_steps, "diffusion": diffusion}
"""By the name of the benchmark, which is its file's."""


def main(argv: Sequence[str] | None = None) -> None:
    """A figure beside each file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help=f"of {', '.join(FIGURES)}")
    for file in parser.parse_args(argv).files:
        if file.stem not in FIGURES:
            raise SystemExit(f"got {file}; expected a file of one of {', '.join(FIGURES)}")
        print(
            plots.save(FIGURES[file.stem](json.loads(file.read_text())), file.with_suffix(".png"))
        )


if __name__ == "__main__":
    main()
