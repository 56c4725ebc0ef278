"""The main job, at a fraction of its effort: what it writes is what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from genmod.compare import FAMILY, Comparison, compare
from genmod.data import Dataset, digits
from genmod.evaluation import Report, evaluate


def cut() -> Dataset:
    """The digits, few of them."""
    full = digits()
    assert full.labels is not None
    labels = {"train": full.labels["train"][:96], "validation": full.labels["validation"][:16]}
    return Dataset(
        "few digits",
        full.train[:96],
        full.validation[:16],
        full.test[:24],
        full.bins,
        {**labels, "test": full.labels["test"][:24]},
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, list[Report]]:
    folder = tmp_path_factory.mktemp("compare")
    told: list[Report] = []
    made = compare(folder, cut(), effort=0.001, progress=False, said=told.append)
    return made, folder, told


Made = tuple[Comparison, Path, list[Report]]


def test_the_whole_family_is_reported_beside_its_baselines(made: Made) -> None:
    names = [report.name for report in made[0].reports]
    assert names[:2] == ["per-pixel histogram", "full-covariance Gaussian"]
    assert names[2:] == [member.name for member in FAMILY]
    assert [report.name for report in made[2]] == names


def test_the_files_hold_what_was_measured(made: Made) -> None:
    comparison, folder, _ = made
    content = json.loads((folder / "report.json").read_text())
    for report, written in zip(comparison.reports, content["models"], strict=True):
        assert written["nats"]["mean"] == report.value.mean
        assert written["stamp"] == report.stamp.value
        if written["terms"]:
            reconstruction, *costs = (term["mean"] for term in written["terms"].values())
            assert written["nats"]["mean"] == pytest.approx(reconstruction - sum(costs))
    page = (folder / "report.md").read_text()
    for report in comparison.reports:
        assert f"| {report.name} | " in page
    for file in comparison.files:
        assert file.exists()
    figures = [file.relative_to(folder).as_posix() for file in comparison.files[2:]]
    assert all(f"]({figure})" in page for figure in figures)


def test_a_report_can_be_made_again_from_the_model(made: Made) -> None:
    comparison, _, _ = made
    report = next(report for report in comparison.reports if report.name == "VAE")
    again = evaluate(comparison.models["VAE"], cut().test)
    assert again.value == report.value


def test_the_latent_diffusion_keeps_the_vae_it_was_given(made: Made) -> None:
    models = made[0].models
    assert models["latent diffusion"].encoder is models["VAE"].encoder


def test_data_without_bins_or_test_part_are_refused(tmp_path: Path) -> None:
    real = Dataset("plane", torch.randn(8, 2), torch.randn(2, 2), torch.randn(2, 2))
    with pytest.raises(ValueError, match="integers with a test part"):
        compare(tmp_path, real, progress=False)
    with pytest.raises(ValueError, match="effort"):
        compare(tmp_path, cut(), effort=0.0, progress=False)
