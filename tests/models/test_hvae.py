"""The hierarchical VAE, both ways to be deep: tight on linear-Gaussian towers, level by level."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genmod import Kind, Measure, fit
from genmod.distributions import Normal
from genmod.model import LatentModel
from genmod.models import HVAE, Inference
from genmod.objectives import WarmUp
from genmod.priors import NestedPrior
from tests.oracles_vae import Tower, tower
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")


def both(oracle: Tower) -> list[LatentModel]:
    """The exact posterior in either order of inference."""
    return [oracle.bottom_up(), oracle.top_down()]


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_both_orders_of_inference_weigh_every_draw_the_same(levels: int) -> None:
    """The exact posterior gives ``log p(x)`` for each draw of all levels, bottom-up and top-down."""
    oracle = tower(levels)
    law = oracle.joint().law("x")
    x = law.sample((100,)) * 2
    for model in both(oracle):
        assert (model.log_weight(x) - law.log_prob(x)).abs().max() < 1e-10


@pytest.mark.parametrize("levels", [2, 3])
def test_nesting_is_tight_in_expectation_with_the_top_level_closed(levels: int) -> None:
    """Levels below the top cost log-ratios, the top by its KL; the mean is ``log p(x)``."""
    oracle = tower(levels)
    law = oracle.joint().law("x")
    x = law.sample((1,)).expand(20_000, -1)
    bound = oracle.bottom_up().elbo(x)
    kinds = {name: rate.kind for name, rate in bound.rates.items()}
    assert kinds.pop(f"z{levels}") is Kind.ANALYTIC
    assert set(kinds) == {f"z{i}" for i in range(1, levels)}
    assert set(kinds.values()) <= {Kind.MONTE_CARLO}
    assert_mean(bound.value, law.log_prob(x[0]), name="bottom-up ELBO")


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_alignment_is_tight_in_expectation_with_every_level_closed(levels: int) -> None:
    oracle = tower(levels)
    law = oracle.joint().law("x")
    x = law.sample((1,)).expand(20_000, -1)
    bound = oracle.top_down().elbo(x)
    (rate,) = bound.rates.values()
    assert rate.names == tuple(f"z{i}" for i in range(levels, 0, -1))
    assert rate.level[0].tolist() == list(range(levels, 0, -1))
    assert [level.name for level in bound.levels()] == list(rate.names)
    assert {level.kind for level in bound.levels()} == {Kind.ANALYTIC}
    assert_mean(bound.value, law.log_prob(x[0]), name="top-down ELBO")


def test_each_level_costs_the_information_that_x_gives_about_it() -> None:
    """``E KL_l = I(x; z_l | above) = 1/2 log det Cov(z_l | above) / det Cov(z_l | above, x)``;
    the levels add up to ``I(x; z_1)``, per dimension as well.
    """
    oracle = tower(3)
    joint = oracle.joint()
    x = joint.law("x").sample((40_000,))
    rate = oracle.top_down().elbo(x).rates["levels"]
    assert rate.per_dim is not None
    per_dim = dict(zip(rate.names or (), rate.per_dim, strict=True))
    total = torch.zeros(2)
    for level in (3, 2, 1):
        above = [] if level == 3 else [f"z{level + 1}"]
        prior = torch.ones(2) if level == 3 else oracle.r[level - 1].square()
        left = joint.given(f"z{level}", ["x", *above]).std.square()
        information = 0.5 * (prior / left).log()
        total = total + information
        assert_mean(per_dim[f"z{level}"], information, name=f"dimensions of z{level}")
    z1 = joint.law("z1").covariance_matrix.diagonal()
    torch.testing.assert_close(
        total, 0.5 * (z1 / joint.given("z1", ["x"]).std.square()).log(), rtol=1e-10, atol=0
    )


def test_samples_of_a_tower_have_its_moments() -> None:
    """Ancestral sampling from the top gives the marginal of ``x``, in both forms."""
    oracle = tower(3)
    law = oracle.joint().law("x")
    for model in both(oracle):
        x = model.sample(40_000)
        assert_mean(x, law.mean, name="mean")
        centered = x - law.mean
        assert_mean(
            centered[:, :, None] * centered[:, None], law.covariance_matrix, name="covariance"
        )


def test_codes_are_the_posterior_means_and_decode_to_the_reconstruction() -> None:
    """Top-down: ``E[z_3 | x]``, then ``E[z_2 | z_3, x]`` at that mean: all are ``E[z_l | x]``."""
    oracle = tower(3)
    joint = oracle.joint()
    x = joint.law("x").sample((10,))
    up, down = both(oracle)
    one, all_three = up.encode(x), down.encode(x)
    assert isinstance(one, torch.Tensor)
    assert isinstance(all_three, tuple)
    for z, level in zip(all_three, (3, 2, 1), strict=True):
        exact = joint.given(f"z{level}", ["x"])
        torch.testing.assert_close(z, x @ exact.weight.T + exact.bias)
    torch.testing.assert_close(one, all_three[-1])
    torch.testing.assert_close(up.decode(one).mean, up.reconstruct(x))
    torch.testing.assert_close(down.decode(all_three).mean, down.reconstruct(x))


# ---------------------------------------------------------------------- one line


@pytest.mark.parametrize("inference", list(Inference))
@pytest.mark.parametrize("latents", [(4,), (5, 3), (4, 3, 2, 2)])
def test_any_number_of_levels(inference: Inference, latents: tuple[int, ...]) -> None:
    """Each level has a rate and passes gradients; the sampled form has the bound's mean."""
    model = HVAE((1, 2, 2), 5, latents=latents, inference=inference, width=16)
    x = torch.randint(0, 5, (3, 1, 2, 2))
    bound = model.elbo(x)
    assert sorted(level.name for level in bound.levels()) == [
        f"z{i + 1}" for i in range(len(latents))
    ]
    assert bound.measure is Measure.MASS
    bound.value.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    many = x[:1].expand(4000, -1, -1, -1)
    paired = model.log_weight(many) - model.elbo(many).value
    assert_mean(paired.detach(), 0.0, name="two forms of one bound")
    assert model.sample(4).shape == (4, 1, 2, 2)
    assert model.reconstruct(x).shape == x.shape


