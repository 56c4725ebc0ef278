"""The main job: train the whole family on one data set, score it, draw it, write it down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from genmod.checks import check_positive
from genmod.compare.family import FAMILY, Member, Run, train_member
from genmod.compare.figures import draw_all
from genmod.compare.writing import write_json, write_markdown
from genmod.data import Dataset, digits
from genmod.elbo import Measure
from genmod.evaluation import Report, evaluate, gaussian, pixel_histogram
from genmod.model import LatentModel
from genmod.shapes import size


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison made.

    Args:
        reports: of the baselines and of every model, in the order of the table.
        models: the trained models, by name.
        files: what was written: ``report.md``, ``report.json`` and the figures.
    """

    reports: Sequence[Report]
    models: dict[str, LatentModel]
    files: Sequence[Path]


def compare(
    folder: Path | str,
    data: Dataset | None = None,
    *,
    family: Sequence[Member] = FAMILY,
    seed: int = 0,
    effort: float = 1.0,
    progress: bool = True,
    said: Callable[[Report], None] | None = None,
) -> Comparison:
    """Train, score and draw the family.

    Args:
        folder: where ``report.md``, ``report.json`` and ``figures/`` go.
        data: integer images with a test part; the digits by default.
        family: what to train.
        seed: of the split (of the default data), weights, batches and noise.
        effort: the fraction of the customary training steps (and, below 1, of a diffusion's latents).
        progress: whether to show bars.
        said: called with each report as soon as there is one.

    Raises:
        ValueError: an effort that is not positive; data without bins or without a test part.
    """
    check_positive(effort, "effort")
    data = data or digits(seed)
    folder = Path(folder)
    reports = _baselines(data)
    run = Run(data, seed, effort, progress, {})
    for report in reports:
        if said is not None:
            said(report)
    for member in family:
        began = time.monotonic()
        model = train_member(member, run)
        seconds = time.monotonic() - began
        run.trained[member.name] = model
        report = evaluate(
            model,
            data.test,
            name=member.name,
            importance=member.importance,
            seed=seed,
            seconds=seconds,
        )
        reports.append(report)
        if said is not None:
            said(report)
    by_name = {report.name: report for report in reports}
    figures = draw_all(run.trained, by_name, data, folder / "figures")
    settings = {
        "data": data.name,
        "test samples": len(data.test),
        "dimensions": size(data.shape),
        "seed": seed,
        "effort": effort,
    }
    files = [
        write_markdown(reports, settings, figures, folder / "report.md"),
        write_json(reports, settings, folder / "report.json"),
        *figures.values(),
    ]
    return Comparison(reports, run.trained, files)


def _baselines(data: Dataset) -> list[Report]:
    """What a model has to beat, computed in the same run."""
    if data.bins is None or not len(data.test):
        raise ValueError(
            f"got {data}; expected integers with a test part; pass bins=..., test=0.2 to data.dataset"
        )
    dims = size(data.shape)
    # Baselines choose nothing on the validation part, so they may learn from it.
    seen = torch.cat([data.train, data.validation])
    fitted = [
        pixel_histogram(seen, data.test, data.bins),
        gaussian(seen, data.test, data.bins),
    ]
    return [Report.of_baseline(each, dims, Measure.MASS) for each in fitted]
