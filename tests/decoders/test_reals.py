"""A variance that needs no tuning: the analytic optimum, and where a learned one ends."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genmod import load
from genmod.decoders import (
    CalibratedGaussianDecoder,
    ContinuousBernoulliDecoder,
    GaussianDecoder,
    GlobalScale,
)
from genmod.distributions import Normal
from genmod.evaluation import linear_forecast
from genmod.model import LatentModel
from genmod.models import VAE
from genmod.nn import MLP
from genmod.objectives import Batch, Bound
from genmod.priors import NormalPrior
from genmod.spec import Column, DataSpec
from genmod.training import fit
from tests.oracles_vae import PPCA, affine

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("per_dimension", [False, True])
def test_in_training_no_other_variance_scores_a_batch_higher(per_dimension: bool) -> None:
    decoder = CalibratedGaussianDecoder(nn.Linear(2, 3), (3,), per_dimension)
    z, x = torch.randn(20, 2), torch.randn(20, 3) * torch.tensor([1.0, 2.0, 0.3])
    best = decoder(z).log_prob(x).mean()
    mean = decoder.network(z)
    square = (x - mean).square()
    variance = square.mean(0) if per_dimension else square.mean()
    expected = Normal(mean, (0.5 * variance.log()).expand(20, 3)).log_prob(x).mean()
    torch.testing.assert_close(best, expected)
    for factor in (0.5, 0.9, 1.1, 2.0):
        other = Normal(mean, (0.5 * (factor * variance).log()).expand(20, 3)).log_prob(x).mean()
        assert other < best


def test_the_gradient_is_that_of_the_logarithm_of_the_error() -> None:
    """The variance may be a constant: its own gradient is zero at the optimum."""
    decoder = CalibratedGaussianDecoder(nn.Linear(2, 3), (3,))
    z, x = torch.randn(20, 2), torch.randn(20, 3)
    parameters = list(decoder.parameters())
    found = torch.autograd.grad(decoder(z).log_prob(x).mean(), parameters)
    error = (x - decoder.network(z)).square().mean()
    whole = -1.5 * ((2 * math.pi * error).log() + 1)
    expected = torch.autograd.grad(whole, parameters)
    torch.testing.assert_close(found, expected)


def test_evaluation_takes_the_running_mean_and_a_broken_batch_does_not_enter_it() -> None:
    decoder = CalibratedGaussianDecoder(nn.Linear(2, 3), (3,), decay=0.5)
    z, rows = torch.randn(6, 2), [torch.randn(6, 3) for _ in range(3)]
    errors = []
    for x in rows:
        decoder(z).log_prob(x)
        errors.append(float((x - decoder.network(z).detach()).square().mean()))
    expected = (errors[0] + errors[1]) / 4 + errors[2] / 2
    assert float(decoder.mean_square) == pytest.approx(expected)
    decoder(z).log_prob(torch.full((6, 3), math.nan))
    assert float(decoder.mean_square) == pytest.approx(expected)
    law = decoder.eval()(z)
    torch.testing.assert_close(law.stddev, torch.full((6, 3), math.sqrt(expected)))
    law.log_prob(rows[0])
    assert float(decoder.mean_square) == pytest.approx(expected)


@pytest.mark.usefixtures("as_users_run")
def test_a_learned_variance_meets_the_analytic_optimum() -> None:
    """Of a linear VAE at its optimum both end at the variance of maximum likelihood."""
    basis = torch.linalg.qr(torch.randn(5, 5)).Q
    x = torch.randn(64, 5) * torch.tensor([2.0, 1.5, 0.5, 0.4, 0.3]) @ basis.T
    expected = linear_forecast(x, latents=2).learned_variance
    vectors = torch.linalg.eigh(torch.cov(x.T, correction=0)).eigenvectors.flip(1)[:, :2]
    values = linear_forecast(x).eigenvalues[:2]
    exact = PPCA(vectors * (values - expected).sqrt(), x.mean(0), expected)
    network, found = affine(exact.W, exact.mu), []
    for decoder in (
        GaussianDecoder(network, (5,), GlobalScale(0.7, gain=5.0)),
        CalibratedGaussianDecoder(copy.deepcopy(network), (5,), decay=0.9),
    ):
        model = LatentModel(exact.diagonal(), decoder, NormalPrior((2,)))
        fit(
            model, x, steps=120, batch_size=64, learning_rate=0.01, warmup=0, clip=None, ema=0.95,
            progress=False, device="cpu",
        )  # fmt: skip
        with torch.no_grad():
            law = model.decoder(torch.zeros(1, 2))
        assert isinstance(law, Normal)
        found.append(float(law.variance[0, 0]))
    torch.testing.assert_close(found, [expected] * 2, rtol=0.05, atol=0.0)


def test_it_is_saved_with_the_model_and_scores_in_evaluation_as_a_fixed_gaussian(
    tmp_path: Path,
) -> None:
    x, network = torch.randn(32, 5), MLP(2, 5, width=8)
    model = VAE(5, latents=2, decoder=CalibratedGaussianDecoder(network, (5,)), width=8)
    fit(model, x, steps=5, batch_size=16, progress=False, device="cpu")
    again = load(model.save(tmp_path / "run"))
    assert isinstance(again, LatentModel)
    assert isinstance(model.decoder, CalibratedGaussianDecoder)
    std = model.decoder.mean_square.sqrt()
    assert float(std) != 1.0
    z, y = torch.randn(4, 2), torch.randn(4, 5)
    expected = Normal(network(z), std.log().expand(4, 5)).log_prob(y)
    torch.testing.assert_close(again.decoder(z).log_prob(y), expected, rtol=1e-6, atol=1e-6)


def test_what_a_running_error_cannot_be_of_is_refused() -> None:
    for spec in (DataSpec((3,), 17), DataSpec((3,), missing=True)):
        with pytest.raises(ValueError, match=r"got .*; expected .*; use|pass"):
            CalibratedGaussianDecoder(nn.Linear(2, 3), spec)
    columns = [Column("a"), Column("b", "category", ("x", "y"))]
    with pytest.raises(ValueError, match="decoder of real numbers"):
        CalibratedGaussianDecoder(nn.Linear(2, 2), DataSpec((2,), columns=columns))
    with pytest.raises(ValueError, match=r"decay=1.0; expected a decay in \[0, 1\)"):
        CalibratedGaussianDecoder(nn.Linear(2, 3), (3,), decay=1.0)


def test_gray_values_need_to_be_between_zero_and_one() -> None:
    """Through a VAE: the Bernoulli's likelihood of gray values would bound nothing, this one does."""
    x = torch.rand(16, 5)
    model = VAE(5, latents=2, decoder=ContinuousBernoulliDecoder(nn.Linear(2, 5), (5,)), width=8)
    loss, _ = Bound()(model, Batch(x))
    assert bool(loss.isfinite())
    assert model.sample(3).min() >= 0
    with pytest.raises(ValueError, match=r"1 values of x outside \[0, 1\].*divide"):
        model.elbo(torch.cat([x, torch.full((1, 5), 0.5).index_fill(1, torch.tensor([0]), 1.5)]))
    seen = torch.ones(16, 5, dtype=torch.bool)
    wrong, seen[0, 0] = x.clone(), False
    wrong[0, 0] = 7.0
    assert bool(model.elbo(wrong, observed=seen).value.isfinite().all())
    with pytest.raises(ValueError, match="decoder of real numbers"):
        ContinuousBernoulliDecoder(nn.Linear(2, 5), DataSpec((5,), 2))
    flat: Tensor = ContinuousBernoulliDecoder(nn.Linear(2, 5), (5,))(torch.zeros(1, 2)).mean
    assert flat.shape == (1, 5)
