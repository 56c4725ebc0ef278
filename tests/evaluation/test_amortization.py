"""The amortization gap: known in closed form where the model is linear and Gaussian."""

from __future__ import annotations

import math

import pytest
import torch

from genmod import HVAE, VAE, Autoencoder, Diffusion, encoders
from genmod.evaluation import amortization_gap
from tests.oracles_vae import PPCA, affine, ppca

pytestmark = pytest.mark.usefixtures("float64")


def shifted(oracle: PPCA, shift: float, ratio: float) -> tuple[encoders.GaussianEncoder, float]:
    """The best diagonal posterior, its mean off by some stds and its stds too large; and the gap."""
    law = oracle.posterior
    std = (oracle.M.diagonal() / oracle.s2).rsqrt()
    weight = torch.cat([law.weight, torch.zeros_like(law.weight)])
    network = affine(weight, torch.cat([law.bias + shift * std, (ratio * std).log()]))
    # KL from the true posterior, whose precision is M / s2, minus that of the best diagonal one.
    precision = oracle.M / oracle.s2
    off = shift * std
    moved = 0.5 * float(off @ precision @ off)
    wide = 0.5 * len(std) * (ratio**2 - 1 - 2 * math.log(ratio))
    return encoders.GaussianEncoder(network, (len(std),)), moved + wide


def test_the_gap_is_the_divergence_that_refinement_removes() -> None:
    """And the approximation gap is what the best diagonal posterior leaves."""
    oracle = ppca(orthogonal=False)
    encoder, expected = shifted(oracle, 0.6, 1.4)
    x = oracle.law.sample((256,))
    found = amortization_gap(oracle.model(encoder), x, importance_samples=64)
    assert found.gap.mean == pytest.approx(expected, abs=0.06)
    m = oracle.M / oracle.s2
    left = float(0.5 * (m.diagonal().log().sum() - torch.logdet(m)))
    assert found.approximation is not None
    assert found.approximation.mean == pytest.approx(left, abs=0.04)
    assert "amortization gap" in repr(found)
    assert set(found.to_dict()) == {"amortized", "refined", "gap", "approximation"}


def test_an_exact_posterior_has_no_gap() -> None:
    oracle = ppca()
    found = amortization_gap(oracle.model(oracle.diagonal()), oracle.law.sample((64,)), steps=50)
    assert abs(found.gap.mean) < 0.02


def test_a_richer_family_has_a_smaller_approximation_gap() -> None:
    """The full covariance, refined from a diagonal start, comes closer than the diagonal can."""
    oracle = ppca(orthogonal=False)
    size, d = oracle.W.shape[1], len(oracle.mu)
    law = oracle.posterior
    std = (oracle.M.diagonal() / oracle.s2).rsqrt()
    zero = torch.zeros(size * (size - 1) // 2)
    weight = torch.zeros(size * (size + 3) // 2, d)
    weight[:size] = law.weight
    network = affine(weight, torch.cat([law.bias, std.log(), zero]))
    encoder = encoders.FullCovarianceEncoder(network, (size,), d)
    x = oracle.law.sample((256,))
    found = amortization_gap(oracle.model(encoder), x)
    m = oracle.M / oracle.s2
    left = float(0.5 * (m.diagonal().log().sum() - torch.logdet(m)))
    assert found.gap.mean == pytest.approx(left, abs=0.025)


@pytest.mark.parametrize(
    "model",
    [
        HVAE(3, latents=(3, 2), width=8, inference="top-down"),
        HVAE(3, latents=(3, 2), width=8),
        VAE(3, latents=2, width=8, encoder=encoders.FlowEncoder(width=8)),
    ],
    ids=["top-down", "bottom-up", "flow"],
)
def test_hierarchies_and_flows_are_refined_too(model: VAE) -> None:
    found = amortization_gap(model.double(), torch.randn(8, 3), steps=20)
    assert found.gap.mean > 0
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("model", [Autoencoder(3, latents=2, width=8), Diffusion(3, width=8)])
def test_a_posterior_without_parameters_is_refused(model: VAE) -> None:
    with pytest.raises(ValueError, match="expected a Gaussian, a normalizing flow"):
        amortization_gap(model.double(), torch.randn(2, 3))
