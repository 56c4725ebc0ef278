"""The ladder: its merge is the product of two Gaussians, and it is exact on a linear-Gaussian tower."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genmod import Kind, decoders, priors
from genmod.distributions import Normal
from genmod.encoders.topdown import HeadPosterior, LadderEncoder
from genmod.model import LatentModel
from tests.oracles_vae import Tower, affine, gaussian_head, tower
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


class Fixed(nn.Module):
    """A head that gives the same mean and log-std for every row."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        super().__init__()
        self.both = torch.cat([mean, log_std])

    def forward(self, features: Tensor) -> Tensor:
        return self.both.expand(len(features), -1)


def test_the_merge_is_the_product_of_the_two_gaussians() -> None:
    """``log q = log N(z; m, s) + log p(z) + c`` with one ``c`` for all ``z``; precisions add."""
    mean, log_std = torch.randn(3), torch.randn(3)
    encoder = LadderEncoder([nn.Identity()], [Fixed(mean, log_std)])
    p = Normal(torch.randn(4, 3), torch.randn(4, 3))
    q = encoder(torch.zeros(4, 2)).conditional(0, torch.zeros(4, 5), p)
    torch.testing.assert_close(
        1 / q.variance, 1 / p.variance + (-2 * log_std).exp().expand(4, -1), rtol=1e-12, atol=0
    )
    z = 3 * torch.randn(7, 4, 3)
    message = torch.distributions.Normal(mean, log_std.exp())
    constant = torch.stack([q.elementwise(each) - p.elementwise(each) for each in z])
    constant = constant - message.log_prob(z)
    torch.testing.assert_close(constant, constant[:1].expand_as(constant), rtol=0, atol=1e-10)


def ladder(oracle: Tower) -> LatentModel:
    """The exact posterior of a tower as a ladder: ``p(x | z_l)`` is Gaussian in ``z_l`` for each level."""
    joint, q, d = oracle.joint(), oracle.W.shape[1], len(oracle.mu)
    heads = []
    for level in range(oracle.levels, 0, -1):
        top = level == oracle.levels
        down = joint.given(f"z{level}", ["x"] if top else ["x", f"z{level + 1}"])
        spread = torch.ones(q) if top else oracle.r[level - 1]
        # What the data say alone: the posterior's precision and mean less the prior's part.
        precision = down.std**-2 - spread**-2
        weight = (down.weight[:, :d] * down.std[:, None] ** -2) / precision[:, None]
        bias = down.bias * down.std**-2 / precision
        heads.append(gaussian_head(weight, bias, precision**-0.5))
    stages = [affine(torch.eye(d), torch.zeros(d)) for _ in range(oracle.levels)]
    blocks = [priors.TopDownBlock(oracle.law(level)) for level in range(oracle.levels, 0, -1)]
    prior = priors.TopDownPrior(blocks, torch.zeros(q))
    return LatentModel(LadderEncoder(stages, heads), oracle.decoder(), prior)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_a_ladder_is_exact_on_a_linear_gaussian_tower(levels: int) -> None:
    """Every draw has the weight ``log p(x)``; each level has its KL in closed form."""
    oracle = tower(levels)
    law, model = oracle.joint().law("x"), ladder(oracle)
    x = law.sample((50,)) * 2
    assert (model.log_weight(x) - law.log_prob(x)).abs().max() < 1e-10
    many = x[:1].expand(20_000, -1)
    bound = model.elbo(many)
    assert {level.kind for level in bound.levels()} == {Kind.ANALYTIC}
    assert_mean(bound.value, law.log_prob(x[0]), name="the bound of a ladder")


def test_a_ladder_over_a_level_that_is_not_gaussian_is_refused() -> None:
    encoder = LadderEncoder([nn.Identity()], [Fixed(torch.zeros(2), torch.zeros(2))])
    p = torch.distributions.Independent(torch.distributions.Laplace(torch.zeros(4, 2), 1.0), 1)
    with pytest.raises(
        ValueError, match=r"got a ladder over a Independent level; expected a Gaussian"
    ):
        encoder(torch.zeros(4, 2)).conditional(0, torch.zeros(4, 5), p)


def test_features_without_heads_are_refused_by_blocks_that_own_none() -> None:
    posterior = HeadPosterior([torch.zeros(4, 2)])
    block = priors.TopDownBlock(decoders.GaussianDecoder(nn.Identity(), (2,), 1.0))
    with pytest.raises(ValueError, match=r"got 0 heads for 1 levels; expected a head a level"):
        list(priors.TopDownPrior([block], torch.zeros(2)).infer(posterior))
