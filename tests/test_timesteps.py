r"""Ways to choose levels: each is unbiased for whatever is asked, in steps and in continuous time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.diffusion.timesteps import (
    LossAwareTimesteps,
    StratifiedTimesteps,
    TabulatedTimesteps,
    UniformTimesteps,
)
from genmod.models import Diffusion
from genmod.objectives import Batch, Bound, EDMWeight, MinSNR, SigmoidWeight, Simple, Weighted
from genmod.objectives.weighted import NoiseWeighted
from genmod.path import Timesteps, TimestepSampler
from genmod.schedules import Cosine, LinearLogSNR
from tests.oracles import bent, constant_noise, exact_diffusion, real, standard
from tests.statistics import assert_equal_means, assert_mean

pytestmark = pytest.mark.usefixtures("float64")

BINS = 8


def steep(u: Tensor) -> Tensor:
    """A cost with most of it at one end; its integral is (1 - exp(-9)) / 9."""
    return (-9 * u).exp()


def taught(draws: int = 1, bins: int = BINS) -> LossAwareTimesteps:
    """One that knows the steep cost from four thousand visits in continuous time."""
    visits = LossAwareTimesteps(draws, bins=bins, memory=1e6)
    u = torch.linspace(0, 1, 4001)[:-1, None]
    visits.update(u, torch.ones_like(u), steep(u))
    return visits


def ways() -> dict[str, Callable[[int], TimestepSampler]]:
    """Every way to choose."""
    return {
        "uniform": UniformTimesteps,
        "stratified": StratifiedTimesteps,
        "tabulated": lambda n: TabulatedTimesteps(torch.tensor([1.0, 5.0, 0.5, 2.0, 9.0]), n),
        "new": lambda n: LossAwareTimesteps(n, bins=BINS),
        "taught": lambda n: taught(n),
    }


@pytest.mark.parametrize("way", ways())
@pytest.mark.parametrize("draws", [1, 3])
def test_weighted_timesteps_integrate_any_function(way: str, draws: int) -> None:
    """Smooth, steep, and a jump inside a bin."""
    visits = ways()[way](draws)
    for f, expected in (
        (lambda u: 1 + u.square(), 4 / 3),
        (steep, -math.expm1(-9) / 9),
        (lambda u: (u > 0.3).double(), 0.7),
    ):
        # A batch is evenly covered, so only batches are independent.
        found = torch.stack(
            [(w * f(u)).sum(1).mean() for u, w in (visits(5, torch.float64) for _ in range(200))]
        )
        assert_mean(found, expected, name=way)


class Midpoints(TimestepSampler):
    """The middles of even pieces: quadrature, for what is smooth."""

    def forward(
        self, rows: int, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same for each row."""
        u = ((torch.arange(self.n) + 0.5) / self.n).expand(rows, -1)
        return u, torch.full_like(u, 1 / self.n)


@pytest.mark.parametrize("way", ways())
@pytest.mark.parametrize("steps", [6, 11, None])
def test_every_timestep_sampler_estimates_the_same_objective(way: str, steps: int | None) -> None:
    """With the noise held still: the full sum, and in continuous time an integral by quadrature.

    Fewer steps than bins, and more, that do not align.
    """
    model, visits = bent(steps, Cosine(clean=6.0, noisy=-4.0)), ways()[way](2)
    x = torch.tensor([[0.3, -1.0], [1.5, 0.2], [-0.6, 0.1]])
    objectives = (Bound(), Simple(), MinSNR(0.5), SigmoidWeight(-1.0), Weighted(torch.sigmoid))
    with torch.no_grad(), constant_noise(real(0.4, -0.7)):
        full = model.elbo(x, Midpoints(1000) if steps is None else None)
        few = [model.elbo(x, visits) for _ in range(40)]
    steps_part = full.rates["steps"]
    assert steps_part.noise is not None
    for objective in objectives:
        expected = objective.cost(full).mean()
        if isinstance(objective, NoiseWeighted):  # a mean over time, however many steps there are
            by_hand = (objective.weight(steps_part.noise.log_snr) * steps_part.noise.error).mean()
            torch.testing.assert_close(expected, by_hand)
        costs = torch.stack([objective.cost(elbo).mean() for elbo in few])
        assert_mean(costs, expected, name=f"{objective} {way}")


# ---------------------------------------------------------------------- what is learned


