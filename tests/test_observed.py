"""Entries left out of the bound: it becomes that of the marginal model, whatever they hold."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod import Measure, decoders, encoders
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, Inference
from genmod.nn import MLP
from tests.oracles_vae import PPCA, gaussian_head, ppca

pytestmark = pytest.mark.usefixtures("float64")


def blind(oracle: PPCA, seen: Tensor) -> LatentModel:
    """The pPCA model whose encoder is exact for the observed entries and ignores the others."""
    part = PPCA(oracle.W[seen], oracle.mu[seen], oracle.s2).posterior
    weight = torch.zeros(2, len(seen))
    weight[:, seen] = part.weight
    std = part.covariance.diagonal().sqrt()
    encoder = encoders.GaussianEncoder(gaussian_head(weight, part.bias, std), (2,))
    return oracle.model(encoder)


@pytest.mark.parametrize("hidden", [0.0, 1e6, math.nan, math.inf])
def test_a_mask_gives_the_bound_of_the_marginal_model(hidden: float) -> None:
    """With some of pPCA's entries hidden the model is the pPCA of the others.

    The columns of W are orthogonal on the observed entries.
    """
    oracle = ppca(d=3)
    oracle.W = torch.cat([oracle.W, torch.randn(2, 2)])
    oracle.mu = torch.randn(5)
    seen = torch.tensor([True, True, True, False, False])
    model = blind(oracle, seen)
    x = oracle.law.sample((20,))
    x[:, ~seen] = hidden
    observed = seen.expand(20, -1)
    marginal = PPCA(oracle.W[seen], oracle.mu[seen], oracle.s2).law
    weight = model.log_weight(x, observed=observed)
    torch.testing.assert_close(weight, marginal.log_prob(x[:, seen]), rtol=0, atol=1e-10)


def test_hidden_entries_change_neither_value_nor_gradient() -> None:
    """NaN where nothing was observed; the gradient is that of any other filling.

    ``where(observed, log_prob, 0)`` alone passes NaN back: zero times NaN.
    """
    observed = torch.rand(6, 4) < 0.6
    for bins in (None, 5):
        model = VAE((4,), bins, latents=2, width=8)
        x = torch.randn(6, 4) if bins is None else torch.randint(0, 5, (6, 4)).double()
        results = []
        for filling in (0.0, 77.0, math.nan):
            torch.manual_seed(3)
            model.zero_grad()
            value = model.elbo(torch.where(observed, x, filling), observed=observed).value
            value.sum().backward()
            grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
            results.append([value.detach(), *grads])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_integers_outside_the_bins_are_fine_where_hidden() -> None:
    """A marker such as -1 or 255 for a missing level is never looked up in the decoder."""
    network = MLP(2, 12, width=8)
    model = VAE((4,), 3, latents=2, width=8, decoder=decoders.CategoricalDecoder(network, (4,), 3))
    x = torch.tensor([[0, 2, -1, 255]])
    value = model.elbo(x, observed=torch.tensor([[True, True, False, False]])).value
    assert bool(value.isfinite())
    with pytest.raises(ValueError, match=r"from -1 to 255"):
        model.elbo(x)


@pytest.mark.parametrize(
    "model",
    [
        lambda: VAE((4,), 5, latents=2, width=8),
        lambda: VAE((4,), latents=2, width=8),
        lambda: HVAE((4,), 5, latents=(2, 2), width=8, inference=Inference.TOP_DOWN),
        lambda: Autoencoder((4,), 2, latents=2, width=8),
        lambda: Diffusion((4,), steps=3, width=8),
    ],
)
def test_a_mask_of_ones_is_no_mask_and_a_mask_of_zeros_no_reconstruction(
    model: Callable[[], LatentModel],
) -> None:
    made = model()
    x = torch.randint(0, 2, (3, 4))
    x = x.double() if made.measure is Measure.DENSITY else x
    values = []
    for observed in (None, torch.ones(3, 4, dtype=torch.bool)):
        torch.manual_seed(5)
        values.append(made.elbo(x, observed=observed).value)
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    nothing = made.elbo(x, observed=torch.zeros(3, 4, dtype=torch.bool))
    assert nothing.reconstruction.abs().max() == 0
