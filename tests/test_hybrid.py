r"""The hybrid objective: two gradients that do not meet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genmod import random
from genmod.diffusion import DiffusionPrior, FixedLarge, LearnedInterpolation
from genmod.diffusion.bound import Steps, step_rate
from genmod.diffusion.noising import NoisingPosterior
from genmod.models import VAE, Diffusion, LatentDiffusion
from genmod.nn import DenoisingMLP
from genmod.objectives import Batch, Bound, Hybrid, Objective, Simple

pytestmark = pytest.mark.usefixtures("float64")

SHAPE = (2, 3)


class Halves(nn.Module):
    """Two networks side by side: one predicts the mean, the other the variance."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = DenoisingMLP(SHAPE, width=8, depth=1)
        self.spread = DenoisingMLP(SHAPE, width=8, depth=1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """The halves, one after another in the first dimension of the event."""
        return torch.cat([self.mean(z, log_snr), self.spread(z, log_snr)], 1)


def gradients(
    objective: Objective, net: Halves, draws_of: int = 9
) -> tuple[list[Tensor], list[Tensor]]:
    """What an objective's loss wants of the mean and of the variance, on always the same noise."""
    model = Diffusion(SHAPE, denoiser=net, steps=draws_of, variance=LearnedInterpolation())
    net.zero_grad()
    with random.keyed(3):
        loss, _ = objective(model, Batch(torch.linspace(-1, 1, 48).view(8, *SHAPE)))
    loss.backward()

    def of(part: nn.Module) -> list[Tensor]:
        return [
            torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in part.parameters()
        ]

    return of(net.mean), of(net.spread)


@pytest.mark.parametrize("draws", [1, 3])
def test_the_mean_learns_as_by_simple_and_the_variance_as_by_the_bound(draws: int) -> None:
    """Parameter by parameter: the mean's gradient is ``Simple``'s, the variance's 0.001 ``Bound``'s."""
    net = Halves()
    mean, spread = gradients(Hybrid(timesteps=draws), net)
    mean_alone, nothing = gradients(Simple(draws), net)
    _, spread_alone = gradients(Bound(draws), net)
    for a, b in zip(mean, mean_alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert all(float(g.abs().max()) == 0 for g in nothing)
    assert any(float(g.abs().max()) > 0 for g in spread)
    for a, b in zip(spread, spread_alone, strict=True):
        torch.testing.assert_close(a, 0.001 * b, rtol=1e-10, atol=1e-14)


def test_the_hybrid_is_the_sum_of_its_parts() -> None:
    """In value: ``Simple`` plus ``w`` times the nats of the steps; they are the bound's own nats."""
    net, x = Halves(), torch.linspace(-1, 1, 48).view(8, *SHAPE)
    model = Diffusion(SHAPE, denoiser=net, steps=9, variance=LearnedInterpolation())
    with random.keyed(3):
        loss, bound = Hybrid(0.25, 2)(model, Batch(x))
    with random.keyed(3):
        simple, _ = Simple(2)(model, Batch(x))
    steps = bound.rates["steps"]
    torch.testing.assert_close(loss, simple + 0.25 * steps.total.mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(steps.noise.variance_nats, steps.nats, rtol=0, atol=0)


def test_recomputed_activations_leave_both_gradients_as_they_are() -> None:
    """Steps whose activations are recomputed, as when every level is visited, or kept."""
    net = Halves()
    model = Diffusion(SHAPE, denoiser=net, steps=5, variance=LearnedInterpolation())
    assert isinstance(model.prior, DiffusionPrior)
    q = model.encoder(torch.linspace(-1, 1, 24).view(4, *SHAPE))
    assert isinstance(q, NoisingPosterior)
    times = torch.linspace(0, 1, 5).expand(4, -1)
    t, s = times[:, 1:], times[:, :-1]
    found = []
    for recomputed in (False, True):
        net.zero_grad()
        with random.keyed(5):
            rate = step_rate(q, model.prior.reverse, Steps(t, s, torch.ones_like(t), recomputed))
        rate.total.mean().backward()
        found.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert len(found[0]) == len(list(net.parameters()))
    for a, b in zip(*found, strict=True):
        assert float(a.abs().max()) > 0
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_a_model_with_nothing_to_learn_there_is_refused() -> None:
    """No learned variance, no steps, an encoder that learns; the error names the alternative."""
    x = torch.zeros(2, *SHAPE)
    for variance in (None, FixedLarge()):
        model = Diffusion(SHAPE, steps=5, variance=variance, width=8)
        with pytest.raises(ValueError, match="LearnedInterpolation"):
            Hybrid()(model, Batch(x))
    with pytest.raises(ValueError, match="without denoising steps"):
        Hybrid()(VAE(SHAPE, latents=2, width=8), Batch(x))
    with pytest.raises(ValueError, match="a model whose encoder learns"):
        Hybrid().check(LatentDiffusion(SHAPE, latents=2, width=8))
    with pytest.raises(ValueError, match="weight=0"):
        Hybrid(0.0)
