"""Real tables with holes: loaded, trained on, scored and filled through the public calls."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets
from torch import Tensor

from genmod import data, evaluate, fit
from genmod.data import Dataset
from genmod.evaluation import immse, log_weights, profile, score
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Diffusion, LatentDiffusion
from genmod.spec import Column, DataSpec

pytestmark = pytest.mark.usefixtures("as_users_run")

SMALL: dict[str, Any] = {"width": 32, "depth": 1}


@cache
def diabetes(hidden: float = 0.3) -> tuple[Dataset, Tensor]:
    """Scikit-learn's diabetes with five kinds of columns and holes, and the complete test part."""
    raw = datasets.load_diabetes(scaled=False)
    names = [*raw.feature_names, "target", "level"]
    level = np.digitize(raw.target, [100, 150, 200])  # an ordinal of four values
    x = torch.tensor(np.column_stack([raw.data, raw.target, level]), dtype=torch.float32)
    x[:, 1] -= 1  # the sex: codes 0 and 1
    kinds = {"age": "integer", "sex": "category", "target": "count", "level": "ordinal"}
    values = {"category": ("1", "2"), "ordinal": ("low", "fair", "raised", "high")}
    columns = [
        Column(
            name,
            kinds.get(name, "real"),
            values.get(kinds.get(name, "")),
            float(x[:, place].mean()),
            float(x[:, place].std()),
        )
        for place, name in enumerate(names)
    ]
    generator = torch.Generator().manual_seed(0)
    parts = x[torch.randperm(len(x), generator=generator)].split([300, 60, 82])
    masks = [torch.rand(part.shape, generator=generator) > hidden for part in parts]
    holed = [torch.where(mask, part, 0.0) for part, mask in zip(parts, masks, strict=True)]
    observed = dict(zip(("train", "validation", "test"), masks, strict=True))
    train, validation, test = holed
    found = Dataset("diabetes", train, validation, test, columns=columns, observed=observed)
    return found, parts[2]


def built(kind: str) -> LatentModel:
    """A small model of that table."""
    torch.manual_seed(0)
    found, _ = diabetes()
    if kind == "VAE":
        return VAE(found, latents=6, **SMALL)
    if kind == "HVAE":
        return HVAE(found, latents=(6, 3), **SMALL)
    return LatentDiffusion(found, latents=6, **SMALL)


@cache
def trained(kind: str) -> LatentModel:
    """The same after a short training."""
    model = built(kind)
    fit(model, diabetes()[0], steps=150, learning_rate=1e-2, progress=False)
    return model


@pytest.mark.parametrize(
    "kind",
    [
        "VAE",
        pytest.param("HVAE", marks=pytest.mark.slow),
        pytest.param("LatentDiffusion", marks=pytest.mark.slow),
    ],
)
def test_a_table_of_five_kinds_with_holes_is_trained_scored_and_filled(
    kind: str,
) -> None:
    """Better than filling each column with its training mean, or its most frequent code."""
    found, complete = diabetes()
    model, mask, columns = trained(kind), found.mask("test"), tuple(found.columns or ())
    assert mask is not None
    report = evaluate(model, found)
    assert report.bits_per_dim is None
    assert report.change_of_units is not None
    assert "of which change of units" in str(report)
    assert report.value.mean > evaluate(built(kind), found).value.mean + 1.5
    samples = 8 if kind == "LatentDiffusion" else 32
    filled = model.impute(found.test, mask, 1, samples, seeds=range(82))
    model.spec.check(filled[0])
    mean = torch.tensor([column.mean for column in columns])
    scale = torch.tensor([column.std for column in columns])
    real = [place for place, c in enumerate(columns) if not c.count]

    def error(guess: Tensor) -> float:
        squares = ((guess - complete) / scale).square()[:, real]
        return float(squares[~mask[:, real]].mean())

    assert error(filled.mean) < 0.9 * error(mean.expand_as(complete))
    hidden = ~mask[:, -1]
    frequent = found.train[:, -1][found.train[:, -1] > 0].mode().values
    right = (filled.mean[hidden, -1] == complete[hidden, -1]).float().mean()
    assert right > (complete[hidden, -1] == frequent).float().mean()


def test_what_stands_under_the_mask_changes_neither_training_nor_scores() -> None:
    found, _ = diabetes()
    assert found.observed is not None
    results = []
    for filling in (0.0, 1.0):
        train, validation, test = (
            torch.where(found.observed[name], part, filling) for name, part in found.parts().items()
        )
        other = Dataset(
            "d", train, validation, test, columns=found.columns, observed=found.observed
        )
        torch.manual_seed(0)
        model = VAE(other, latents=2, **SMALL)
        history = fit(model, other, steps=6, progress=False)
        weights = log_weights(model, other, importance_samples=2)
        results.append((history.losses, score(model, other).value, weights))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(results[0][2], results[1][2])


def test_scores_of_rows_take_a_mask_and_keep_the_users_order() -> None:
    found, _ = diabetes()
    model, mask = trained("VAE"), found.mask("test")
    assert mask is not None
    whole = score(model, found).value
    torch.testing.assert_close(score(model, found.test, observed=mask).value, whole)
    order = torch.randperm(82)
    shuffled = score(model, found.test[order], observed=mask[order], ids=order)
    torch.testing.assert_close(shuffled.value, whole[order], rtol=1e-5, atol=1e-4)
    change = shuffled.change_of_units
    assert change is not None
    logs = torch.tensor([np.log(c.std) if c.is_real else 0.0 for c in found.columns or ()])
    torch.testing.assert_close(change, -(mask[order] * logs).sum(1).double(), rtol=1e-5, atol=1e-5)


def test_missing_entries_where_they_cannot_be_are_refused() -> None:
    found, _ = diabetes()
    columns = [c for c in found.columns or () if c.is_real]
    places = [place for place, c in enumerate(found.columns or ()) if c.is_real]
    observed = {name: mask[:, places] for name, mask in (found.observed or {}).items()}
    train, validation, test = (part[:, places] for part in found.parts().values())
    reals = Dataset("reals", train, validation, test, columns=columns, observed=observed)
    diffusion = Diffusion(reals, steps=4, **SMALL)
    with pytest.raises(ValueError, match=r"missing entries for a Diffusion.*VAE, HVAE or Latent"):
        fit(diffusion, reals, steps=1, progress=False)
    for call in (profile, immse):
        with pytest.raises(ValueError, match=r"x with missing entries; expected complete rows"):
            call(diffusion, reals)
    complete = data.load(torch.randn(40, 3).numpy())
    assert not complete.spec.missing
    fit(Diffusion(complete, steps=4, **SMALL), complete, steps=1, progress=False)


def test_immse_counts_the_change_of_units() -> None:
    """Of one denoiser, on the same rows in two units."""
    own = DataSpec((2,), columns=[Column("a", mean=5.0, std=10.0), Column("b", std=0.1)])
    plain = DataSpec((2,), columns=[Column("a"), Column("b")])
    values = []
    y = torch.randn(20, 2)
    for spec, x in ((own, own.standardize.inverse(y)), (plain, y)):
        torch.manual_seed(0)
        values.append(immse(Diffusion(spec, **SMALL), x, timesteps=4).value.mean)
    assert values[0] - values[1] == pytest.approx(-np.log(10.0) - np.log(0.1), abs=1e-3)
