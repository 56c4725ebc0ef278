"""Two stages and joint training: the same optimum where it is known, and parts that stay as they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genmod import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion, decoders, fit, load, priors
from genmod.encoders import GaussianEncoder
from genmod.model import LatentModel


def linear(prior: priors.Prior) -> LatentModel:
    """A linear VAE of two latents: what it can reach is the likelihood of probabilistic PCA."""
    encoder = GaussianEncoder(nn.Linear(3, 4), (2,), 3)
    decoder = decoders.GaussianDecoder(nn.Linear(2, 3), (3,), math.sqrt(0.5))
    return LatentModel(encoder, decoder, prior)


def data() -> torch.Tensor:
    """Rows whose covariance is exactly that of a pPCA with the loading of eigenvalues 3 and 2."""
    x = torch.randn(512, 3, dtype=torch.float64)
    x = x - x.mean(0)
    x = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T @ x / len(x)), x.T, upper=False).T
    return x * torch.tensor([3.0, 2.0, 0.5], dtype=torch.float64).sqrt() + 1


OPTIMUM = -0.5 * (3 * math.log(2 * math.pi) + math.log(3.0 * 2.0 * 0.5) + 3)
"""The mean log-likelihood of the Gaussian with the mean and the covariance of the data."""


@pytest.mark.parametrize("stages", ["joint", "two-stage"])
def test_both_reach_the_same_exact_optimum(stages: str) -> None:
    """The aggregate posterior of the first stage is N(0, I): the second has nothing left to gain."""
    model = linear(priors.LearnedGaussianPrior()).double()
    x = data()
    settings: dict[str, Any] = {"warmup": 10, "ema": 0.95, "batch_size": 256, "progress": False}
    fit(model, x, steps=150, learning_rate=0.08, stages=stages, **settings)
    with torch.no_grad():
        reached = torch.stack([model.elbo(x).value.mean() for _ in range(20)]).mean()
    assert float(reached) == pytest.approx(OPTIMUM, abs=0.03)
    assert float(reached) < OPTIMUM + 0.02


def test_at_the_optimum_neither_has_a_gradient() -> None:
    """The pPCA optimum is a stationary point of the joint bound, with or without a frozen first stage."""
    model: Any = linear(priors.LearnedGaussianPrior()).double()
    values, s2 = torch.tensor([3.0, 2.0], dtype=torch.float64), 0.5
    loading = torch.zeros(3, 2, dtype=torch.float64)
    loading[0, 0], loading[1, 1] = (values - s2).sqrt()
    gain = loading.T / values[:, None]
    with torch.no_grad():
        model.decoder.network.weight.copy_(loading)
        model.decoder.network.bias.fill_(1)
        head = model.encoder.network
        head.weight.copy_(torch.cat([gain, torch.zeros(2, 3, dtype=torch.float64)]))
        head.bias.copy_(torch.cat([-gain.sum(1), 0.5 * (s2 / values).log()]))
    x = data()
    # The expectation over the noise by its two-point rule, which is exact for a quadratic.
    q = model.posterior(x)
    total = torch.zeros((), dtype=torch.float64)
    for signs in ((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)):
        z = q.loc + q.log_std.exp() * torch.tensor(signs, dtype=torch.float64)
        total = total + 0.25 * model.decoder(z).log_prob(x).mean()
    kl = torch.distributions.kl_divergence(q, model.prior.law(len(x))).mean()
    value = total - kl
    assert float(value.detach()) == pytest.approx(OPTIMUM, abs=1e-10)
    for gradient in torch.autograd.grad(value, list(model.parameters())):
        assert float(gradient.abs().max()) < 1e-10


@pytest.mark.parametrize(
    "prior",
    [
        lambda: priors.MixturePrior(3),
        lambda: priors.VampPrior(3),
        lambda: priors.FlowPrior(width=8),
        lambda: Diffusion(2, width=8, steps=3),
        lambda: VAE(2, latents=1, width=8),
    ],
    ids=["mixture", "vamp", "flow", "diffusion", "vae"],
)
def test_the_second_stage_trains_the_prior_alone(prior: Any, tmp_path: Path) -> None:
    """The first is that of a VAE under N(0, I), bit for bit; the result saves and loads."""
    x = torch.randn(64, 4)
    settings: dict[str, Any] = {"steps": 3, "batch_size": 16, "progress": False}
    torch.manual_seed(1)
    model = VAE(4, latents=2, width=8, prior=prior())
    torch.manual_seed(1)
    plain = VAE(4, latents=2, width=8)
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("prior.")}
    )
    before = {k: v.clone() for k, v in model.named_parameters() if k.startswith("prior.")}
    history = fit(model, x, stages="two-stage", **settings)
    assert [len(stage.losses) for stage in history.stages] == [3, 3]
    fit(plain, x, **settings)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name
    assert any(not torch.equal(v, model.get_parameter(k)) for k, v in before.items())
    model.save(tmp_path)
    again = load(tmp_path)
    torch.manual_seed(0)
    value = model.elbo(x).value
    torch.manual_seed(0)
    assert torch.equal(value, again.elbo(x).value)


def test_hierarchies_have_two_stages_as_well() -> None:
    model = HVAE(4, latents=(3, 2), width=8, prior=priors.MixturePrior(2))
    history = fit(model, torch.randn(64, 4), steps=2, stages="two-stage", progress=False)
    assert len(history.stages) == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: VAE(4, latents=2, width=8),
            r"NormalPrior has no parameters.*priors\.MixturePrior",
        ),
        (lambda: Autoencoder(4, latents=2, width=8), "no parameters of its own"),
        (
            lambda: HVAE(4, latents=(3, 2), width=8, inference="top-down"),
            "no single latent",
        ),
        (lambda: Diffusion(4, width=8), "two-stage"),
    ],
)
def test_models_without_a_prior_to_learn_afterwards_are_refused(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(model(), torch.randn(8, 4), steps=1, stages="two-stage", progress=False)


def test_the_two_stages_of_a_latent_diffusion_are_its_recipe() -> None:
    x = torch.randn(64, 4)
    settings: dict[str, Any] = {"steps": 2, "progress": False}
    found = []
    for stages in (None, "two-stage"):
        torch.manual_seed(1)
        model = LatentDiffusion(4, latents=2, width=8)
        fit(model, x, stages=stages, **settings)
        found.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*found)
