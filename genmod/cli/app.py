"""The command line: ``genmod compare`` and what is to come."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    out: Annotated[Path, typer.Option(help="Where the report and the figures go.")] = Path(
        "runs/compare"
    ),
    seed: Annotated[int, typer.Option(help="Of the split, weights, batches and noise.")] = 0,
    effort: Annotated[
        float, typer.Option(help="Fraction of the customary training steps (0.01 for a look).")
    ] = 1.0,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Train the whole family on the digits, score it, draw it: some minutes on 2 cores."""
    # Not at the top: torch takes a second to import, and --help should not wait for it.
    from genmod.cli.comparing import run

    run(out, seed, effort, progress)
