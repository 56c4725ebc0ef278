"""Objectives that keep latents alive: each is its formula, holds its constraint, and refuses by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal
from torch.distributions import Normal as TorchNormal

from genmod import ELBO, Measure, random, training_loop
from genmod.distributions import Normal
from genmod.evaluation import linear_forecast
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.objectives import (
    GECO,
    Batch,
    Beta,
    BetaTC,
    Bound,
    CapacityTarget,
    FreeBits,
    Objective,
    WarmUp,
)
from genmod.objectives.total_correlation import aggregate_weights, total_correlation
from genmod.priors.simple import DistributionPrior
from genmod.runs.config import RunConfig
from genmod.training import fit
from tests.oracles_vae import FullGaussian, ppca

pytestmark = pytest.mark.usefixtures("float64")


def rows(count: int = 32) -> Tensor:
    return torch.randn(count, 5)


def hierarchy(order: str) -> HVAE:
    torch.manual_seed(3)
    model = HVAE(5, latents=(3, 2), inference=order, width=8)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.4)
    return model


def loss(objective: Objective, model: LatentModel, x: Tensor) -> tuple[Tensor, ELBO]:
    """The loss and the bound on always the same noise."""
    with random.keyed(3):
        return objective(model, Batch(x, rows=100))


BOTH = pytest.mark.parametrize("order", ["bottom-up", "top-down"])

# ---------------------------------------------------------------------- schedules


@BOTH
def test_a_cyclical_warm_up_rises_and_stays_in_every_cycle(order: str) -> None:
    """Two cycles of six steps: up in three, full for three; afterwards it is the bound."""
    model, x, warm = hierarchy(order), rows(), WarmUp(12, cycles=2)
    thirds = [1 / 3, 2 / 3, 1.0, 1.0, 1.0, 1.0]
    for weight in [*thirds, *thirds, 1.0, 1.0]:
        value, elbo = loss(warm, model, x)
        torch.testing.assert_close(value, loss(Beta(weight), model, x)[0], rtol=1e-6, atol=1e-6)
        assert torch.equal(elbo.value, loss(Bound(), model, x)[1].value)
        warm.update(elbo.detach(), Batch(x))


def test_a_ramp_of_one_is_a_saw_and_cycles_need_not_divide_the_steps() -> None:
    """Seven steps in two cycles of three and a half: the second one starts at step five."""
    saw = WarmUp(7, cycles=2, ramp=1.0)
    found = [float(saw.weight(torch.tensor(step))) for step in range(1, 9)]
    expected = [1 / 3.5, 2 / 3.5, 3 / 3.5, 1.0, 1.5 / 3.5, 2.5 / 3.5, 1.0, 1.0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for wrong in ({"cycles": 0}, {"cycles": 8}, {"ramp": 0.0}, {"ramp": 1.5}):
        with pytest.raises(ValueError, match=r"got .*; expected .*; "):
            WarmUp(7, **wrong)


@BOTH
@pytest.mark.parametrize("nats", [8.0, 1e4])
def test_the_capacity_rises_linearly_and_is_kept_from_both_sides(order: str, nats: float) -> None:
    model, x, target = hierarchy(order), rows(), CapacityTarget(nats, steps=4, weight=50.0)
    for step in range(1, 7):
        value, elbo = loss(target, model, x)
        rate = (elbo.reconstruction - elbo.value).mean()
        aim = nats * min(1.0, step / 4)
        expected = 50 * (rate - aim).abs() - elbo.reconstruction.mean()
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(elbo.value, loss(Bound(), model, x)[1].value)
        target.update(elbo.detach(), Batch(x))
    assert target.warmup_steps == 4


# ---------------------------------------------------------------------- free bits


@pytest.mark.parametrize("per_dimension", [False, True])
def test_free_bits_are_the_larger_of_nats_and_the_mean_rate_of_each_group(
    per_dimension: bool,
) -> None:
    """Of a top-down hierarchy each level is a group, or each of its dimensions."""
    model, x = hierarchy("top-down"), rows()
    plain, elbo = loss(Bound(), model, x)
    levels = elbo.rates["levels"]
    assert levels.per_dim is not None
    groups = torch.cat([each.mean(0) for each in levels.per_dim])
    if not per_dimension:
        groups = levels.nats.mean(0)
    nats = (
        float(groups.detach().sort().values[len(groups) // 2]) - 1e-3
    )  # some are below, some above
    value, _ = loss(FreeBits(nats, per_dimension), model, x)
    torch.testing.assert_close(value, groups.clamp(min=nats).sum() - elbo.reconstruction.mean())
    assert value > plain
    least, _ = loss(FreeBits(1e-9, per_dimension), model, x)
    torch.testing.assert_close(least, plain)


def test_a_group_below_its_free_bits_is_trained_by_the_reconstruction_alone() -> None:
    model, x = hierarchy("top-down"), rows()
    loss(FreeBits(1e6), model, x)[0].backward()
    free = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    loss(Beta(0.0), model, x)[0].backward()
    plain = [p.grad for p in model.parameters() if p.grad is not None]
    assert any(bool(each.abs().sum() > 0) for each in free)
    torch.testing.assert_close(free, plain)


def mixture() -> MixtureSameFamily:
    parts = Independent(TorchNormal(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.ones(2, 2)), 1)
    return MixtureSameFamily(Categorical(torch.ones(2)), parts)


def test_free_bits_refuse_a_rate_that_is_sampled() -> None:
    """Nested levels before the first step; another sampled rate at the first batch. Both name the fix."""
    for model in (hierarchy("bottom-up"), LatentDiffusion(5, latents=2, width=8)):
        with pytest.raises(ValueError, match=r"nested latents .*closed form.*WarmUp.*top-down"):
            fit(model, rows(), FreeBits(0.5), steps=1, progress=False, stages="joint")
    sampled = VAE(5, latents=2, prior=mixture(), width=8)
    with pytest.raises(ValueError, match=r"'prior', which is sampled.*closed form.*WarmUp"):
        fit(sampled, rows(), FreeBits(0.5), steps=1, progress=False)
    with pytest.raises(ValueError, match=r"noise levels 'steps'.*cannot collapse"):
        loss(FreeBits(0.5), Diffusion(5, width=8), rows())


def test_free_bits_of_dimensions_need_their_nats() -> None:
    """A posterior with full covariance has one KL for all dimensions."""
    exact = ppca(5, 2, orthogonal=False)
    prior = DistributionPrior(MultivariateNormal(torch.zeros(2), torch.eye(2)))
    model = LatentModel(FullGaussian(exact.posterior), exact.decoder(), prior)
    loss(FreeBits(0.5), model, rows())
    with pytest.raises(ValueError, match=r"'prior' without nats for each dimension"):
        loss(FreeBits(0.5, per_dimension=True), model, rows())


# ---------------------------------------------------------------------- GECO


@BOTH
def test_geco_raises_its_multiplier_until_the_reconstruction_reaches_the_target(order: str) -> None:
    """By hand: the moving average, the clip, and the loss at each multiplier."""
    model, x = hierarchy(order), rows()
    elbo = loss(Bound(), model, x)[1].detach()
    found = elbo.reconstruction.mean()
    over = float(found) - 50  # beyond the target it falls faster
    for target, clipped in (
        (float(found) + 50, 1.0),
        (float(found) - 0.25, -0.25),
        (over, -10.0),
    ):
        geco = GECO(target, step_size=0.1, decay=0.5)
        for step in range(4):
            value, _ = loss(geco, model, x)
            rate = sum(each.total.mean() for each in elbo.rates.values())
            weight = math.exp(0.1 * clipped * step)
            torch.testing.assert_close(
                value, rate + weight * (target - found), rtol=1e-6, atol=1e-6
            )
            geco.update(elbo, Batch(x))
    average = GECO(float(found), step_size=0.1, decay=0.5)
    better = ELBO(elbo.reconstruction + 0.8, elbo.rates, elbo.measure)
    for each in (elbo, better, better):  # constraints 0, -0.8, -0.8: averages 0, -0.4, -0.6
        average.update(each, Batch(x))
    torch.testing.assert_close(average.log_multiplier, torch.tensor(-0.1), rtol=1e-9, atol=1e-9)


def test_geco_ends_in_the_beta_vae_whose_reconstruction_was_asked_for() -> None:
    """A linear VAE that is always at its optimum: the error of beta = 2 ends at a multiplier of 1/2."""
    x, std = torch.randn(256, 3) * torch.tensor([2.0, 1.0, 0.5]), 0.5

    def reconstruction(beta: float) -> float:
        error = linear_forecast(x, beta=beta).squared_error(std**2)
        return -1.5 * math.log(2 * math.pi * std**2) - error / (2 * std**2)

    geco = GECO(reconstruction(2.0), step_size=0.1, decay=0.5)
    for _ in range(200):
        value = torch.full((4,), reconstruction(1 / float(geco.multiplier)))
        geco.update(ELBO(value, {}, Measure.DENSITY), Batch(x))
    torch.testing.assert_close(geco.multiplier, torch.tensor(0.5), rtol=1e-3, atol=0.0)


# ---------------------------------------------------------------------- total correlation


def posteriors(count: int = 6) -> tuple[Normal, Tensor]:
    q = Normal(
        torch.randn(count, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]), torch.randn(count, 2)
    )
    return q, q.sample()


def test_the_whole_data_as_one_batch_give_the_total_correlation_itself() -> None:
    """Stratified, against the aggregate posterior as a mixture, joint and of each dimension."""
    q, z = posteriors()
    uniform = Categorical(torch.ones(6))
    joint = MixtureSameFamily(uniform, Independent(TorchNormal(q.loc, q.stddev), 1)).log_prob(z)
    each = [
        MixtureSameFamily(uniform, TorchNormal(q.loc[:, d], q.stddev[:, d])).log_prob(z[:, d])
        for d in range(2)
    ]
    found = total_correlation(q, z, 6, stratified=True)
    torch.testing.assert_close(found, (joint - sum(each)).mean())


def test_the_stratified_aggregate_is_unbiased_over_all_batches() -> None:
    """At a draw of row 0, over all batches of three rows of six that hold it; the others are too small."""
    q, z = posteriors()
    density = Normal(q.loc, q.log_std).elementwise(z[:1].expand(6, 2)).sum(1).exp()
    batches = torch.tensor([(0, *others) for others in combinations(range(1, 6), 2)])
    stratified, equal = (
        (aggregate_weights(3, 6, kind)[0] * density[batches]).sum(1).mean()
        for kind in (True, False)
    )
    torch.testing.assert_close(stratified, density.mean())
    assert equal < density.mean()


@pytest.mark.parametrize("stratified", [False, True])
def test_beta_tc_adds_the_weighted_total_correlation_to_the_bound(stratified: bool) -> None:
    torch.manual_seed(3)
    model, x = VAE(5, latents=2, width=8), rows()
    bound, elbo = loss(Bound(), model, x)
    one, found = loss(BetaTC(1.0, stratified), model, x)
    torch.testing.assert_close(found.value, elbo.value)
    torch.testing.assert_close(one, bound)
    twice, thrice = (loss(BetaTC(beta, stratified), model, x)[0] for beta in (2.0, 3.0))
    with random.keyed(3):
        q = model.posterior(x)
        assert isinstance(q, Normal)
        z = q.rsample()
    expected = total_correlation(q, z, 100, stratified)
    torch.testing.assert_close(twice - bound, expected)
    torch.testing.assert_close(thrice - bound, 2 * expected)


def test_a_weight_on_the_total_correlation_makes_a_rotated_latent_independent() -> None:
    """Rotations of the latent of a linear VAE share a reconstruction. This one has correlated codes."""
    x = torch.randn(256, 2) * torch.tensor([2.0, 0.7])
    angle = torch.tensor(0.6)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
    spread = torch.full((256, 2), -1.5)
    straight, turned = (Normal(code, spread) for code in (x, x @ turn))
    noise = spread.exp() * torch.randn(256, 2)
    for stratified in (False, True):
        plain = total_correlation(straight, straight.loc + noise, 256, stratified)
        mixed = total_correlation(turned, turned.loc + noise, 256, stratified)
        assert mixed > plain + 0.1


def test_beta_tc_refuses_what_has_no_total_correlation() -> None:
    others: list[LatentModel] = [hierarchy("bottom-up"), hierarchy("top-down")]
    for model in (*others, Diffusion(5, width=8, steps=4)):
        with pytest.raises(ValueError, match=r"BetaTC on a model with a .*one latent.*Beta"):
            fit(model, rows(), BetaTC(2.0), steps=1, progress=False)
    with pytest.raises(ValueError, match=r"MixtureSameFamily; expected one latent"):
        fit(
            VAE(5, latents=2, prior=mixture(), width=8),
            rows(),
            BetaTC(2.0),
            steps=1,
            progress=False,
        )
    plain = VAE(5, latents=2, width=8)
    with pytest.raises(ValueError, match=r"unknown length.*number of rows.*Batch\(x, rows=...\)"):
        fit(plain, batches(), BetaTC(2.0), steps=1, progress=False)
    with pytest.raises(ValueError, match=r"batch of 1 rows of 100; expected at least two"):
        BetaTC(2.0)(plain, Batch(rows(1), rows=100))
    with pytest.raises(ValueError, match=r"batch of 8 rows of 4"):
        BetaTC(2.0)(plain, Batch(rows(8), rows=4))


def batches() -> list[Tensor]:
    return [rows(8), rows(8)]


# ---------------------------------------------------------------------- all of them

LIVE: dict[str, Callable[[], Objective]] = {
    "cyclical": lambda: WarmUp(6, cycles=2),
    "capacity": lambda: CapacityTarget(3.0, 4),
    "free bits": lambda: FreeBits(0.5),
    "geco": lambda: GECO(-3.0),
    "total correlation": lambda: BetaTC(3.0),
}


@pytest.mark.parametrize("name", LIVE)
def test_it_trains_through_fit_on_the_device_and_logs_the_true_bound(name: str) -> None:
    torch.manual_seed(3)
    model, x = VAE(5, latents=2, width=8), rows()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for step in training_loop(model, x, LIVE[name](), steps=4, batch_size=16, progress=False):
        assert math.isfinite(step.loss)
        assert step.bound == pytest.approx(float(step.elbo.value.mean()))
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("name", [name for name in LIVE if name != "cyclical"])
def test_an_autoencoder_has_no_rate_to_keep(name: str) -> None:
    with pytest.raises(ValueError, match=r"on Autoencoder, whose prior is flat.*use VAE"):
        fit(Autoencoder(5, latents=2, width=8), rows(), LIVE[name](), steps=1, progress=False)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("warm-up", {"steps": 100, "cycles": 4}),
        ("capacity-target", {"nats": 10.0, "steps": 100}),
        ("free-bits", {"nats": 0.5, "per_dimension": True}),
        ("geco", {"reconstruction": -90.0}),
        ("beta-tc", {"beta": 4.0}),
    ],
)
def test_the_command_knows_it_by_name(name: str, settings: dict[str, object]) -> None:
    """``genmod train ... --objective NAME --set training.objective.SETTING=...``."""
    training = {"objective": {"class": name, **settings}}
    found = RunConfig.of({"data": "digits", "model": "vae", "training": training}).arguments()
    objective = found["objective"]
    assert isinstance(objective, Objective)
    assert {key: vars(objective)[key] for key in settings} == settings


def test_settings_out_of_range_are_refused() -> None:
    for build in (
        lambda: FreeBits(0.0),
        lambda: FreeBits(math.inf),
        lambda: CapacityTarget(-1.0, 10),
        lambda: CapacityTarget(1.0, 0),
        lambda: CapacityTarget(1.0, 10, weight=0.0),
        lambda: GECO(math.nan),
        lambda: GECO(-1.0, step_size=0.0),
        lambda: GECO(-1.0, decay=1.0),
        lambda: BetaTC(-1.0),
    ):
        with pytest.raises(ValueError, match=r"got .*; expected .*; "):
            build()