def test_the_density_is_the_root_of_the_second_moment() -> None:
    """Of a cost that is random inside each bin; nine tenths of it, the rest even."""
    visits = LossAwareTimesteps(bins=3, floor=0.1, memory=1e9)
    u = torch.rand(6000, 2)
    bin_of = (u * 3).long()
    cost = torch.tensor([1.0, 2.0, 6.0])[bin_of] * torch.where(torch.rand_like(u) < 0.5, 0.0, 2.0)
    second = torch.stack([cost[bin_of == k].square().mean() for k in range(3)])
    for rows in range(0, 6000, 50):
        level = u[rows : rows + 50]
        visits.update(level, torch.ones_like(level), cost[rows : rows + 50])
    expected = 0.9 * second.sqrt() / second.sqrt().sum() + 0.1 / 3
    torch.testing.assert_close(visits.masses(), expected, rtol=1e-9, atol=0)
    assert float(visits.visits.sum()) == 12000


def test_old_costs_decay() -> None:
    """After many visits at another cost, the first one counts ``exp(-visits / memory)``."""
    visits = LossAwareTimesteps(bins=2, memory=50.0)
    for cost in [1.0] * 500 + [3.0] * 100:
        visits.update(
            torch.tensor([[0.25, 0.75]]), torch.ones(1, 2), torch.tensor([[cost, 2 * cost]])
        )
    expected = 9 - 8 * math.exp(-100 / 50)
    torch.testing.assert_close(visits.moments, expected * torch.tensor([1.0, 4.0]))


@pytest.mark.parametrize("steps", [4, 7, 29])
def test_a_step_updates_every_bin_that_it_covers(steps: int) -> None:
    """Also where there are fewer steps than bins: the density is that of the cost as stairs."""
    visits = LossAwareTimesteps(bins=10, floor=1e-9, memory=1e9, least=1)
    t = (torch.arange(steps) + 1.0)[None] / steps
    for _ in range(10):
        visits.update(t, torch.full_like(t, 1 / steps), t)
    fine = (torch.arange(10 * steps * 4) + 0.5) / (40 * steps)
    stairs = ((fine * steps).floor() + 1) / steps
    second = stairs.square().reshape(10, -1).mean(1)
    torch.testing.assert_close(visits.masses(), second.sqrt() / second.sqrt().sum())


def test_visits_are_even_until_every_bin_is_known_and_never_rarer_than_the_floor() -> None:
    """Ten visits of each bin; then weights stay below one over the floor."""
    visits = LossAwareTimesteps(bins=4, floor=0.2)
    u = torch.tensor([[0.1, 0.4, 0.6]]).repeat(30, 1)
    visits.update(u, torch.ones_like(u), u)
    assert visits.masses().tolist() == [0.25] * 4
    last = torch.full((10, 1), 0.9)
    visits.update(last, torch.ones_like(last), torch.zeros_like(last))
    u, weight = visits(1000, torch.float64)
    assert float(visits.masses()[3]) == pytest.approx(0.05)
    assert float(weight.max()) == pytest.approx(5.0)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1


def test_a_cost_that_is_nan_is_ignored() -> None:
    """It stops training; a run that goes on must not draw from it."""
    visits = taught()
    before = visits.masses().clone()
    one = torch.full((1, 1), 0.5)
    visits.update(one, torch.ones(1, 1), torch.full((1, 1), math.inf))
    visits.update(one, torch.ones(1, 1), torch.full((1, 1), math.nan))
    assert torch.equal(visits.masses(), before)


def test_float32_places_stay_below_one_and_inside_their_bins() -> None:
    """Also where almost all mass is in one bin."""
    visits = TabulatedTimesteps(torch.tensor([1.0, 1e-12, 1e-12, 1.0]))
    u, weight = visits(100_001, torch.float32)
    assert float(u.max()) < 1
    assert bool(weight.isfinite().all())
    assert float(weight.mean()) == pytest.approx(0.5, abs=1e-4)  # two of four bins are hardly seen


# ---------------------------------------------------------------------- in an objective


