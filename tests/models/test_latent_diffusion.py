r"""Latent diffusion: one bound over two stages, and the Jacobian of a rescaled latent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from genmod import random
from genmod.decoders import GaussianDecoder, Identity
from genmod.distributions import Normal
from genmod.elbo import Kind, Measure
from genmod.encoders import GaussianEncoder
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.priors import NestedPrior
from genmod.samplers import DDIM, UniformLogSNR
from tests.oracles import (
    F64,
    MILD,
    Bent,
    log_weight_at,
    real,
    standard_diffusion,
)
from tests.statistics import assert_mean

SHIFT, SCALE = real(0.5, -2.0), real(0.3, 4.0)


def inner(steps: int | None = 4) -> Diffusion:
    """A diffusion over two latent dimensions."""
    last = GaussianDecoder(Identity(), (2,), 0.3)
    return Diffusion(denoiser=Bent(), schedule=MILD, steps=steps, decoder=last).double()


def latent_diffusion(steps: int | None = 4) -> LatentDiffusion:
    """A small one over three data dimensions, with weights that are not zero."""
    torch.manual_seed(0)
    vae = VAE((3,), latents=2, width=8, depth=1).double()
    return LatentDiffusion(vae=vae, diffusion=inner(steps)).double()


def data(rows: int) -> Tensor:
    """Data of some spread."""
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(rows, 3, generator=generator, dtype=F64) + 1


@pytest.mark.parametrize("steps", [4, None])
def test_the_bound_is_the_vaes_with_the_prior_replaced(steps: int | None) -> None:
    r""":math:`\log p(x|z) - \log q(z|x) + \mathrm{ELBO}((z - m) / s) - \sum \log s`, same noise."""
    model, x = latent_diffusion(steps), data(6)
    model.nested.standardize(SHIFT, SCALE)
    with random.keyed(0):
        bound = model.elbo(x, timesteps=3)
    q = model.encoder(x)
    assert isinstance(q, Normal)
    with random.keyed(0):
        z = q.rsample()
        below = model.nested.model.elbo((z - SHIFT) / SCALE, timesteps=3)
    reconstruction = model.decoder(z).log_prob(x)
    expected = reconstruction - q.log_prob(z) + below.value - SCALE.log().sum()
    torch.testing.assert_close(bound.value, expected)
    torch.testing.assert_close(bound.reconstruction, reconstruction)
    assert list(bound.rates) == ["latent", "prior", "steps"]
    assert bound.rates["latent"].kind is Kind.MONTE_CARLO
    assert bound.measure is Measure.DENSITY


def test_a_rescaled_prior_is_the_analytic_rescaled_density() -> None:
    r"""A prior exact on N(0, I), seen through shift and scale, is ``N(m, s^2)`` on every path.

    Its sampled form has no variance, so the Jacobian stands alone.
    """
    torch.manual_seed(0)
    prior = NestedPrior(standard_diffusion(2, MILD, 5), shift=SHIFT, scale=SCALE)
    q = Normal(3 * torch.randn(50, 2, dtype=F64), torch.randn(50, 2, dtype=F64))
    z, path = prior.draw_path(q)
    log_weight = path.log_ratio()[0]
    law = MultivariateNormal(SHIFT, torch.diag(SCALE.square()))
    torch.testing.assert_close(log_weight, law.log_prob(z) - q.log_prob(z), rtol=0, atol=1e-10)


def test_samples_are_in_the_units_of_the_latents() -> None:
    """Mean and variance of what a rescaled prior samples."""
    torch.manual_seed(0)
    prior = NestedPrior(standard_diffusion(2, MILD, 5), shift=SHIFT, scale=SCALE).double()
    z = prior.sample(20_000)
    assert_mean(z, SHIFT)
    assert_mean((z - SHIFT).square(), SCALE.square())


def test_a_sample_is_the_last_of_its_states_decoded() -> None:
    """By the inner decoder, out of the inner units, by the outer decoder; under the same noise."""
    model = latent_diffusion(steps=6)
    model.nested.standardize(SHIFT, SCALE)
    sampler, grid = DDIM(eta=1.0), UniformLogSNR()
    with random.keyed(0), torch.no_grad():
        states = list(model.states(5, sampler=sampler, steps=4, grid=grid))
        z = model.nested.law(states[-1].z).sample()
        expected = model.decoder(z).sample()
    with random.keyed(0):
        found = model.sample(5, sampler=sampler, steps=4, grid=grid)
    torch.testing.assert_close(found, expected)
    assert [len(state.z) for state in states] == [5] * 4
    seen = model.nested.outside(states[-1].x_hat)
    torch.testing.assert_close(seen, SHIFT + SCALE * states[-1].x_hat)
    with pytest.raises(ValueError, match="without a diffusion"):
        LatentDiffusion(vae=VAE(3, latents=2), diffusion=VAE(2, latents=1)).states(1)


def test_closed_and_sampled_forms_of_the_joint_bound_agree_in_the_mean() -> None:
    """``elbo`` against ``log_weight`` at one ``x``: two orders of one path, z-tested."""
    model, x = latent_diffusion(), data(1)
    # Latents seen near zero keep the variance of both forms small enough to tell a sign.
    model.nested.standardize(real(0.1, -0.2), real(1.5, 2.0))
    rows = x.expand(20_000, 3)
    with torch.no_grad():
        difference = model.elbo(rows).value - model.log_weight(rows)
    assert_mean(difference, 0.0)


def test_freezing_standardizes_the_latents() -> None:
    """Seen through shift and scale, draws of ``q`` over the data have mean 0 and variance 1."""
    model, x = latent_diffusion(), data(200)
    assert model.freeze(x) is model
    torch.manual_seed(3)
    q = model.encoder(x)
    assert isinstance(q, Normal)
    nested = model.nested
    seen = torch.stack(
        [(q.sample() - nested.shift) * (-nested.log_scale).exp() for _ in range(300)]
    )
    assert_mean(seen.mean(1), torch.zeros(2, dtype=F64))
    assert_mean(seen.square().mean(1), torch.ones(2, dtype=F64))


def test_the_first_stage_is_the_same_vae_under_a_standard_prior() -> None:
    """One encoder, one decoder, a closed KL: the terms of the VAE it was built from."""
    model, x = latent_diffusion(), data(6)
    stage = model.first_stage()
    assert stage.encoder is model.encoder
    assert stage.decoder is model.decoder
    with random.keyed(0):
        bound = stage.elbo(x)
    with random.keyed(0):
        joint = model.elbo(x)
    torch.testing.assert_close(bound.reconstruction, joint.reconstruction)
    q = model.encoder(x)
    assert isinstance(q, Normal)
    divergence = 0.5 * (q.variance + q.mean.square() - 1 - 2 * q.log_std).sum(1)
    torch.testing.assert_close(bound.rates["prior"].total, divergence)


def test_the_joint_recipe_reaches_every_part() -> None:
    """Unfrozen, one gradient trains encoder, decoder and prior; codes and samples exist."""
    model, x = latent_diffusion(), data(5)
    model.elbo(x, timesteps=2).value.mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    code = model.encode(x)
    q = model.encoder(x)
    assert isinstance(code, Tensor)
    assert isinstance(q, Normal)
    torch.testing.assert_close(code, q.mean)
    torch.testing.assert_close(model.reconstruct(x), model.decoder(q.mean).mean)
    assert model.sample(4).shape == (4, 3)
    latents = {
        "latent": q.mean,
        **{f"latent.z{i}": torch.zeros(5, 2, dtype=F64) for i in range(1, 5)},
    }
    assert bool(log_weight_at(model, x, latents).isfinite().all())


def test_a_vae_with_a_model_for_its_prior_nests_it() -> None:
    """``VAE(prior=Diffusion(...))`` builds the same model."""
    torch.manual_seed(0)
    plain = VAE((3,), latents=2, width=8, depth=1, prior=inner()).double()
    other = LatentDiffusion(
        vae=LatentModel(plain.encoder, plain.decoder, plain.prior), diffusion=inner()
    ).double()
    x = data(4)
    with random.keyed(0):
        a = plain.elbo(x).value
    with random.keyed(0):
        torch.testing.assert_close(other.elbo(x).value, a)


def test_the_repr_of_a_latent_diffusion_is_its_formula() -> None:
    """The inner model's formula stands inside the prior's."""
    said = repr(latent_diffusion())
    assert "q(z | x) = N(z; mean(x), diag std(x)^2)" in said
    assert "p(latent) >= a bound, 2 dimensions" in said
    assert "T = 4" in said


def test_a_prior_that_bounds_no_density_is_refused() -> None:
    """A mass over real latents, or a value that bounds nothing, is no prior."""
    with pytest.raises(ValueError, match="a mass as a prior over real latents"):
        NestedPrior(Diffusion((2,), bins=5, steps=3))
    with pytest.raises(ValueError, match="a none as a prior over real latents"):
        NestedPrior(Autoencoder((2,), latents=1))


def test_parts_that_do_not_fit_are_refused() -> None:
    """A Dirac encoder, a diffusion of another shape, a scale that is none; equal names are told apart."""
    with pytest.raises(
        ValueError, match="a VAE with a DiracEncoder encoder; expected a Gaussian one"
    ):
        LatentDiffusion(vae=Autoencoder((3,), latents=2))
    with pytest.raises(ValueError, match=r"a diffusion over \(5,\)"):
        LatentDiffusion((3,), latents=2, diffusion=Diffusion((5,)))
    with pytest.raises(ValueError, match="positive finite scales"):
        NestedPrior(inner(), scale=real(1.0, 0.0))
    collided = LatentModel(
        GaussianEncoder(nn.Linear(3, 4), (2,)),
        GaussianDecoder(nn.Linear(2, 3), (3,)),
        NestedPrior(inner(), name="prior"),
    ).double()
    assert list(collided.elbo(data(2)).rates) == ["prior", "prior.prior", "steps"]
    hierarchy = HVAE((3,), latents=(2, 2), width=8, depth=1)
    assert LatentDiffusion(vae=hierarchy).nested.name == "latent"
