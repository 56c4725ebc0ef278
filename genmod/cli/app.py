"""The command line: ``genmod compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genmod.cli.choices import DATA, MODELS
from genmod.version import __version__

app = typer.Typer(
    help="Latent-variable generative models, scored by one evidence lower bound.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command."""
    app()


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Latent-variable generative models, scored by one evidence lower bound."""


@app.command()
def compare(
    data: Annotated[
        str, typer.Option(help=f"Data to train on: {', '.join(DATA)}, or a .npy or .npz file.")
    ] = "digits",
    bins: Annotated[
        int | None,
        typer.Option(help="For a file: the number of values of its integers, 256 for bytes."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="The folder with MNIST/raw and FashionMNIST/raw; downloads go there."),
    ] = None,
    binarize: Annotated[
        bool,
        typer.Option("--binarize", help="Turn gray values into random bits, drawn at every visit."),
    ] = False,
    out: Annotated[
        Path, typer.Option(help="The folder for the report, the figures and the models.")
    ] = Path("runs/compare"),
    models: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A model to train, with those it needs: {', '.join(MODELS)}. Repeatable."
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="VAE, top-down HVAE and diffusion, small, in half a minute."),
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Random seed for the split, the weights, the batches and the noise.")
    ] = 0,
    effort: Annotated[float, typer.Option(help="Fraction of the training steps.")] = 1.0,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Training time of each model, at most. By default 7 for images of 16 pixels a side or "
            "more, no limit otherwise."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Models to train at a time, one thread each. By default one a core."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw away what an earlier run left in --out.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
) -> None:
    """Train a suite of models on a data set, score it, draw it; or continue where that stopped.

    Takes some minutes on 2 cores for the digits, within half an hour for MNIST.
    """
    # Not at the top: torch takes a second to import, and --help should not wait for it.
    from genmod.cli.comparing import Options, run

    run(
        Options(
            data=data,
            bins=bins,
            root=root,
            binarize=binarize,
            out=out,
            models=models,
            quick=quick,
            seed=seed,
            effort=effort,
            minutes=minutes,
            jobs=jobs,
            fresh=fresh,
            progress=progress,
        )
    )