def test_an_objective_updates_its_sampler_with_the_costs_of_its_levels() -> None:
    """In ``update`` alone, and exactly what a level costs in it: the same rows, by hand."""
    model, x = bent(None), torch.randn(64, 2)
    for make in (
        lambda v: MinSNR(2.0, v),
        lambda v: Weighted(torch.sigmoid, v),
        lambda v: Bound(v),
    ):
        visits, other = LossAwareTimesteps(bins=4), LossAwareTimesteps(bins=4)
        objective = make(visits)
        batch = Batch(x)
        with random.keyed(1):
            _, elbo = objective(model, batch)
        assert float(visits.visits.sum()) == 0
        objective.update(elbo.detach(), batch)
        assert float(visits.visits.sum()) == 64
        rate = elbo.rates["steps"]
        assert rate.noise is not None
        cost = {
            "MinSNR": (2 * (-rate.noise.log_snr).exp()).clamp(max=1) * rate.noise.error,
            "Weighted": rate.noise.log_snr.sigmoid() * rate.nats,
            "Bound": rate.nats,
        }[type(objective).__name__]
        other.update(rate.level, rate.noise.dt, cost.detach())
        torch.testing.assert_close(visits.moments, other.moments)


def test_a_model_without_levels_leaves_the_sampler_unchanged() -> None:
    """A diffusion of one latent has no step to choose."""
    visits = LossAwareTimesteps()
    batch, objective = Batch(torch.randn(4, 2)), Bound(visits)
    _, elbo = objective(Diffusion(2, steps=1, width=8), batch)
    objective.update(elbo.detach(), batch)
    assert float(visits.visits.sum()) == 0


def test_loss_aware_timesteps_lower_the_variance_of_a_steep_cost() -> None:
    """Of the bound under the cosine, whose gap grows towards both ends: the mean stays, noise does not."""
    model, visits = (
        exact_diffusion(standard(2), Cosine(clean=9.0, noisy=-9.0), None),
        LossAwareTimesteps(),
    )
    objective = Bound(visits).train()
    with torch.no_grad():
        for _ in range(30):
            batch = Batch(torch.randn(128, 2))
            objective.update(objective(model, batch)[1], batch)
        x = torch.randn(8, 2)

        def losses(draws: Timesteps) -> Tensor:
            bound = Bound(draws).eval()
            return torch.stack([bound(model, Batch(x))[0] for _ in range(60)])

        learned, strata = losses(visits), losses(StratifiedTimesteps())
    assert_equal_means(learned, strata)
    assert float(learned.var()) < 0.3 * float(strata.var())


def test_edm_samples_log_normal_noise_and_has_the_papers_weight() -> None:
    r"""``log sigma`` is N(-1.2, 1.2^2), and visit weight times weight is the paper's, at any schedule.

    :math:`\frac{\sigma^2 + \sigma_d^2}{(\sigma \sigma_d)^2} \|x - \hat x\|^2` is
    :math:`(1 + \sigma^2 / \sigma_d^2) \|\varepsilon - \hat\varepsilon\|^2`.
    """
    for schedule in (LinearLogSNR(20.0, -12.0), Cosine(clean=16.0, noisy=-12.0)):
        u, weight = EDMWeight.timestep_sampler(schedule, bins=4096)(20_000, torch.float64)
        log_snr = schedule.log_snr(u)
        log_sigma = (-0.5 * log_snr).flatten()
        # Even cover of the law: errors far below those of independent draws.
        assert float(log_sigma.mean()) == pytest.approx(-1.2, abs=2e-3)
        assert float(log_sigma.std()) == pytest.approx(1.2, abs=2e-3)
        inner = (log_snr > -3) & (log_snr < 8)
        paid = weight * EDMWeight().weight(log_snr) * 0.5 * -schedule.slope(u)
        sigma = (-0.5 * log_snr).exp()
        stated = (sigma.square() + 0.25) / (sigma.square() * 0.25) * sigma.square()
        torch.testing.assert_close(paid[inner], stated[inner], rtol=2e-2, atol=0)


def test_invalid_settings_are_refused() -> None:
    """Each names what to do instead."""
    with pytest.raises(ValueError, match="small mass instead"):
        TabulatedTimesteps(torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="floor=0"):
        LossAwareTimesteps(floor=0.0)
    with pytest.raises(ValueError, match="bins=1"):
        LossAwareTimesteps(bins=1)
    with pytest.raises(ValueError, match="memory=5"):
        LossAwareTimesteps(memory=5.0)
    with pytest.raises(ValueError, match="n=0"):
        UniformTimesteps(0)


def test_they_print_their_settings_and_not_what_they_learned() -> None:
    """A checkpoint remembers a run by this."""
    assert repr(taught()) == repr(LossAwareTimesteps(bins=BINS, memory=1e6))
    assert "floor=0.1" in repr(Bound(LossAwareTimesteps()))
    assert (
        repr(MinSNR(timesteps=UniformTimesteps(2)))
        == "MinSNR(\n  gamma=5.0\n  (timesteps): UniformTimesteps(n=2)\n)"
    )
