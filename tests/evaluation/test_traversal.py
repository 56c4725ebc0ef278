"""Traversals: order by KL, values that are quantiles, and a decoder that follows one unit alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from genmod.decoders import GaussianDecoder
from genmod.distributions import Normal
from genmod.encoders import GaussianEncoder
from genmod.evaluation import collapse, score, traverse
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion
from genmod.priors import LearnedGaussianPrior, MixturePrior, NormalPrior
from genmod.spec import Column, DataSpec
from tests.oracles_vae import affine, gaussian_head, tower

pytestmark = pytest.mark.usefixtures("float64")


def linear(mean: Tensor, std: Tensor, rows: Tensor) -> LatentModel:
    """``q(z | x) = N(mean x, std^2)`` and a decoder of mean ``rows z + 1``."""
    units = len(std)
    encoder = GaussianEncoder(gaussian_head(mean, torch.zeros(units), std), (units,))
    decoder = GaussianDecoder(affine(rows, torch.ones(len(rows))), (len(rows),), 0.5)
    return LatentModel(encoder, decoder, NormalPrior((units,)))


def test_units_are_ordered_by_their_kl_and_move_the_mean_by_their_column() -> None:
    r"""A linear decoder: moving unit ``j`` to ``v`` changes the mean by :math:`(v - z_j) w_j` exactly."""
    x = torch.randn(60, 3)
    mean = torch.tensor([[0.1, 0.0, 0.0], [1.0, 0.5, 0.0]])
    std, rows = torch.tensor([0.9, 0.3]), torch.randn(3, 2)
    model = linear(mean, std, rows)
    found = traverse(model, x, row=7, count=5)
    assert [unit.index for unit in found.units] == [1, 0]
    (level,) = collapse(model, x).levels
    assert level.per_unit is not None
    known = torch.tensor([unit.nats for unit in found.units])
    torch.testing.assert_close(known, level.per_unit[[1, 0]])
    torch.testing.assert_close(found.values, torch.linspace(-2, 2, 5).expand(2, 5))
    code = mean @ x[7]
    torch.testing.assert_close(found.center, rows @ code + 1)
    for place, unit in enumerate((1, 0)):
        step = (found.values[place] - code[unit])[:, None] * rows[:, unit]
        torch.testing.assert_close(found.means[place], found.center + step)
        assert found.changes is not None
        torch.testing.assert_close(found.changes[place], step / x.std(0, correction=0))


def test_values_are_quantiles_of_the_prior_or_of_the_aggregate_posterior() -> None:
    """Of a Gaussian by its formula, of a mixture by draws, of the aggregate posterior by draws of rows."""
    x = torch.randn(4000, 2)
    shifted = LearnedGaussianPrior((1,))
    with torch.no_grad():
        shifted.mean.fill_(3.0)
        shifted.log_std.fill_(math.log(0.5))
    model = VAE(2, latents=1, width=8, prior=shifted)
    torch.testing.assert_close(traverse(model, x[:9], count=3).values[0], torch.tensor([2.0, 3, 4]))
    mixed = MixturePrior(2, (1,))
    with torch.no_grad():
        for parameter in mixed.parameters():
            if parameter.ndim > 1 and parameter.shape == (2, 1):
                parameter.copy_(torch.tensor([[0.0], [0.0]]))
    values = traverse(VAE(2, latents=1, width=8, prior=mixed), x[:9], count=3).values[0]
    torch.testing.assert_close(values, torch.tensor([-2.0, 0.0, 2.0]), rtol=0, atol=0.15)
    gain, std = torch.tensor([[2.0, 0.0]]), torch.tensor([0.5])
    found = traverse(linear(gain, std, torch.randn(2, 1)), x, over="posterior", count=5)
    spread = math.sqrt(4 + 0.25)
    expected = spread * torch.linspace(-2, 2, 5)
    torch.testing.assert_close(found.values[0], expected, rtol=0, atol=0.25)


@pytest.mark.parametrize("order", ["bottom-up", "top-down"])
def test_levels_below_a_moved_one_follow_it(order: str) -> None:
    """Of an exact hierarchy z1 = a z2 + noise: moving z2 moves z1's mean, and keeps its own part."""
    exact = tower(3)
    x = exact.joint().law("x").sample((200,))
    model = exact.bottom_up() if order == "bottom-up" else exact.top_down()
    found = traverse(model, x, row=3, count=3, units=6)
    assert {unit.level for unit in found.units} == {"z1", "z2", "z3"}
    nats = [unit.nats for unit in found.units]
    assert nats == sorted(nats, reverse=True)
    torch.testing.assert_close(found.center, model.reconstruct(x[3:4])[0])
    gain = exact.joint().given("x", ["z2"]).weight
    only = traverse(model, x, row=3, count=3, level="z2")
    for place, unit in enumerate(only.units):
        step = (only.values[place, 2] - only.values[place, 0]) * gain[:, unit.index]
        torch.testing.assert_close(only.means[place, 2] - only.means[place, 0], step)


