"""The bound under posteriors refined for each row: it meets a known likelihood, and stays below it."""

from __future__ import annotations

import json
import math

import pytest
import torch

from genmod import VAE, Diffusion, evaluate
from genmod.columns import Column
from genmod.data.rows import dataset
from genmod.runs.reports import report_from, table
from genmod.spec import DataSpec
from tests.evaluation.test_amortization import shifted
from tests.oracles_vae import ppca

pytestmark = pytest.mark.usefixtures("float64")


def test_refined_posteriors_meet_the_exact_likelihood() -> None:
    """Of pPCA with orthogonal loading, whose posterior is diagonal, from one that is off by a known gap."""
    torch.manual_seed(0)
    oracle = ppca()
    encoder, gap = shifted(oracle, 0.6, 1.4)
    x = oracle.law.sample((256,))
    truth = float(oracle.law.log_prob(x).mean())
    report = evaluate(oracle.model(encoder), x, refine_steps=100)
    assert report.refined is not None
    assert report.refined.mean - report.value.mean == pytest.approx(gap, abs=0.4)
    assert report.refined.mean == pytest.approx(truth, abs=0.01)
    assert report.refined.mean < truth + 1e-3


def test_where_the_best_posterior_is_not_in_the_family_the_bound_stays_below() -> None:
    torch.manual_seed(0)
    oracle = ppca(orthogonal=False)
    x = oracle.law.sample((256,))
    m = oracle.M / oracle.s2
    left = float(0.5 * (m.diagonal().log().sum() - torch.logdet(m)))
    report = evaluate(oracle.model(shifted(oracle, 0.6, 1.4)[0]), x, refine_steps=100)
    assert report.refined is not None
    truth = float(oracle.law.log_prob(x).mean())
    assert truth - report.refined.mean == pytest.approx(left, abs=0.04)


def test_it_is_in_the_units_of_the_data() -> None:
    """Standardized columns: the change of units is in the refined bound too, and survives a file."""
    x, reports = torch.randn(64, 2), []
    for std in (1.0, 100.0):
        torch.manual_seed(0)
        columns = [Column(name, std=std) for name in ("height", "depth")]
        model = VAE(DataSpec((2,), columns=columns), latents=2, width=8)
        reports.append(evaluate(model, std * x, refine_steps=20))
    bare, report = reports
    assert bare.refined is not None
    assert report.refined is not None
    assert report.refined.mean == pytest.approx(bare.refined.mean - 2 * math.log(100))
    again = report_from(json.loads(json.dumps(report.to_dict())))
    assert again.to_dict() == report.to_dict()
    assert str(again) == str(report)


def test_the_report_shows_it_in_both_units() -> None:
    torch.manual_seed(0)
    data = dataset(torch.randint(0, 3, (40, 2)), bins=3, name="dice")
    model = VAE(data, latents=1, width=8)
    report = evaluate(model, data, refine_steps=5)
    assert report.refined is not None
    assert "refined for each row, 5 steps" in str(report)
    [line] = table([report])
    assert "bits/dim)" in line["bound, refined for each row"]
    [line] = table([evaluate(model, data)])
    assert "bound, refined for each row" not in line


def test_neither_rows_beside_nor_their_order_matter() -> None:
    torch.manual_seed(0)
    model, x = VAE(3, latents=2, width=8), torch.randn(12, 3)
    whole = evaluate(model, x, refine_steps=10).refined
    order = torch.randperm(12)
    other = evaluate(model, x[order], ids=order, refine_steps=10, batch_size=5).refined
    assert whole is not None
    assert other is not None
    assert other.mean == pytest.approx(whole.mean, rel=1e-12)


def test_a_fixed_posterior_cannot_be_refined() -> None:
    with pytest.raises(ValueError, match="expected a Gaussian, a normalizing flow"):
        evaluate(Diffusion(3, width=8, steps=4), torch.randn(4, 3), refine_steps=2)
    with pytest.raises(ValueError, match="refine_steps"):
        evaluate(VAE(3, width=8), torch.randn(4, 3), refine_steps=-1)


def test_a_report_from_before_is_still_read() -> None:
    """Without the entries that came later, as in the folders of earlier runs."""
    content = evaluate(VAE(3, latents=2, width=8), torch.randn(8, 3)).to_dict()
    older = {key: content[key] for key in content.keys() - {"refined", "in_nats"}}
    again = report_from(older)
    assert again.refined is None
    assert again.to_dict() == content
