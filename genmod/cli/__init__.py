"""The command ``genmod``. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from genmod.cli.settings import DATA, MODELS, SUITE, with_settings
from genmod.cli.using import COMMANDS
from genmod.version import __version__

__all__ = ["main"]

app = typer.Typer(
    help="Latent-variable generative models, scored by one evidence lower bound.",
    no_args_is_help=True,
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


def _data_names(incomplete: str) -> list[str]:
    return [name for name in DATA if name.startswith(incomplete)]


def _model_names(incomplete: str) -> list[str]:
    return [name for name in MODELS if name.startswith(incomplete)]


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


def train(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help=f"A name ({', '.join(DATA)}, ...) or a file.",
            autocompletion=_data_names,
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(MODELS)}; vae by default. Its settings by flags and --set model.NAME=VALUE.",
            autocompletion=_model_names,
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the run.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A YAML file of settings; flags come after it.", show_default=False),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Any setting, as deep as it lies. Repeatable."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, if there is one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build data and model, show the settings, and stop.")
    ] = False,
    evaluate: Annotated[bool, typer.Option(help="Score the test part at the end.")] = True,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
    given: Any = None,
) -> None:
    """Train a model on some data, into a folder that explains itself.

    genmod train digits --model diffusion --schedule cosine --steps 5000 --out runs/digits
    """
    from genmod.cli.training import TrainOptions, run

    run(
        TrainOptions(
            data, model, out, config, changes or [], resume, dry_run, evaluate, progress, given
        )
    )


def data(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A name or a file.", show_default=False)
    ],
    given: Any = None,
) -> None:
    """Show how data are read: their shape, kind and parts."""
    from genmod.cli.training import show_data

    show_data(data, given)


app.command()(with_settings(train, ("training", "data", "model")))
app.command()(with_settings(data, ("data",)))


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


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
            help=f"A model to train, with those it needs: {', '.join(SUITE)}. Repeatable."
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
    from genmod.cli.training import run_comparison

    settings = {
        "binarize": binarize,
        "models": models,
        "quick": quick,
        "seed": seed,
        "effort": effort,
        "minutes": minutes,
        "jobs": jobs,
        "fresh": fresh,
        "progress": progress,
    }
    run_comparison(out, data, {"bins": bins, "root": root}, settings)
