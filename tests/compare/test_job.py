"""What a comparison keeps: it goes on where it stopped, bit for bit, and refuses other settings."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from genmod.compare import Candidate, compare
from genmod.compare.candidate import BuildInputs
from genmod.compare.job import Job, build, run
from genmod.compare.progress import Began, Event, Progressed
from genmod.compare.records import RunFolder
from genmod.data import binarized
from genmod.evaluation import Report, evaluate
from genmod.evaluation.scoring import Scores
from genmod.path import AutoTimesteps
from genmod.runs.reports import report_from, scores_from, tensors_of
from genmod.training import metrics
from tests.compare.cases import PLAN, TINY, few, ignore, job, numbers, vae


def inputs() -> BuildInputs:
    """Few digits, nothing trained."""
    return BuildInputs(few(), 1.0, {})


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same tensors, bit for bit."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A candidate that nobody stopped."""
    whole = job(tmp_path_factory.mktemp("compare") / "whole")
    run(whole, "VAE", few(), ignore)
    return whole


@pytest.mark.parametrize("stop", [1, 25])
def test_an_interrupted_candidate_goes_on_to_the_same_end(
    whole: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Weights, scores and report are those of a run that nobody stopped, before a checkpoint or after."""
    monkeypatch.setattr(metrics, "INTERVAL", 0.0)
    events: list[Event] = []

    def interrupting(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progressed) and event.step == stop:
            raise KeyboardInterrupt

    stopped = job(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run(stopped, "VAE", few(), interrupting)
    assert stopped.folder.checkpoint("vae").exists() == (stop == 25)
    events.clear()
    run(stopped, "VAE", few(), events.append)
    assert events[0] == Began("VAE", PLAN.steps)
    first = next(event.step for event in events if isinstance(event, Progressed))
    assert first == (21 if stop == 25 else 1)
    assert same(whole.folder.weights("vae"), stopped.folder.weights("vae"))
    assert same(whole.folder.scores("vae"), stopped.folder.scores("vae"))
    reports = [each.folder.read(TINY[1]) for each in (whole, stopped)]
    assert reports[0] is not None
    assert reports[1] is not None
    assert reports[0].report is not None
    assert reports[1].report is not None
    assert numbers(reports[0].report) == numbers(reports[1].report)
    assert not stopped.folder.checkpoint("vae").exists()


@pytest.mark.usefixtures("no_figures")
def test_what_is_done_is_loaded_and_more_models_can_be_asked_for(tmp_path: Path) -> None:
    """The second call adds a model, the third trains nothing: files stay, reports are equal."""
    data = few()
    compare(tmp_path, data, suite=TINY, models=["VAE"], progress=False)
    kept = RunFolder(tmp_path).weights("vae")
    was = kept.stat().st_mtime_ns
    second = compare(tmp_path, data, suite=TINY, progress=False)
    third = compare(tmp_path, data, suite=TINY, progress=False)
    assert kept.stat().st_mtime_ns == was
    for one, other in zip(second.reports, third.reports, strict=True):
        assert one.to_dict() == other.to_dict()
    for name, model in third.models.items():
        candidate = next(each for each in TINY if each.name == name)
        again = evaluate(
            model,
            data,
            name=name,
            importance_samples=candidate.importance_samples,
            timesteps=AutoTimesteps.EVALUATION
            if candidate.timesteps is None
            else candidate.timesteps,
        )
        report = next(report for report in third.reports if report.name == name)
        assert numbers(again) == numbers(report)
    assert third.models["latent diffusion"].encoder is third.models["VAE"].encoder


@pytest.mark.usefixtures("no_figures")
def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    compare(tmp_path, few(), suite=TINY[:1], progress=False)
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(ValueError, match=r"effort \(1\.0 in the file, now 0\.5\)") as caught:
        compare(tmp_path, few(), suite=TINY[:1], progress=False, effort=0.5)
    assert "--fresh" in str(caught.value)
    assert "--out" in str(caught.value)
    with pytest.raises(ValueError, match=r"minutes \(None in the file, now 3\)"):
        compare(tmp_path, few(), suite=TINY[:1], progress=False, minutes=3)
    with pytest.raises(ValueError, match=r"seed \(0 in the file, now 1\)"):
        compare(tmp_path, few(), suite=TINY[:1], progress=False, seed=1)
    with pytest.raises(ValueError, match=r"bins \(17 in the file, now 2\)"):
        compare(tmp_path, binarized(few()), suite=TINY[:1], progress=False)
    slower = replace(TINY[0], plan=replace(PLAN, learning_rate=1e-4))
    with pytest.raises(
        ValueError, match=r"autoencoder .* learning_rate \(0\.002 in the file, now 0\.0001\)"
    ):
        compare(tmp_path, few(), suite=[slower], progress=False)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("no_figures")
def test_fresh_deletes_the_run_alone(tmp_path: Path) -> None:
    compare(tmp_path, few(), suite=TINY[:2], progress=False)
    mine = tmp_path / "models" / "mine.safetensors"
    mine.write_bytes(b"mine")
    compare(tmp_path, few(), suite=TINY[:1], progress=False, effort=0.5, fresh=True)
    assert mine.exists()
    assert not RunFolder(tmp_path).weights("vae").exists()
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["effort"] == 0.5


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"which cannot be read .no JSON"):
        folder.open({})
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="of format None; expected genmod-run-1"):
        folder.open({})
    (tmp_path / "run.json").unlink()
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "vae.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no run.json"):
        folder.open({})


@pytest.mark.parametrize("candidate", TINY, ids=lambda candidate: candidate.slug)
def test_a_report_comes_back_from_its_files(candidate: Candidate) -> None:
    """Every field, so that a new one is not forgotten; with and without what is optional."""
    data = binarized(few()) if candidate.importance_samples else few()
    work = job(Path())
    trained = {"VAE": build(work, TINY[1], data, {})}
    report = evaluate(
        build(work, candidate, data, trained),
        data,
        importance_samples=candidate.importance_samples,
        replicates=2 if candidate.importance_samples else 1,
        seconds=1.5,
    )
    assert report.scores is not None
    tensors = tensors_of(report.scores)
    found = json.loads(json.dumps(report.to_dict()))
    again = report_from(found, scores_from(tensors, report.measure))
    for field in fields(Report):
        if field.name != "scores":
            assert getattr(again, field.name) == getattr(report, field.name), field.name
    assert again.scores is not None
    for field in fields(Scores):
        one, other = getattr(report.scores, field.name), getattr(again.scores, field.name)
        for a, b in zip(_tensors(one), _tensors(other), strict=True):
            assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), field.name


def _tensors(value: object) -> list[object]:
    if isinstance(value, dict):
        return [value[name] for name in sorted(value)]
    if isinstance(value, tuple):
        return list(value)
    return [] if value is None or not isinstance(value, torch.Tensor | bool) else [value]


def test_building_leaves_the_random_numbers_of_others_alone(tmp_path: Path) -> None:
    """And depends on the seed alone."""
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    one = build(job(tmp_path), TINY[1], few(), {})
    assert torch.equal(torch.randn(3), expected)
    other = build(job(tmp_path), TINY[1], few(), {})
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    torch.manual_seed(0)
    expected_model = vae(inputs())
    for a, b in zip(one.parameters(), expected_model.parameters(), strict=True):
        assert torch.equal(a, b)
