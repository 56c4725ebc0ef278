"""The commands that look at a trained run: traversals, a map of its data, and predictive checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from genmod import plots
from genmod.checks import invalid
from genmod.cli.output import plain, sentences, wrote
from genmod.data import Dataset
from genmod.data.loading import GivenRows
from genmod.evaluation import latent_map, predictive_check, traverse
from genmod.files import as_path
from genmod.model import LatentModel
from genmod.runs.figures import save_figure
from genmod.runs.opening import open_model, open_rows


@dataclass(frozen=True)
class Look:
    """The options that all of these commands share.

    Args:
        run: the folder of the run.
        data: a name or a file; ``None``: the test part of the run's own data.
        out: the file of the figure; in the run's folder by default.
        seed: the seed of the draws.
        device: the device to compute on.
    """

    run: Path
    data: str | None
    out: Path | None
    seed: int
    device: str | None

    def opened(self) -> tuple[LatentModel, Dataset, GivenRows]:
        """The model, the data set, and the rows to look at."""
        model = open_model(self.run, self.device)
        return (model, *open_rows(self.run, model.spec, self.data))

    def write(self, console: Console, figure: Figure, name: str) -> None:
        """Write a figure as a PNG."""
        path = as_path(self.run) / "figures" / f"{name}.png"
        path = path if self.out is None else as_path(self.out)
        if path.suffix != ".png":
            raise invalid(f"--out {path}", "a file that ends in .png", "rename it")
        save_figure(figure, path)
        wrote(console, path)


def traverse_run(look: Look, row: int, over: str, units: int, level: str | None) -> None:
    """One unit after another moved over its quantiles, as a table and a figure."""
    with sentences() as console:
        model, _, rows = look.opened()
        found = traverse(
            model, rows.x, rows.context, row=row, over=over, units=units, level=level,
            seed=look.seed, observed=rows.observed,
        )  # fmt: skip
        plain(console, repr(found))
        look.write(console, plots.traversal(found, title=as_path(look.run).name), "traversal")


def map_run(look: Look, color: str | None, level: str | None) -> None:
    """The codes of the data on two axes."""
    with sentences() as console:
        model, data, rows = look.opened()
        # A data set with a test part has its labels as colors; a file is one part of rows.
        whole = len(data.test) > 0
        found = latent_map(
            model, data if whole else rows.x, None if whole else rows.context, color=color,
            level=level, seed=look.seed, observed=rows.observed,
        )  # fmt: skip
        plain(console, repr(found))
        name = as_path(look.run).name
        look.write(console, plots.latent_spaces({name: found}), "map")


def check_run(look: Look, replicates: int) -> None:
    """Statistics of the data beside those of data sets that the model draws."""
    with sentences() as console:
        model, _, rows = look.opened()
        found = predictive_check(
            model, rows.x, rows.context, replicates=replicates, seed=look.seed,
            observed=rows.observed,
        )  # fmt: skip
        plain(console, repr(found))
        look.write(console, plots.predictive_check(found, title=as_path(look.run).name), "check")
