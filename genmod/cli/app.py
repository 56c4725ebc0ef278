"""The command line: ``genmod compare`` and what is to come."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genmod.cli.choices import Data
from genmod.version import __version__

app = typer.Typer(
    help="Latent-variable generative models, priced by one evidence lower bound.",
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
        typer.Option("--version", help="Say the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Latent-variable generative models, priced by one evidence lower bound."""


@app.command()
def compare(
    data: Annotated[Data, typer.Option(help="What to train on.")] = Data.DIGITS,
    root: Annotated[
        Path | None,
        typer.Option(help="Where MNIST/raw and FashionMNIST/raw lie, or are to be fetched to."),
    ] = None,
    binarize: Annotated[
        bool,
        typer.Option("--binarize", help="Gray levels as biased coins, flipped anew each time."),
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Where the report, the figures and the models go.")
    ] = Path("runs/compare"),
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="A model to train (vae, hvae-top-down, ...), with those it needs; repeatable."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, weights, batches and noise.")] = 0,
    effort: Annotated[
        float, typer.Option(help="Fraction of the customary training steps (0.01 for a look).")
    ] = 1.0,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Train each model no longer than about this: 7 for images of MNIST's size, and for "
            "the digits as long as it takes, unless you say."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Models to train at a time, one thread each; one a core, at least 2."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw away what an earlier run left in --out.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Train the whole family on a data set, score it, draw it; or go on where that stopped.

    Some minutes on 2 cores for the digits, within half an hour for MNIST.
    """
    # Not at the top: torch takes a second to import, and --help should not wait for it.
    from genmod.cli.comparing import Request, run

    run(
        Request(
            data=data,
            root=root,
            binarize=binarize,
            out=out,
            models=models,
            seed=seed,
            effort=effort,
            minutes=minutes,
            jobs=jobs,
            fresh=fresh,
            progress=progress,
        )
    )
