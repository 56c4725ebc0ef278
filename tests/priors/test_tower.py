r"""A diffusion is a hierarchical VAE: ``T = 3`` latents against a tower of one-latent models.

The tower is the lecture's: :math:`q(z_1|x)\,q(z_2|z_1)\,q(z_3|z_2)` bottom-up, by nesting; the
diffusion scores the same joint top-down.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genmod.decoders import Decoder
from genmod.diffusion import DiffusionPrior
from genmod.diffusion.reverse import ReverseProcess
from genmod.distributions import Normal
from genmod.elbo import Kind
from genmod.encoders import Encoder
from genmod.model import LatentModel
from genmod.priors import NestedPrior
from genmod.priors import NormalPrior as StandardNormal
from genmod.schedules import Schedule
from tests.oracles import MILD, bent, exact_diffusion, log_weight_at, over_signs, real, standard
from tests.statistics import assert_equal_means, assert_mean


class Forward(Encoder):
    """``q(z_t | z_s)``: one step of the lecture's noising; from ``x`` where ``s`` is None."""

    def __init__(self, schedule: Schedule, s: float | None, t: float) -> None:
        super().__init__()
        alpha, sigma = (float(v) for v in schedule.scales(real(t)))
        if s is not None:
            near_alpha, near_sigma = (float(v) for v in schedule.scales(real(s)))
            alpha = alpha / near_alpha
            sigma = (sigma**2 - (alpha * near_sigma) ** 2) ** 0.5
        self.alpha, self.sigma = alpha, sigma

    def forward(
        self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> Normal:
        """Scaled, and noised by what the step adds."""
        return Normal(self.alpha * x, torch.full_like(x, self.sigma).log())

    def formula(self) -> str:
        """As on paper."""
        return "q(z_t | z_s)"


class Reverse(Decoder):
    """``p(z_s | z_t)``: one step of the chain."""

    def __init__(self, reverse: ReverseProcess, t: float, s: float) -> None:
        super().__init__((2,))
        self.reverse, self.t, self.s = reverse, t, s

    def forward(self, state: Tensor, context: Tensor | None = None) -> Normal:
        """The chain's own law."""
        rows = len(state)
        return self.reverse.law(state, real(self.t).expand(rows), real(self.s).expand(rows))

    def formula(self) -> str:
        """As on paper."""
        return "p(z_s | z_t)"


def tower(diffusion: LatentModel) -> LatentModel:
    """The same model with ``T = 3`` as models of one latent, each the prior of the one below."""
    prior = diffusion.prior
    assert isinstance(prior, DiffusionPrior)
    schedule, reverse = prior.schedule, prior.reverse
    top = StandardNormal((2,), name="z3")
    second = LatentModel(Forward(schedule, 0.5, 1.0), Reverse(reverse, 1.0, 0.5), top)
    first = LatentModel(
        Forward(schedule, 0.0, 0.5), Reverse(reverse, 0.5, 0.0), NestedPrior(second, name="z2")
    )
    bottom = Forward(schedule, None, 0.0)
    return LatentModel(bottom, diffusion.decoder, NestedPrior(first, name="z1")).double()


def test_at_the_same_latents_the_tower_is_the_diffusion() -> None:
    """``log p(x, z) - log q(z | x)`` at latents that both are given, far from likely ones too."""
    torch.manual_seed(0)
    x = 2 * torch.randn(50, 2, dtype=torch.float64)
    latents = {f"z{i}": 1.5 * torch.randn_like(x) for i in (1, 2, 3)}
    diffusion = bent(3)
    a = log_weight_at(diffusion, x, latents)
    b = log_weight_at(tower(diffusion), x, latents)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-10)


def test_the_log_ratio_of_a_path_is_the_sampled_rate() -> None:
    """``Path.log_ratio`` is the sampled form at its own draws: the drawn latents, weighed again, agree."""
    torch.manual_seed(0)
    diffusion = bent(3)
    x = torch.randn(20, 2, dtype=torch.float64)
    for model in (diffusion, tower(diffusion)):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            state, walked = model.prior.draw_path(model.encoder(x))
        torch.manual_seed(5)
        latents = {}
        path = model.prior.infer(model.encoder(x))
        level = next(path)
        while level is not None:
            if level.q is not None:
                latents[level.name] = level.q.rsample()
            try:
                level = path.send(latents[level.name])
            except StopIteration:
                break
        whole = walked.log_ratio()[0] + model.decoder(state).log_prob(x)
        torch.testing.assert_close(whole, log_weight_at(model, x, latents), rtol=1e-12, atol=1e-10)


def test_in_the_mean_the_tower_is_the_diffusion() -> None:
    """Closed KLs against log-ratios along another order of the same path, at one ``x``, z-tested."""
    torch.manual_seed(0)
    diffusion, x = bent(3), real(0.7, -1.2).expand(40_000, 2)
    a, b = diffusion.elbo(x), tower(diffusion).elbo(x)
    assert {rate.kind for rate in a.rates.values()} == {Kind.ANALYTIC}
    assert [b.rates[n].kind for n in ("z1", "z2")] == [Kind.MONTE_CARLO, Kind.MONTE_CARLO]
    assert_equal_means(a.value, b.value)
    assert_equal_means(a.value, diffusion.log_weight(x))
    assert_equal_means(a.value, tower(diffusion).log_weight(x))


def test_the_mean_of_the_sampled_form_is_the_closed_one_exactly() -> None:
    """With a linear denoiser the closed form's expectation has no noise left to test against."""
    torch.manual_seed(0)
    diffusion, x = exact_diffusion(standard(2), MILD, 3), real(0.7, -1.2)[None]
    exact = over_signs(real(1.0, 1.0), lambda: diffusion.elbo(x).value)
    rows = x.expand(40_000, 2)
    assert_mean(diffusion.log_weight(rows), float(exact))
    assert_mean(tower(diffusion).log_weight(rows), float(exact))


@pytest.mark.parametrize("rows", [1, 4])
def test_samples_of_the_tower_follow_the_same_descent(rows: int) -> None:
    """One key, one order (top down): sample for sample the same draws."""
    diffusion = bent(3)
    torch.manual_seed(3)
    a = diffusion.sample(rows)
    torch.manual_seed(3)
    torch.testing.assert_close(a, tower(diffusion).sample(rows))
