"""Objectives: each is the formula it says, on the noise it was given; none reaches a part it must not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod import ELBO, Measure, Stamp, random
from genmod.denoisers import Learned, NoiseTarget
from genmod.elbo import Kind, Rate
from genmod.model import LatentModel
from genmod.models import HVAE, VAE, Autoencoder, Diffusion, LatentDiffusion
from genmod.nn import DenoisingMLP
from genmod.objectives import Batch, Beta, Bound, Objective, Simple, WarmUp, Weighted
from genmod.objectives.base import broken_terms
from genmod.random.streams import stratified
from genmod.schedules import Cosine, LinearLogSNR, Schedule
from tests.statistics import assert_equal_means

pytestmark = pytest.mark.usefixtures("float64")

SHAPE = (2, 3)


def rows(count: int = 32) -> Tensor:
    """Data of two times three real numbers."""
    return torch.randn(count, *SHAPE)


def network() -> DenoisingMLP:
    """A denoiser's network whose output is not zero (a new one's is)."""
    net = DenoisingMLP(SHAPE, width=16, depth=1)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def noise_diffusion(steps: int | None = None, schedule: Schedule | None = None) -> Diffusion:
    """A diffusion whose network predicts the noise."""
    return Diffusion(
        SHAPE, denoiser=Learned(network(), NoiseTarget()), steps=steps, schedule=schedule
    )


def models() -> dict[str, Callable[[], LatentModel]]:
    """One of each family."""
    return {
        "vae": lambda: VAE(SHAPE, latents=2, width=8),
        "hvae": lambda: HVAE(SHAPE, latents=(3, 2), width=8),
        "autoencoder": lambda: Autoencoder(SHAPE, latents=2, width=8),
        "diffusion": lambda: Diffusion(SHAPE, denoiser=network()),
        "discrete diffusion": lambda: Diffusion(SHAPE, denoiser=network(), steps=9),
        "latent diffusion": lambda: LatentDiffusion(SHAPE, latents=2, width=8),
    }


def loss(objective: Objective, model: LatentModel, x: Tensor) -> tuple[Tensor, ELBO]:
    """The loss and the bound on always the same noise."""
    with random.keyed(3):
        value, bound = objective(model, Batch(x))
    assert value.ndim == 0
    return value, bound


@pytest.mark.parametrize("family", models())
def test_the_bound_is_minus_the_mean_value_and_so_are_its_limits(family: str) -> None:
    """Beta(1) and a weight of one are the bound: the weight of one bit for bit."""
    model, x = models()[family](), rows()
    bound, elbo = loss(Bound(), model, x)
    assert torch.equal(bound, -elbo.value.mean())
    torch.testing.assert_close(loss(Beta(1.0), model, x)[0], bound, rtol=1e-13, atol=1e-13)
    assert torch.equal(loss(Weighted(torch.ones_like), model, x)[0], bound)


@pytest.mark.parametrize("family", models())
@pytest.mark.parametrize("beta", [0.0, 0.25, 4.0])
def test_beta_weighs_every_rate(family: str, beta: float) -> None:
    """Minus the reconstruction plus beta times each rate; the bound beside it stays the true one."""
    model, x = models()[family](), rows()
    value, elbo = loss(Beta(beta), model, x)
    expected = -elbo.reconstruction
    for rate in elbo.rates.values():
        expected = expected + beta * (rate.weight * rate.nats).sum(-1)
    torch.testing.assert_close(value, expected.mean(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(elbo.value, loss(Bound(), model, x)[1].value, rtol=0, atol=0)


def test_a_warm_up_is_a_beta_that_rises_in_training_alone() -> None:
    """After n of N batches the rates cost n / N, and from N on they have weight 1."""
    model, x = models()["hvae"](), rows()
    warm = WarmUp(4)
    for n in range(1, 7):
        expected, _ = loss(Beta(min(1.0, n / 4)), model, x)
        value, elbo = loss(warm, model, x)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
        warm.update(elbo.detach(), Batch(x))
    late = WarmUp(4).eval()
    free, _ = loss(Beta(0.0), model, x)
    for _ in range(2):
        torch.testing.assert_close(loss(late, model, x)[0], free, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="steps=0"):
        WarmUp(0)


def test_weights_reach_the_levels_and_nothing_else() -> None:
    """A weight of 1 + 1 on every level adds the steps part once more."""
    model, x = noise_diffusion(), rows()
    bound, elbo = loss(Bound(3), model, x)
    twice, _ = loss(Weighted(lambda log_snr: 2 * torch.ones_like(log_snr), 3), model, x)
    torch.testing.assert_close(twice - bound, elbo.rates["steps"].total.mean(), rtol=1e-12, atol=0)
    steep, _ = loss(Weighted(torch.sigmoid, 3), model, x)
    steps = elbo.rates["steps"]
    assert steps.noise is not None
    weighted = (steps.noise.log_snr.sigmoid() * steps.nats).mean(-1).mean()
    rest = bound - steps.total.mean()
    torch.testing.assert_close(steep, rest + weighted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("draws", [1, 4])
def test_simple_is_the_squared_error_of_the_noise_by_hand(draws: int) -> None:
    """Noise the rows, ask the network what the noise was, and square the difference."""
    model, x = noise_diffusion(), rows()
    found, _ = loss(Simple(draws), model, x)
    with random.keyed(3):
        t = stratified(len(x), draws, torch.float64)
        eps = torch.stack([random.normal((len(x), *SHAPE)) for _ in range(draws)], 1)
    assert isinstance(model.prior.denoiser, Learned)
    total = 0.0
    for level in range(draws):
        log_snr = 13.3 - 18.3 * t[:, level]
        alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
        z = alpha[:, None, None] * x + sigma[:, None, None] * eps[:, level]
        guess = model.prior.denoiser.network(z, log_snr)
        total = total + (eps[:, level] - guess).square().flatten(1).sum(1).mean() / draws
    torch.testing.assert_close(found, torch.as_tensor(total), rtol=1e-9, atol=0)


def test_under_a_linear_schedule_simple_is_the_steps_part_of_the_bound() -> None:
    """The gap is then one constant: the steps cost ``1/2 gap`` times Simple."""
    model, x = noise_diffusion(schedule=LinearLogSNR(9.0, -4.0)), rows()
    simple, elbo = loss(Simple(2), model, x)
    steps = elbo.rates["steps"].total.mean()
    torch.testing.assert_close(steps, 0.5 * 13.0 * simple, rtol=1e-12, atol=0)


def test_simple_is_a_weight_of_two_over_the_gap() -> None:
    r"""Under the lecture's cosine the gap is :math:`4 w \cosh(\lambda / 2)`, ``w`` its angle's width."""
    schedule = Cosine()
    width = schedule.rise
    model, x = noise_diffusion(schedule=schedule), rows()

    def weight(log_snr: Tensor) -> Tensor:
        return 2 / (4 * width * torch.cosh(log_snr / 2))

    simple, elbo = loss(Simple(3), model, x)
    weighted, _ = loss(Weighted(weight, 3), model, x)
    rest = (elbo.rates["prior"].total - elbo.reconstruction).mean()
    torch.testing.assert_close(weighted - rest, simple, rtol=1e-9, atol=0)


def test_one_level_or_all_of_them_is_the_same_simple_in_the_mean() -> None:
    """Of a diffusion of six latents: stratified levels against the full sum."""
    model, x = noise_diffusion(steps=6), rows(16)

    def repeated(objective: Objective) -> Tensor:
        with torch.no_grad():
            return torch.stack([objective(model, Batch(x))[0] for _ in range(80)])

    assert_equal_means(repeated(Simple(1)), repeated(Simple(None)), name="L_simple")


# ---------------------------------------------------------------------- what must not be trained


@pytest.mark.parametrize("objective", [Simple(), Weighted(torch.ones_like)], ids=["simple", "w"])
def test_a_reweighted_loss_is_kept_from_an_encoder_that_learns(objective: Objective) -> None:
    """It would teach the encoder to hide information; frozen, or fixed by design, is fine."""
    x, latent = rows(), LatentDiffusion(SHAPE, latents=2, width=8)
    for model in (VAE(SHAPE, latents=2, width=8), latent):
        with pytest.raises(
            ValueError, match=f"{type(objective).__name__} on a model whose encoder"
        ):
            objective.check(model)
    objective.check(latent.freeze(x))
    objective.check(noise_diffusion())
    Bound().check(latent)
    Beta(4.0).check(VAE(SHAPE, latents=2, width=8))


def test_simple_needs_steps() -> None:
    """A model without denoising steps, or a diffusion of one latent, has no such error."""
    for model in (VAE(SHAPE, latents=2, width=8), Diffusion(SHAPE, steps=1, width=8)):
        with pytest.raises(ValueError, match="without denoising steps"):
            Simple()(model, Batch(rows()))


def test_the_second_stage_trains_the_prior_alone() -> None:
    """No gradient reaches a frozen part; under the plain bound, unfrozen, every part gets one."""
    x, model = rows(), LatentDiffusion(SHAPE, latents=2, width=8)
    joint, _ = loss(Bound(), model, x)
    joint.backward()
    # A new denoiser's last layer is zero, which lets no gradient further down than itself.
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert any(bool(p.grad.abs().sum() > 0) for p in model.prior.parameters() if p.grad is not None)
    model.zero_grad()
    model.freeze(x)
    for objective in (Bound(), Simple(), Weighted(torch.sigmoid)):
        second, _ = loss(objective, model, x)
        second.backward()
        fixed = [p for part in model.fixed() for p in part.parameters()]
        assert all(p.grad is None for p in fixed)
        learned = [p for p in model.prior.parameters() if p.grad is not None]
        assert any(bool((p.grad.abs().sum() > 0).item()) for p in learned if p.grad is not None)
        model.zero_grad()


# ---------------------------------------------------------------------- what they say


@pytest.mark.parametrize("beta", [-0.1, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(beta: float) -> None:
    """Negative, infinite, not a number."""
    with pytest.raises(ValueError, match="beta >= 0"):
        Beta(beta)


def test_an_objective_prints_what_tells_it_from_others() -> None:
    assert repr(Beta(0.1 + 0.2, 3)) == "Beta(beta=0.30000000000000004, timesteps=3)"
    assert repr(Bound()) == "Bound()"
    assert repr(Bound(timesteps=None)) == "Bound(timesteps=None)"


def test_broken_terms_are_named() -> None:
    """Each term that is NaN or infinite for some row, and no other."""
    fine, wrong = torch.zeros(2), torch.tensor([0.0, math.nan])
    rates = {
        "z1": Rate.single(fine, Kind.ANALYTIC, Stamp.BOUND),
        "z2": Rate.single(wrong, Kind.ANALYTIC, Stamp.BOUND),
        "z3": Rate.single(torch.tensor([math.inf, 0.0]), Kind.MONTE_CARLO, Stamp.BOUND),
    }
    assert broken_terms(ELBO(fine, rates, Measure.MASS)) == ["z2", "z3"]
    assert broken_terms(ELBO(-wrong, {}, Measure.MASS)) == ["reconstruction"]
    assert broken_terms(ELBO(fine, {}, Measure.MASS)) == []
