"""Importance-weighted training: one loss, three estimators of its gradient with one mean, and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Uniform,
)

from genmod import decoders, encoders, fit, random
from genmod.config.plain import from_plain, to_plain
from genmod.encoders import FlowEncoder, FullCovarianceEncoder
from genmod.model import LatentModel, Request
from genmod.models import (
    HVAE,
    VAE,
    Autoencoder,
    Diffusion,
    LatentDiffusion,
    with_probability_flow,
)
from genmod.objectives import IWAE, Batch, explain, importance
from genmod.objectives.importance import importance_bound
from genmod.path import Path
from genmod.priors import NormalPrior, VampPrior
from genmod.runs.config import RunConfig
from genmod.schedules import LinearLogSNR
from genmod.training import run
from genmod.training.compiled import compile_networks
from tests.oracles_vae import Conditional, FullGaussian, ppca, tower
from tests.statistics import assert_mean

pytestmark = pytest.mark.usefixtures("float64")

DREG, STL, AUTOGRAD = "doubly-reparameterized", "sticking-the-landing", "autograd"
MILD = LinearLogSNR(3.0, -3.0)


def jittered(model: LatentModel, scale: float = 0.1) -> LatentModel:
    """The model with a wider posterior, and other means, than its own."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model


def broad() -> LatentModel:
    """A linear VAE whose posterior is 1.4 times too broad, and off."""
    oracle = ppca()
    model = oracle.model(oracle.diagonal(1.4 * oracle.posterior.std))
    with torch.no_grad():
        dict(model.encoder.named_parameters())["network.bias"][:2] += 0.2
    return model


class LearnedGaussian(FullGaussian):
    """A Gaussian whose covariance is learned."""

    def __init__(self, law: Conditional) -> None:
        super().__init__(law)
        self.factor = nn.Parameter(self.tril)

    def forward(
        self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> MultivariateNormal:
        """The posterior of each row."""
        return MultivariateNormal(self.network(x), scale_tril=self.factor.tril())


def full() -> LatentModel:
    """A posterior with a full covariance, whose law is torch's."""
    oracle = ppca(orthogonal=False)
    law = oracle.posterior
    law.covariance = 1.5 * law.covariance
    return oracle.model(LearnedGaussian(law))


MODELS: dict[str, Callable[[], LatentModel]] = {
    "VAE": broad,
    "full covariance": full,
    "VampPrior": lambda: VAE(3, latents=2, width=4, prior=VampPrior(3)),
    "flow posterior": lambda: jittered(VAE(3, latents=2, width=4, encoder=FlowEncoder())),
    "bottom-up": lambda: jittered(tower(2).bottom_up()),
    "top-down": lambda: jittered(tower(2).top_down()),
    "shared top-down features": lambda: HVAE(3, latents=(2, 2), width=4, inference="top-down"),
    "very deep": lambda: jittered(HVAE(3, latents=2, levels=3, width=4), 0.05),
    "latent diffusion": lambda: LatentDiffusion(
        vae=VAE(3, latents=2, width=4), diffusion=Diffusion(2, steps=2, width=4, schedule=MILD)
    ),
}
every = pytest.mark.parametrize("name", MODELS)


def slopes(model: LatentModel, objective: IWAE, x: Tensor, seed: int) -> Tensor:
    """The gradient of the loss by all parameters, one after another."""
    torch.manual_seed(seed)
    loss, _ = objective(model, Batch(x))
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([each.flatten() for each in found])


def row(model: LatentModel, count: int) -> Tensor:
    """One row of data, ``count`` times."""
    return torch.linspace(-0.8, 1.1, model.spec.size).expand(count, -1)


# ---------------------------------------------------------------------- the loss


@every
@pytest.mark.parametrize("gradient", [DREG, AUTOGRAD])
def test_the_loss_is_minus_the_log_of_the_mean_weight(name: str, gradient: str) -> None:
    """Beside it stands the plain bound of the same draws, which is lower."""
    model, objective = MODELS[name](), IWAE(6, gradient)
    x = torch.randn(5, model.spec.size)
    with random.keyed(1):
        loss, elbo = objective(model, Batch(x))
    with random.keyed(1):
        path = model(x, Request(samples=6, needs_path=True))[1]
    assert path is not None
    weights = path.log_weight()
    expected = weights.exp().mean(0).log()
    torch.testing.assert_close(loss, -expected.mean(), rtol=1e-9, atol=1e-9)
    assert bool((expected >= weights.mean(0)).all())
    with random.keyed(1):
        plain = model(x, Request(samples=6))[0]
    torch.testing.assert_close(elbo.value, plain.value)


@pytest.mark.parametrize("kind", ["VAE", "bottom-up", "top-down"])
def test_an_exact_posterior_has_one_loss_and_no_gradient_of_q(kind: str) -> None:
    """Every weight is p(x): the loss is minus ``log p(x)`` at every K, and DReG is zero draw by draw."""
    if kind == "VAE":
        oracle = ppca()
        model, law = oracle.model(oracle.diagonal()), oracle.law
    else:
        levels = tower(3)
        model = levels.top_down() if kind == "top-down" else levels.bottom_up()
        law = levels.joint().law("x")
    x = law.sample((4,))
    for samples in (1, 2, 16):
        loss, _ = IWAE(samples)(model, Batch(x))
        torch.testing.assert_close(loss, -law.log_prob(x).mean(), rtol=0, atol=1e-9)
        found = torch.autograd.grad(loss, list(model.encoder.parameters()))
        assert max(float(each.abs().max()) for each in found) < 1e-9
    loss, _ = IWAE(4, AUTOGRAD)(model, Batch(x))
    found = torch.autograd.grad(loss, list(model.encoder.parameters()))
    assert max(float(each.abs().max()) for each in found) > 1e-3


def test_a_mask_of_rows_may_stand_inside_of_the_logarithm_and_a_scale_may_not() -> None:
    """``m log mean w = log mean w^m`` for 0 and 1; for a scale above 1 the right side is larger."""
    log_w = torch.randn(6, 4)
    plain = importance_bound(log_w)
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0])
    inside = (mask * log_w).exp().mean(0).log()
    torch.testing.assert_close(mask * plain, inside)
    torch.testing.assert_close(importance_bound(log_w, mask), inside)
    torch.testing.assert_close(importance_bound(log_w, mask.bool()), inside)
    assert bool(((3 * log_w).exp().mean(0).log() > 3 * plain).all())
    with pytest.raises(ValueError, match=r"a scale from 1 to 3 inside.*scale \* importance_bound"):
        importance_bound(log_w, torch.tensor([1.0, 3.0, 1.0, 1.0]))


