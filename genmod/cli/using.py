"""The commands that use a trained run. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)
]
DataPath = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATA]", help="A name or a file; the test part of the run's own data by default."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="The file to write.", show_default=False)]
Device = Annotated[
    str | None, typer.Option("--device", help="Where to compute: cpu, cuda.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed of the noise.")]
Level = Annotated[
    str | None,
    typer.Option("--level", help="A level of a hierarchy, such as z2.", show_default=False),
]


def evaluate(
    run: RunPath,
    data: DataPath = None,
    importance_samples: Annotated[
        int, typer.Option(help="Draws a row for an importance-weighted bound; an even number.")
    ] = 0,
    refine_steps: Annotated[
        int, typer.Option(help="Gradient steps on the posterior of each row, for a tighter bound.")
    ] = 0,
    timesteps: Annotated[
        int | None, typer.Option(help="Noise levels that each row visits.", show_default=False)
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
) -> None:
    """Score a trained model on held-out data, and write report.json and report.md."""
    from genmod.cli.results import evaluate_run

    evaluate_run(run, data, importance_samples, refine_steps, timesteps, seed, device, progress)


def score(
    run: RunPath,
    data: DataPath = None,
    out: Out = None,
    timesteps: Annotated[
        int | None, typer.Option(help="Noise levels that each row visits.", show_default=False)
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file with a row that cannot be scored.")
    ] = False,
) -> None:
    """Score each row: a CSV with the bound in nats, on the screen or in --out.

    A row with a value that the training data cannot have has an empty score, and a note.
    """
    from genmod.cli.results import score_rows

    score_rows(run, data, out, timesteps, seed, device, strict)


def sample(
    run: RunPath,
    n: Annotated[int, typer.Option("-n", "--number", help="How many.")] = 64,
    out: Out = None,
    label: Annotated[
        str | None,
        typer.Option(help="The context of a conditional model: 3, or 3,7,7.", show_default=False),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="Of a diffusion: DDIM, 'DPMSolver(order=2)', ...", show_default=False),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the sampler.", show_default=False)
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(help="Of classifier-free guidance; 1 is none.", show_default=False),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Draw samples: a picture, or rows as .npy or .csv, by the ending of --out."""
    from genmod.cli.output import Canvas
    from genmod.cli.results import sample_run

    options = {"sampler": sampler, "steps": steps, "guidance_scale": guidance_scale}
    sample_run(Canvas(run, out, seed, device), n, label, options)


def reconstruct(
    run: RunPath,
    data: DataPath = None,
    n: Annotated[int, typer.Option("-n", "--number", help="How many rows.")] = 12,
    out: Out = None,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Encode rows and decode them again: rows beside their reconstructions."""
    from genmod.cli.output import Canvas
    from genmod.cli.results import reconstruct_run

    reconstruct_run(Canvas(run, out, seed, device), data, n)


def interpolate(
    run: RunPath,
    data: DataPath = None,
    n: Annotated[int, typer.Option("-n", "--number", help="How many pairs of rows.")] = 6,
    count: Annotated[int, typer.Option(help="Points between two rows, with both ends.")] = 9,
    path: Annotated[
        str, typer.Option(help="spherical, along a great circle; or linear.")
    ] = "spherical",
    out: Out = None,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Go from one row to another through the codes of the model."""
    from genmod.cli.output import Canvas
    from genmod.cli.results import interpolate_run

    interpolate_run(Canvas(run, out, seed, device), data, n, count, path)


def traverse(
    run: RunPath,
    data: DataPath = None,
    row: Annotated[int, typer.Option(help="The row around whose code units move.")] = 0,
    over: Annotated[
        str, typer.Option(help="Quantiles of the prior, or of the aggregate posterior.")
    ] = "prior",
    units: Annotated[int, typer.Option(help="Units to traverse, the most used first.")] = 10,
    level: Level = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Move one latent unit at a time, and show what the decoder makes of it."""
    from genmod.cli.output import Canvas
    from genmod.cli.results import traverse_run

    traverse_run(Canvas(run, out, seed, device), data, row, over, units, level)


def map_(
    run: RunPath,
    data: DataPath = None,
    color: Annotated[
        str | None,
        typer.Option(help="A column of a table; the labels by default.", show_default=False),
    ] = None,
    level: Level = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Draw a map of the data: their codes on two axes of the latent space."""
    from genmod.cli.output import Canvas
    from genmod.cli.results import map_run

    map_run(Canvas(run, out, seed, device), data, color, level)


def check(
    run: RunPath,
    data: DataPath = None,
    replicates: Annotated[int, typer.Option(help="Data sets that the model draws.")] = 200,
    out: Out = None,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Posterior predictive check: statistics of the data beside those of the model's data."""
    from genmod.cli.output import Canvas
    from genmod.cli.results import check_run

    check_run(Canvas(run, out, seed, device), data, replicates)


def impute(
    run: RunPath,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A file with missing entries.", show_default=False)
    ],
    n: Annotated[int, typer.Option("-n", "--number", help="How many completed copies.")] = 1,
    out: Out = None,
    importance_samples: Annotated[
        int, typer.Option(help="Draws of the latents for each row; exact as they grow.")
    ] = 64,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Fill missing entries with draws given the observed ones: a CSV in --out."""
    from genmod.cli.results import impute_rows

    impute_rows(run, data, n, out, importance_samples, seed, device)


def info(run: RunPath) -> None:
    """Show what is in the folder of a run: settings, progress, report."""
    from genmod.cli.results import show_run

    show_run(run)


def export(
    run: RunPath,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder; RUN/exported by default.", show_default=False),
    ] = None,
    kind: Annotated[
        str, typer.Option("--format", help="onnx (for onnxruntime), or torch (torch.export).")
    ] = "onnx",
) -> None:
    """Write encoder, decoder and denoiser as files for other runtimes, checked against the model."""
    from genmod.cli.results import export_run

    export_run(run, out, kind)


def lab(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="The folders of some runs.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder; RUN/lab by default.", show_default=False),
    ] = None,
) -> None:
    """Write a page that runs VAEs and diffusions in a browser, without a server or a network."""
    from genmod.cli.results import lab_runs

    lab_runs(runs, out)


COMMANDS: dict[str, Callable[..., None]] = {
    "evaluate": evaluate,
    "score": score,
    "sample": sample,
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "traverse": traverse,
    "map": map_,
    "check": check,
    "impute": impute,
    "export": export,
    "lab": lab,
    "info": info,
}
"""By name, in the order in which the help lists them."""