def test_the_nats_of_nested_units_add_up_to_the_rate_of_their_level() -> None:
    """Unit by unit, a log-ratio at draws: their sum is the rate of the level."""
    torch.manual_seed(0)
    model, x = HVAE(4, latents=(3, 2), inference="bottom-up", width=8), torch.randn(40, 4)
    found = traverse(model, x)
    for name, nats in score(model, x).rates.items():
        units = sum(unit.nats for unit in found.units if unit.level == name)
        assert units == pytest.approx(float(nats.mean()))
    assert len(found.units) == 5


def test_categories_move_by_the_probability_of_their_values() -> None:
    """In units of the standard deviation of the indicator; missing entries count nowhere."""
    columns = [Column("a", std=2.0), Column("color", "category", ("red", "green", "blue"))]
    spec = DataSpec((2,), columns=columns, missing=True)
    torch.manual_seed(0)
    model = VAE(spec, latents=1, width=8)
    for parameter in model.decoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.stack([torch.randn(50), torch.arange(50) % 3.0], 1)
    seen = torch.rand(50, 2) < 0.8
    found = traverse(model, x, observed=seen, count=3)
    again = traverse(model, torch.where(seen, x, torch.nan), observed=seen, count=3)
    torch.testing.assert_close(found.changes, again.changes)
    assert found.features == ("a", "color=red", "color=green", "color=blue")
    assert found.changes is not None
    known = x[seen[:, 1], 1]
    stds = torch.stack([(known == code).double().std(correction=0) for code in range(3)])
    # Probabilities add up to one, so that their changes add up to none.
    total = (found.changes[..., 1:] * stds).sum(-1)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-9)
    assert "color=" in str(found) or "a, " in str(found)


def test_an_autoencoder_is_traversed_over_its_codes() -> None:
    """By activity, because no unit has a rate."""
    torch.manual_seed(0)
    model, x = Autoencoder(3, latents=2, width=8), torch.randn(101, 3)
    found = traverse(model, x, over="posterior", count=3)
    codes = model.encode(x)
    assert isinstance(codes, Tensor)
    spread = codes.var(0, correction=0)
    assert [unit.index for unit in found.units] == spread.argsort(descending=True).tolist()
    median = codes.quantile(0.5, dim=0)[[unit.index for unit in found.units]]
    torch.testing.assert_close(found.values[:, 1], median)
    assert "activity" in found.labels[0]
    assert all(math.isnan(unit.nats) for unit in found.units)


@pytest.mark.usefixtures("as_users_run")
def test_bad_traversals_are_refused() -> None:
    model, x = VAE(2, latents=1, width=8), torch.randn(5, 2)
    with pytest.raises(ValueError, match="row=5 of 5 rows"):
        traverse(model, x, row=5)
    with pytest.raises(ValueError, match=r"over='postirior'.*did you mean"):
        traverse(model, x, over="postirior")
    with pytest.raises(ValueError, match="level='z2'"):
        traverse(model, x, level="z2")
    with pytest.raises(ValueError, match="count=1"):
        traverse(model, x, count=1)
    with pytest.raises(ValueError, match=r"flat prior.*over=.posterior."):
        traverse(Autoencoder(2, latents=1, width=8), x)
    with pytest.raises(ValueError, match="latents are noise"):
        traverse(Diffusion(2, steps=4, width=8), x)


def test_a_unit_without_factors_has_no_nats() -> None:
    """Of a mixture the log-ratio belongs to the whole latent."""
    found = traverse(VAE(2, latents=2, width=8, prior=MixturePrior(3)), torch.randn(30, 2))
    assert all(math.isnan(unit.nats) for unit in found.units)
    assert isinstance(NormalPrior((2,)).law(3), Normal)