def test_data_are_encoded_once_for_all_draws() -> None:
    """Of a Gaussian posterior and of a top-down one; laws that are not known are encoded in copies."""
    counted: list[int] = []
    x = torch.randn(4, 3)
    for model, expected in (
        (VAE(3, latents=2, width=4), [4]),
        (HVAE(3, latents=(2, 2), width=4, inference="top-down"), [4]),
        (VAE(3, latents=2, width=4, encoder=FullCovarianceEncoder()), [4]),
        (VAE(3, latents=2, width=4, encoder=FlowEncoder(width=8)), [4]),
        (full(), [4, 20]),
    ):
        counted.clear()
        model.encoder.register_forward_pre_hook(lambda _, given: counted.append(len(given[0])))
        IWAE(5)(model, Batch(torch.randn(4, model.spec.size) if model.spec.size != 3 else x))
        assert counted == expected


# ---------------------------------------------------------------------- three estimators of one gradient


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        *((name, 4) for name in MODELS if name != "flow posterior"),
        *(("VAE", 1), ("VAE", 16), ("top-down", 1)),
        pytest.param("flow posterior", 4, marks=pytest.mark.slow),
    ],
)
def test_the_doubly_reparameterized_gradient_has_the_mean_of_autograd(
    name: str, samples: int
) -> None:
    """For all parameters: of q, of p, and those that both share; the decoder's at every draw."""
    model = MODELS[name]()
    # A flow has thousands of parameters: more batches, so that their means are nearer to normal.
    rows, batches = (32, 64) if name == "flow posterior" else (128, 16)
    x = row(model, rows)
    doubly, plain = IWAE(samples), IWAE(samples, AUTOGRAD)
    pairs = [(slopes(model, doubly, x, s), slopes(model, plain, x, s)) for s in range(batches)]
    assert_mean(torch.stack([a - b for a, b in pairs]), 0.0, name=name)
    assert bool((pairs[0][0] - pairs[0][1]).abs().max() > 1e-6)
    names = [n for n, p in model.named_parameters() for _ in range(p.numel())]
    own = torch.tensor([n.startswith("decoder") for n in names])
    torch.testing.assert_close(pairs[0][0][own], pairs[0][1][own], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["VAE", "bottom-up"])