def test_the_repr_of_a_hierarchy_is_its_formula() -> None:
    aligned = HVAE((4,), latents=(3, 2, 2), width=8, inference=Inference.TOP_DOWN)
    assert "q(z | x) = q(z3 | x) q(z2 | z3.., x) q(z1 | z2.., x)" in repr(aligned)
    assert "p(z) = p(z3) p(z2 | z3..) p(z1 | z2..)" in repr(aligned)
    nested = repr(HVAE((4,), latents=(3, 2), width=8))
    assert "p(z1) >= a bound, 3 dimensions" in nested


@pytest.mark.parametrize("latents", [(), (3, 0)])
def test_a_level_without_dimensions_is_refused(latents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"got latents=.*expected a positive size.*pass latents="):
        HVAE((4,), latents=latents)


def test_a_fixed_std_of_z1_stands_in_its_law_beside_means_of_one_scale() -> None:
    """p(z1 | z2) has that std; the means of q(z1 | x) average 0 with variance 1 in each row."""
    model = HVAE((6,), latents=(8, 4, 3), width=16, level_std=0.4)
    x = 100 * torch.randn(5, 6)
    q = model.encoder(x)
    assert isinstance(q, Normal)
    torch.testing.assert_close(q.mean.mean(1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(q.mean.var(1, correction=0), torch.ones(5), atol=1e-3, rtol=0)
    assert isinstance(model.prior, NestedPrior)
    inner = model.prior.model
    torch.testing.assert_close(inner.decode(torch.randn(5, 4)).stddev, torch.full((5, 8), 0.4))


def test_a_fixed_std_of_z1_keeps_z2_alive() -> None:
    """Ten clusters, with the warm-up at its end: with a predicted std, z2 may say nothing of them."""
    centers = 3 * torch.randn(10, 16)
    x = centers[torch.randint(10, (1000,))] + 0.3 * torch.randn(1000, 16)
    model = HVAE((16,), latents=(16, 2), width=32, level_std=0.5)
    fit(model, x, WarmUp(150), steps=200, batch_size=100, learning_rate=3e-3, progress=False)
    with torch.no_grad():
        assert model.elbo(x).rates["z2"].total.mean() > 1


@pytest.mark.parametrize("settings", [{"inference": "top-down"}, {"levels": 4}])
def test_a_fixed_std_of_z1_is_for_bottom_up(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"got level_std=0.5.*bottom-up.*leave it out"):
        HVAE((4,), width=8, level_std=0.5, **settings)


@pytest.mark.parametrize("latents", [(2, 2), (1, 4)])
def test_normalized_means_need_three_latents(latents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"got normalized=True.*at least 3.*use more latents"):
        HVAE((4,), width=8, latents=latents, level_std=0.5)


def test_a_fixed_std_needs_a_level_above() -> None:
    with pytest.raises(ValueError, match=r"got level_std=0.5 beside one level.*at least two"):
        HVAE((4,), width=8, latents=(4,), level_std=0.5)
