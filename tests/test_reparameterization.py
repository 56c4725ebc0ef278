r"""Why latents are drawn as ``mu + sigma eps``: two gradients, one mean, very different variances.

For :math:`\nabla_\mu \mathbb{E}_{z \sim N(\mu, \sigma^2)} f(z)` there are two unbiased estimates:

* the score function (REINFORCE, Williams 1992): :math:`f(z)\, \nabla_\mu \log q(z)`. It never asks
  for the slope of ``f``, so it must find it by comparing values; a constant added to ``f`` leaves
  its mean and adds to its variance, and it grows with the number of dimensions.
* the reparameterization (Kingma, Welling 2014, section 2.4): draw :math:`\varepsilon`, move it to
  :math:`z = \mu + \sigma \varepsilon`, and let the derivative of ``f`` itself flow through ``z``.

For a quadratic ``f`` the second is a few units of slope; the first carries the value of ``f``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod.distributions import Normal
from tests.oracles_vae import gaussian_head, ppca
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

ROWS = 50_000


def quadratic(z: Tensor) -> Tensor:
    """``f(z) = -sum (z - 2)^2 - 10``: a log-likelihood, up to a factor."""
    return -(z - 2).square().sum(1) - 10


def both_gradients(dims: int) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of ``E f`` in (mean, log-std): a draw's by score, by path; and the exact one."""
    mean, log_std = 0.5, -0.3
    parameters = [torch.full((ROWS, dims), value, requires_grad=True) for value in (mean, log_std)]
    q = Normal(*parameters)
    z = q.rsample()
    path = torch.autograd.grad(quadratic(z).sum(), parameters)
    fixed = z.detach()
    score = torch.autograd.grad((quadratic(fixed) * q.log_prob(fixed)).sum(), parameters)
    # E f = -sum ((mean - 2)^2 + std^2) - 10
    slopes = -2 * (mean - 2), -2 * torch.exp(torch.tensor(2 * log_std))
    exact = torch.tensor(slopes)[:, None].expand(2, dims)
    return torch.stack(score, 1), torch.stack(path, 1), exact


@pytest.mark.parametrize("dims", [1, 4, 16])
def test_both_gradients_have_one_mean_and_the_path_a_tenth_of_the_variance_or_less(
    dims: int, record_property: Callable[[str, object], None]
) -> None:
    """The variances are recorded, and printed with ``-s``; their ratio grows with the dimensions."""
    score, path, exact = both_gradients(dims)
    assert_mean(score, exact, name="score function")
    assert_mean(path, exact, name="reparameterized")
    for index, parameter in enumerate(("mean", "log_std")):
        by_score, by_path = (float(grad[:, index].var(0).mean()) for grad in (score, path))
        print(
            f"{dims} dims, d/d{parameter}: variance {by_score:.3g} by score, {by_path:.3g} by path; "
            f"ratio {by_score / by_path:.3g}"
        )
        record_property(f"variance ratio in {parameter}", by_score / by_path)
        assert by_score / by_path > 10


def test_the_ratio_grows_with_the_number_of_dimensions() -> None:
    ratios = []
    for dims in (1, 4, 16):
        score, path, _ = both_gradients(dims)
        ratios.append(float(score[:, 0].var(0).mean() / path[:, 0].var(0).mean()))
    assert sorted(ratios) == ratios


def test_the_bounds_own_gradient_is_the_path_one() -> None:
    """Through a VAE, the encoder's gradient has the exact mean and no score term.

    For pPCA: ``d ELBO / d b = W' (x - mu - W m) / s2 - m`` at posterior mean ``m = G x + b``.
    """
    oracle = ppca()
    x = oracle.law.sample((1,))
    shift = torch.randn(2)
    rows = x.expand(20_000, -1)
    offset = shift.expand(20_000, -1).clone().requires_grad_()
    head = gaussian_head(oracle.posterior.weight, torch.zeros(2), oracle.posterior.std)
    said = head(rows).detach()
    q = Normal(said[:, :2] + offset, said[:, 2:])
    z = q.rsample()
    model = oracle.model(oracle.diagonal())
    value = model.decoder(z).log_prob(rows) - torch.distributions.kl_divergence(
        q, Normal(torch.zeros_like(z), torch.zeros_like(z))
    )
    (grad,) = torch.autograd.grad(value.sum(), offset)
    m = said[0, :2] + shift
    exact = oracle.W.T @ (x[0] - oracle.mu - oracle.W @ m) / oracle.s2 - m
    assert_mean(grad, exact, name="encoder's gradient")