def test_sticking_the_landing_is_right_at_one_draw_and_biased_at_more(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At K = 1 it is the doubly reparameterized gradient. At K = 4 its weights would not be squared."""
    model = MODELS[name]()
    x = row(model, 256)
    alike = slopes(model, IWAE(1, STL), x, 0), slopes(model, IWAE(1), x, 0)
    torch.testing.assert_close(*alike, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"'sticking-the-landing' with samples=4.*doubly-repar"):
        IWAE(4, STL)

    def landing(path: Path, log_p: Tensor, log_q: Tensor) -> Tensor:
        weight = (log_p - log_q).detach().softmax(0)
        assert path.draws is not None
        return importance._through_draws(path.draws, log_p - log_q, weight)

    monkeypatch.setattr(importance, "doubly_reparameterized", landing)
    biased = [slopes(model, IWAE(4), x, s) for s in range(16)]
    monkeypatch.undo()
    right = [slopes(model, IWAE(4), x, s) for s in range(16)]
    own = torch.tensor([
        n.startswith("encoder") for n, p in model.named_parameters() for _ in range(p.numel())
    ])  # fmt: skip
    with pytest.raises(AssertionError, match="standard errors"):
        assert_mean(torch.stack(biased)[:, own] - torch.stack(right)[:, own], 0.0)


@pytest.mark.parametrize("name", ["VAE", "VampPrior"])
def test_one_pass_through_one_latent_equals_the_two_passes_of_many(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shortcut for a Gaussian latent, against the route that hierarchies take."""
    model = MODELS[name]()
    x = row(model, 8)
    short = slopes(model, IWAE(5), x, 0)
    monkeypatch.setattr(importance, "Normal", MultivariateNormal)
    torch.testing.assert_close(slopes(model, IWAE(5), x, 0), short, rtol=1e-9, atol=1e-11)


def test_recomputed_activations_have_the_same_gradient() -> None:
    """Levels that are computed again in each of the two backward passes."""
    kept, again = (
        HVAE(3, latents=2, levels=3, width=4, checkpoint_activations=saved)
        for saved in (False, True)
    )
    again.load_state_dict(jittered(kept).state_dict())
    x = torch.randn(8, 3)
    with random.keyed(0):
        first = slopes(kept, IWAE(3), x, 0)
    with random.keyed(0):
        torch.testing.assert_close(slopes(again, IWAE(3), x, 0), first, rtol=1e-9, atol=1e-12)


def test_near_the_optimum_the_noise_of_q_is_far_smaller() -> None:
    """The posterior 2 % too broad: the variance of DReG falls with the distance, autograd's does not."""
    oracle = ppca()
    model = oracle.model(oracle.diagonal(1.02 * oracle.posterior.std))
    x = oracle.law.sample((1,))
    own = slice(0, sum(p.numel() for p in model.encoder.parameters()))
    for samples in (1, 8):
        doubly, plain = (
            torch.stack([slopes(model, IWAE(samples, g), x, s)[own] for s in range(25)]).var(0)
            for g in (DREG, AUTOGRAD)
        )
        assert float(doubly.sum()) < 0.02 * float(plain.sum())


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize(
    "build",
    [
        lambda: VAE(3, latents=2, width=8),
        lambda: HVAE(3, latents=(2, 2), width=8),
        lambda: HVAE(3, latents=(2, 2), width=8, inference="top-down"),
        lambda: Diffusion(3, steps=3, width=8, schedule=MILD),
    ],
)
def test_fit_trains_on_it_with_the_true_bound_beside(build: Callable[[], LatentModel]) -> None:
    """From losses of its own; the bound in the history is the plain one, and lies below."""
    x = torch.randn(64, 3) * torch.tensor([1.0, 0.2, 2.0])
    model = build()
    history = fit(model, x, IWAE(8), steps=15, batch_size=64, learning_rate=1e-2, progress=False)
    losses = history.losses
    assert losses[-1] < losses[0]
    with torch.no_grad(), random.keyed(0):
        loss, elbo = IWAE(8)(model, Batch(x))
    assert loss < -elbo.value.mean() + 0.1


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_run")
def test_compiled_networks_allow_its_two_backward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as the default compiler traces them; a hierarchy needs both passes."""
    monkeypatch.setattr(run, "compile_networks", partial(compile_networks, backend="aot_eager"))
    x = torch.randn(16, 3)
    settings: dict[str, Any] = {"steps": 3, "batch_size": 16, "progress": False}
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = HVAE(3, latents=(2, 2), width=8, inference="top-down")
        losses.append(fit(model, x, IWAE(3), compile=compiled, **settings).losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_settings_come_back_from_files_and_from_the_command() -> None:
    again = from_plain(to_plain(IWAE(7, AUTOGRAD)))
    assert isinstance(again, IWAE)
    assert (again.samples, str(again.gradient)) == (7, AUTOGRAD)
    assert repr(again) == "IWAE(samples=7, gradient='autograd')"
    settings = {"data": "digits", "model": "vae", "training": {"objective": "IWAE(4)", "steps": 2}}
    objective = RunConfig.of(settings).arguments()["objective"]
    assert repr(objective) == "IWAE(samples=4, gradient='doubly-reparameterized')"


# ---------------------------------------------------------------------- refusals


class Box(encoders.Encoder):
    """A uniform posterior, whose edges are its parameters."""

    def __init__(self) -> None:
        super().__init__(3)
        self.network = nn.Linear(3, 2)

    def forward(
        self, x: Tensor, context: Tensor | None = None, observed: Tensor | None = None
    ) -> Distribution:
        """A box around each mean."""
        mean = self.network(x)
        return Independent(Uniform(mean - 1, mean + 1), 1)


def test_what_has_no_importance_weights_is_refused() -> None:
    x = torch.randn(8, 3)
    point = VAE(
        encoder=encoders.DiracEncoder(nn.Linear(3, 2), (2,), 3),
        decoder=decoders.GaussianDecoder(nn.Linear(2, 3), (3,), 1.0),
        prior=NormalPrior((2,)),
        latents=2,
    )
    flow = with_probability_flow(Diffusion(3, width=8), 4, probes=2)
    for model, words in (
        (Autoencoder(3, latents=2, width=8), "Dirac.*use a VAE"),
        (point, "Dirac.*GaussianEncoder"),
        (flow, "stochastic trace.*probes=None"),
        (Diffusion(3, width=8), "continuous time.*steps=T"),
    ):
        with pytest.raises(ValueError, match=f"IWAE.*{words}"):
            IWAE(4).check(model)
        with pytest.raises(ValueError, match=words):
            fit(model, x, IWAE(4), steps=1, progress=False)
    for samples in (0, -3):
        with pytest.raises(ValueError, match=f"samples={samples}; expected at least 1"):
            IWAE(samples)
    with pytest.raises(ValueError, match="gradient='dreg'; expected one of 'autograd'"):
        IWAE(4, "dreg")
    with pytest.raises(ValueError, match="no draws of the latents"):
        explain(IWAE(4), MILD)


def test_a_support_that_parameters_move_is_refused() -> None:
    """The second reparameterization would miss the edge; the plain derivative does not."""
    model = LatentModel(
        Box(), decoders.GaussianDecoder(nn.Linear(2, 3), (3,), 1.0), NormalPrior((2,))
    )
    x = Batch(torch.randn(4, 3))
    with pytest.raises(ValueError, match=r"Uniform of prior, whose support.*gradient='autograd'"):
        IWAE(4)(model, x)
    loss, _ = IWAE(4, AUTOGRAD)(model, x)
    loss.backward()
    with torch.no_grad():
        assert math.isfinite(float(IWAE(4)(model, x)[0]))
