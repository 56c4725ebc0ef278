"""The autoencoder: a VAE with a point for its posterior, which has no bound."""

from __future__ import annotations

import pytest
import torch

from genmod import Measure, decoders, encoders, priors
from genmod.model import LatentModel
from genmod.models import Autoencoder
from tests.oracles_vae import affine, ppca

pytestmark = pytest.mark.usefixtures("float64")


def test_its_value_is_the_likelihood_at_the_code_and_bounds_nothing() -> None:
    """``log p(x | z = e(x))``, no rates, measure NONE, no bits per dimension."""
    model = Autoencoder((4,), 5, latents=2, width=8)
    x = torch.randint(0, 5, (3, 4))
    bound = model.elbo(x)
    assert bound.measure is model.measure is Measure.NONE
    assert not bound.rates
    code = model.encode(x)
    assert isinstance(code, torch.Tensor)
    torch.testing.assert_close(bound.value.detach(), model.decode(code).log_prob(x))
    with pytest.raises(ValueError, match="bounds nothing"):
        bound.bits_per_dim(4)


def test_the_linear_one_is_principal_component_analysis() -> None:
    """With ``d(e(x)) = U U' x`` the value is a Gaussian's at the residual: PCA's squared error.

    The gradient at PCA's projection is zero within the column space (a stationary point).
    """
    oracle = ppca()
    x = oracle.law.sample((500,))
    x = x - x.mean(0)
    U = torch.linalg.svd(x, full_matrices=False).Vh[:2]
    zero = torch.zeros(2), torch.zeros(5)
    model = LatentModel(
        encoders.DiracEncoder(affine(U, zero[0]), (2,)),
        decoders.GaussianDecoder(affine(U.T, zero[1]), (5,), 1.0),
        priors.FlatPrior((2,)),
    )
    value = model.elbo(x).value
    residual = x - x @ U.T @ U
    torch.testing.assert_close(
        value.detach(),
        -0.5 * residual.square().sum(1) - 2.5 * torch.log(torch.tensor(2 * torch.pi)),
    )
    value.mean().backward()
    assert all(float(p.grad.abs().max()) < 1e-10 for p in model.parameters() if p.grad is not None)


def test_sampling_and_importance_weights_are_refused() -> None:
    model = Autoencoder((4,), latents=2, width=8)
    for ask in (lambda: model.sample(3), lambda: model.log_weight(torch.zeros(3, 4))):
        with pytest.raises(ValueError, match=r"flat prior.*proper prior.*decode\(z\)"):
            ask()
    assert model.decode(torch.randn(3, 2)).mean.shape == (3, 4)  # what the report shows instead


def test_a_code_of_another_shape_is_refused() -> None:
    model = Autoencoder((4,), latents=2, width=8)
    with pytest.raises(ValueError, match=r"got z of shape \(3, 4\)"):
        model.decode(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="got 2 latents; expected one tensor"):
        model.decode((torch.zeros(3, 2), torch.zeros(3, 2)))


def test_parts_of_ones_own() -> None:
    encoder = encoders.DiracEncoder(affine(torch.eye(3), torch.zeros(3)), (3,))
    decoder = decoders.GaussianDecoder(affine(torch.eye(3), torch.zeros(3)), (3,), 0.5)
    model = Autoencoder(encoder=encoder, decoder=decoder, latents=3)
    x = torch.randn(4, 3)
    torch.testing.assert_close(model.reconstruct(x), x)
    with pytest.raises(
        ValueError, match=r"got no description of the data and no encoder.*pass a data set"
    ):
        Autoencoder()
    with pytest.raises(ValueError, match=r"the prior's shape \(2,\)"):
        Autoencoder(encoder=encoder, decoder=decoder, latents=2).elbo(x)


def test_its_repr_is_its_formula() -> None:
    text = repr(Autoencoder((4,), latents=2, width=8))
    assert "q(z | x) = delta(z - e(x))" in text
    assert "p(z) = 1 (improper)" in text
