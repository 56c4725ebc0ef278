"""Figures of what the benchmarks found, from the JSON that they write with ``--out``.

Run: python benchmarks/draw.py few_steps.json diffusion.json      (the figures land beside the files)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contenders import samplers
from matplotlib.figure import Figure

from genmod import plots
from genmod.plots.style import INK, NOTE, PALE, figure, label_axes, plain
from genmod.schedules import LinearLogSNR

Found = Mapping[str, Any]
"""What a benchmark wrote."""


def few_steps(found: Found) -> Figure:
    """Fréchet distance against evaluations: each sampler on its best grid, the chain, real images."""
    chain, curves = found["chain"], dict[str, dict[int, float]]()
    for each in found["found"]:
        distance, curve = each["quality"]["frechet"], curves.setdefault(each["sampler"], {})
        budget = each["budget"]
        curve[budget] = min(distance, curve.get(budget, distance))
    noisy = {name for name, sampler in samplers(LinearLogSNR()).items() if sampler.stochastic}
    caption = (
        f"N = {chain['samples']:,} samples against {chain['real']:,} test images of {found['data']}; "
        f"features {chain['sha256'][:12]}. Each sampler on the grid that suits it best. Gray: the "
        f"{len(curves.keys() - noisy)} samplers that add no noise."
    )
    made = figure(9.0, 5.4, "Few steps: samplers that add noise, and those that do not", caption)
    axes = plain(made.add_subplot())
    colors, ends = plots.palette(name for name in curves if name in noisy), set[int]()
    for name, curve in curves.items():
        ends |= set(curve)
        if name in noisy:
            style: dict[str, Any] = {"color": colors[name], "lw": 2.2, "label": name, "zorder": 3}
        else:
            style = {"color": PALE, "lw": 1.2, "alpha": 0.7}
        axes.plot(list(curve), list(curve.values()), marker="o", ms=5, **style)
    levels = {
        f"ancestral, {chain['evaluations']:,}": chain["frechet"],
        "real images": chain["zero"],
    }
    for name, level in levels.items():
        axes.axhline(level, color=INK, lw=1.2, ls=":")
        axes.annotate(
            name, (0.0, level), (4, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=NOTE, color=INK,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted(ends), [str(end) for end in sorted(ends)])
    axes.set_xticks([], minor=True)
    label_axes(axes, "evaluations of the denoiser", "Fréchet distance from test images")
    axes.legend(frameon=False, fontsize=NOTE, loc="upper right", ncols=2)
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
            axes.legend(frameon=False, fontsize=NOTE, loc="lower left")
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
