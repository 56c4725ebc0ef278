"""Tables with holes train, are validated and scored; what is missing never counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from genmod.data import Dataset, GivenRows, load
from genmod.evaluation import evaluate, log_weights, score
from genmod.evaluation.flow import flow_density
from genmod.models import HVAE, VAE, Diffusion, LatentDiffusion
from genmod.objectives import Batch
from genmod.training import fit


def frame(rows: int = 120) -> pd.DataFrame:
    """Two real columns, a count and a category, with holes."""
    rng = np.random.default_rng(0)
    x = rng.normal(50, 8, rows)
    table = pd.DataFrame(
        {
            "x": x,
            "y": 1000 + 3 * x + rng.normal(size=rows),
            "n": rng.poisson(rng.gamma(0.5, 8, rows)),
            "c": np.where(x > 50, "high", "low"),
        }
    )
    return table.mask(rng.random(table.shape) < 0.15).dropna(how="all")


@pytest.fixture
def data() -> Dataset:
    """The table as a data set."""
    return load(frame())


def spoiled(data: Dataset) -> Dataset:
    """The same data with other values in the place of missing entries."""
    from dataclasses import replace

    assert data.observed is not None
    return replace(
        data,
        train=torch.where(data.observed["train"], data.train, 1.0),
        validation=torch.where(data.observed["validation"], data.validation, 1.0),
        test=torch.where(data.observed["test"], data.test, 1.0),
    )


@pytest.mark.parametrize("family", [VAE, HVAE, LatentDiffusion])
def test_values_in_the_place_of_missing_entries_change_nothing(
    data: Dataset, family: type[VAE]
) -> None:
    """Training, validation and the report: the same to the last bit."""
    found = []
    for each in (data, spoiled(data)):
        torch.manual_seed(0)
        latents = (3, 2) if family is HVAE else 2
        model = family(each, latents=latents, width=16)
        history = fit(model, each, steps=4, batch_size=32, validate_every=2, progress=False)
        draws = 2 if family is VAE else 0  # in continuous time there is no path
        report = evaluate(model, each, importance_samples=draws)
        parameters = torch.cat([p.detach().flatten() for p in model.parameters()])
        found.append(
            (parameters, [v.nats for v in history.validations], report.value, report.interval)
        )
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_missing_entries_do_not_count(data: Dataset) -> None:
    """A score is that of the observed entries: what the model's own bound gives, row by row."""
    torch.manual_seed(0)
    model = VAE(data, latents=2, width=16)
    mask = data.mask("test")
    assert mask is not None
    whole = score(model, data).value
    parts = GivenRows(data.test, observed=mask)
    assert torch.equal(score(model, parts).value, whole)
    order = torch.arange(len(data.test)).flip(0)
    turned = score(model, GivenRows(data.test[order], observed=mask[order]), ids=order).value
    assert torch.allclose(turned, whole[order], atol=1e-5)
    full = torch.ones_like(mask)
    assert not torch.allclose(score(model, GivenRows(data.test, observed=full)).value, whole)
    weights = log_weights(model, parts, importance_samples=2)
    assert weights.shape == (len(data.test), 2)


def test_training_learns_from_incomplete_rows(data: Dataset) -> None:
    """The bound of held-out rows rises."""
    torch.manual_seed(0)
    model = VAE(data, latents=2, width=32)
    before = evaluate(model, data).value.mean
    fit(model, data, steps=60, batch_size=64, learning_rate=1e-2, progress=False)
    assert evaluate(model, data).value.mean > before + 0.5


def test_a_csv_with_holes_trains_scores_and_imputes(tmp_path: Path) -> None:
    """Whole from a file: ``fit`` and ``evaluate`` read it by the model's columns."""
    frame().to_csv(tmp_path / "table.csv", index=False)
    torch.manual_seed(0)
    data = load(tmp_path / "table.csv")
    model = VAE(data, latents=2, width=16)
    fit(model, tmp_path / "table.csv", steps=3, progress=False)
    assert evaluate(model, tmp_path / "table.csv").value == evaluate(model, data).value
    fit(model, frame(), steps=2, progress=False)
    assert len(score(model, frame()).value) == len(frame())
    mask = data.mask("test")
    assert mask is not None
    filled = model.impute(data.test, mask, n=2)
    assert torch.equal(filled.draws[:, mask], data.test[mask].expand(2, -1))


def test_models_that_cannot_leave_entries_out_are_refused(data: Dataset) -> None:
    x = torch.randn(40, 2)
    mask = (x > -1) | (torch.arange(2) == 0)
    holes = load(x, observed=mask)
    with pytest.raises(ValueError, match=r"missing entries for a Diffusion.*VAE, HVAE or Latent"):
        fit(Diffusion(holes, width=8), holes, steps=1, progress=False)
    with pytest.raises(ValueError, match=r"z with missing entries; expected complete rows"):
        flow_density(Diffusion(2, width=8), GivenRows(x, observed=mask), steps=2)


def test_a_run_is_known_by_its_mask(data: Dataset) -> None:
    from genmod.training.data import TrainingData

    other = load(frame().fillna({"x": 0.0}), spec=data)
    assert TrainingData.of(data).digest() != TrainingData.of(other).digest()
    assert TrainingData.of(data).digest() == TrainingData.of(load(frame())).digest()


def test_a_loader_of_batches_with_masks_is_the_same_training(data: Dataset) -> None:
    """The masks count, and a diffusion is refused at the first batch."""
    assert data.observed is not None
    observed = data.observed["train"]
    batch = Batch(data.train, observed=observed)
    plain: dict[str, Any] = {"steps": 3, "warmup": 0, "progress": False}
    found = []
    for given in ([batch], [data.train]):
        torch.manual_seed(0)
        found.append(fit(VAE(data, latents=2, width=16), given, **plain).losses)
    assert found[0] != found[1], "without a mask the zeros in the place of missing entries count"
    spoiled_rows = Batch(torch.where(observed, data.train, 1.0), observed=observed)
    torch.manual_seed(0)
    again = fit(VAE(data, latents=2, width=16), [spoiled_rows], **plain)
    assert again.losses == found[0]
    with pytest.raises(ValueError, match="missing entries for a Diffusion"):
        fit(Diffusion(data.train.shape[1], width=8), [batch], **plain)
