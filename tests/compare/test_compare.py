"""The main job, at a fraction of its effort: what it writes is what it measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from genmod.compare import Candidate, Comparison, compare
from genmod.compare.candidate import BuildInputs
from genmod.compare.suites import DIGITS
from genmod.data import Dataset, binarized, conditional
from genmod.data.rows import dataset
from genmod.evaluation import Report, evaluate
from genmod.models import Diffusion
from genmod.nn import Labels
from tests.compare.cases import PLAN, TINY, few


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, list[Report]]:
    folder = tmp_path_factory.mktemp("compare")
    reported: list[Report] = []
    suite = [
        replace(candidate, importance_samples=min(candidate.importance_samples, 2))
        for candidate in DIGITS
    ]
    made = compare(
        folder, few(), suite=suite, effort=0.001, progress=False, on_report=reported.append
    )
    return made, folder, reported


Made = tuple[Comparison, Path, list[Report]]


def totals(content: dict[str, Any]) -> None:
    """Each value is its reconstruction minus its rates, where it has terms."""
    for written in content["models"]:
        if written["terms"]:
            reconstruction, *costs = (term["mean"] for term in written["terms"].values())
            assert written["nats"]["mean"] == pytest.approx(reconstruction - sum(costs), rel=1e-12)
            assert len(costs) >= 1 or written["measure"] == "none"


def test_the_whole_suite_is_reported_beside_its_baselines(made: Made) -> None:
    names = [report.name for report in made[0].reports]
    assert names[:2] == ["per-pixel histogram", "full-covariance Gaussian"]
    assert names[2:] == [candidate.name for candidate in DIGITS]
    # Reported as they come: the longest candidates are trained first.
    assert sorted(report.name for report in made[2]) == sorted(names)


def test_a_conditional_suite_gets_its_report_without_figures(tmp_path: Path) -> None:
    """Figures call models without a context."""
    data = conditional(few(), dropout=0.25)

    def labelled(inputs: BuildInputs) -> Diffusion:
        return Diffusion(
            inputs.data.shape, inputs.data.bins, condition=Labels(10), width=8, steps=4
        )

    made = compare(
        tmp_path, data, suite=[Candidate("labelled", labelled, PLAN)], effort=0.1, progress=False
    )
    assert [file.name for file in made.files] == ["report.md", "report.json"]
    assert made.reports[-1].name == "labelled"


def test_the_files_hold_what_was_measured(made: Made) -> None:
    comparison, folder, _ = made
    content = json.loads((folder / "report.json").read_text())
    for report, written in zip(comparison.reports, content["models"], strict=True):
        assert written["nats"]["mean"] == report.value.mean
        assert written["stamp"] == report.stamp.value
    totals(content)
    page = (folder / "report.md").read_text()
    for report in comparison.reports:
        assert f"| {report.name} | " in page
    assert "entropy" not in page
    for file in comparison.files:
        assert file.exists()
    figures = [file.relative_to(folder).as_posix() for file in comparison.files[2:]]
    assert figures
    assert all(f"]({figure})" in page for figure in figures)


def test_the_settings_are_written_beside_the_numbers(made: Made) -> None:
    settings = json.loads((made[1] / "report.json").read_text())["settings"]
    assert settings["data"] == "few digits"
    assert settings["binarized"] is False
    assert settings["effort"] == 0.001
    assert settings["minutes"] is None
    assert settings["jobs"] == settings["threads"] == 1
    assert settings["torch"] == torch.__version__
    page = (made[1] / "report.md").read_text()
    assert all(f"{name}: {value}" in page for name, value in settings.items())


def test_a_report_can_be_made_again_from_the_model(made: Made) -> None:
    comparison, _, _ = made
    report = next(report for report in comparison.reports if report.name == "VAE")
    again = evaluate(comparison.models["VAE"], few().test)
    assert again.value == report.value


def test_the_latent_diffusion_keeps_the_vae_it_was_given(made: Made) -> None:
    models = made[0].models
    assert models["latent diffusion"].encoder is models["VAE"].encoder


@pytest.mark.usefixtures("no_figures")
def test_the_entropy_of_binarization_is_reported_beside_every_number(tmp_path: Path) -> None:
    """Beside the baselines as well; and no bound gets below it (Gibbs: the bits have their entropy)."""
    data = binarized(few())
    assert data.entropy_floor is not None
    compare(tmp_path, data, suite=TINY[:2], progress=False)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["settings"]["binarized"] is True
    totals(content)
    for written in content["models"]:
        assert written["entropy_floor"] == data.entropy_floor
        if written["structural"] is not None:
            assert written["structural"]["mean"] > 0
    page = (tmp_path / "report.md").read_text()
    assert "| entropy, nats |" in page
    assert page.count(f"| {data.entropy_floor:.2f} |") == 4


@pytest.mark.parametrize(
    "shape", [pytest.param((3, 4, 5), marks=pytest.mark.slow, id="color"), (6,)], ids=str
)
def test_data_that_are_no_gray_images_are_compared_without_pictures(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """The report is written, with the figures that show no images."""
    x, labels = torch.randint(0, 5, (120, *shape)), torch.arange(120) % 3
    data = dataset(x, bins=5, labels=labels)
    suite = [TINY[0], TINY[1], Candidate("diffusion", small_diffusion, PLAN)]
    made = compare(tmp_path, data, suite=suite, effort=0.1, progress=False)
    names = {file.stem for file in made.files}
    always = {"report", "latent_spaces", "rates", "schedules", "weights", "steps"}
    assert names == always | {"rate_distortion"}
    assert all(file.exists() for file in made.files)
    totals(json.loads((tmp_path / "report.json").read_text()))


def small_diffusion(inputs: BuildInputs) -> Diffusion:
    """Of any data."""
    return Diffusion(inputs.data.shape, inputs.data.bins, steps=5, width=16, depth=1)


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    real = Dataset("plane", torch.randn(8, 2), torch.randn(2, 2), torch.randn(2, 2))
    with pytest.raises(ValueError, match="integers with a test part"):
        compare(tmp_path, real, progress=False)
    with pytest.raises(ValueError, match="effort"):
        compare(tmp_path, few(), effort=0.0, progress=False)
    with pytest.raises(ValueError, match="minutes"):
        compare(tmp_path, few(), minutes=-1, progress=False)
    with pytest.raises(ValueError, match="jobs=0"):
        compare(tmp_path, few(), jobs=0, progress=False)
    with pytest.raises(ValueError, match="got model='gan'"):
        compare(tmp_path, few(), models=["GAN"], progress=False)
    assert not list(tmp_path.iterdir())
