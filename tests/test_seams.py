"""Where parts meet that were built apart: samplers, schedules, objectives, conditions, checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genmod import random
from genmod.denoisers import GaussianDenoiser, Guided
from genmod.diffusion import (
    Analytic,
    FixedLarge,
    LearnedInterpolation,
)
from genmod.diffusion.timesteps import LossAwareTimesteps
from genmod.evaluation import flow_bound
from genmod.models import Diffusion, LatentDiffusion, with_denoiser
from genmod.nn import Labels
from genmod.objectives import (
    Batch,
    Bound,
    Hybrid,
    LearnedSchedule,
    Objective,
    SigmoidWeight,
    Simple,
    Weighted,
)
from genmod.samplers import (
    DDIM,
    IPNDM,
    Ancestral,
    DPMSolver,
    Euler,
    Heun,
    Sampler,
    StochasticHeun,
    UniformLogSNR,
    UniPC,
)
from genmod.schedules import (
    Cosine,
    Laplace,
    LinearBeta,
    LogNormal,
    MonotoneNetwork,
    Schedule,
    ZeroTerminalSNR,
)
from genmod.training import training_loop

F64 = torch.float64
ZERO = ZeroTerminalSNR(LinearBeta(1000))


def gaussian() -> GaussianDenoiser:
    """The optimum for two correlated numbers."""
    return GaussianDenoiser(
        torch.zeros(2, dtype=F64), torch.tensor([[1.0, 0.5], [0.5, 0.6]]).to(F64)
    )


# ------------------------------------------------------------------ pure noise at the end

SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "large": Ancestral(variance=FixedLarge()),
    "analytic": Ancestral(variance=Analytic()),
    "euler": Euler(),
    "heun": Heun(),
    "stochastic": StochasticHeun(),
    "ddim": DDIM(eta=0.5),
    "dpm2": DPMSolver(order=2),
    "dpm3": DPMSolver(order=3),
    "sde": DPMSolver(order=2, sde=True),
    "unipc": UniPC(order=3),
    "ipndm": IPNDM(),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_float32_is_enough_from_pure_noise_on(name: str) -> None:
    """From a log-SNR of -40: half precision of double costs less than a thousandth, noise and all."""
    sampler, times = SAMPLERS[name], UniformLogSNR().times(ZERO, 60)
    start = torch.randn(64, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    ends = []
    for dtype in (torch.float32, torch.float64):
        with random.seeded(range(64)):
            ends.append(_end(sampler, times, start.to(dtype)))
    single, double = ends
    # Noise of the two types is not the same: those that draw are compared in spread alone.
    if sampler.stochastic:
        assert (single.std(0) / double.std(0)).log().abs().max() < 0.6
    else:
        torch.testing.assert_close(single.double(), double, atol=1e-3, rtol=0)
        assert 0.7 < float(double.std(0)[0]) < 1.3


def _end(sampler: Sampler, times: Tensor, z: Tensor) -> Tensor:
    return sampler.bind(gaussian().to(z.dtype), ZERO).run(z, times)


@pytest.mark.parametrize("schedule", [ZERO, LogNormal(), Laplace(), Cosine()], ids=repr)
def test_codes_come_back_under_schedules_with_steep_ends(schedule: Schedule) -> None:
    """Encoding and decoding solve one ODE both ways, and data N(0, S) become N(0, I) codes.

    In even times the first step falls so far that the state comes back up to 0.2 off.
    """
    x = (
        torch.randn(200, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
        @ torch.linalg.cholesky(torch.tensor([[1.0, 0.5], [0.5, 0.6]], dtype=F64)).T
    )
    model = Diffusion(2, denoiser=gaussian(), schedule=schedule).double()
    q = model.diffusion.noising(model.posterior(x))
    schedule = model.diffusion.schedule
    code = model.encode(x)
    assert isinstance(code, torch.Tensor)
    start = q.at(torch.zeros(len(x), dtype=F64)).mean
    times = UniformLogSNR().times(schedule, model.diffusion.resolution)
    back = Heun(model.diffusion.denoiser, schedule, published=True).run(code, times)
    torch.testing.assert_close(back, start, atol=2e-3, rtol=0)
    # In closed form: the flow whitens along the axes of S.
    values, vectors = torch.linalg.eigh(torch.tensor([[1.0, 0.5], [0.5, 0.6]], dtype=F64))
    clean, noisy = (torch.tensor(end, dtype=F64) for end in schedule.log_snr_range())
    low, high = (end.sigmoid() * values + (-end).sigmoid() for end in (clean, noisy))
    exact = ((start @ vectors) * (high / low).sqrt()) @ vectors.T
    torch.testing.assert_close(code, exact, atol=5e-3, rtol=0)


# ------------------------------------------------------------------ one line with everything


def test_a_conditional_diffusion_with_a_learned_variance_trains_and_samples() -> None:
    """One line builds it; Hybrid trains both halves; guided, it still says its variance."""
    torch.manual_seed(0)
    model = Diffusion(2, width=16, condition=Labels(10), variance=LearnedInterpolation(), steps=12)
    x, labels = torch.randn(32, 2), torch.arange(32) % 10
    loss, _ = Hybrid()(model, Batch(x, labels))
    loss.backward()
    assert all(p.grad is not None for p in model.prior.parameters())
    for sampler in (None, DPMSolver(order=2), Ancestral(variance=LearnedInterpolation())):
        drawn = model.sample(3, labels[:3], sampler=sampler, seeds=[5, 6, 7])
        again = model.sample(1, labels[1:2], sampler=sampler, seeds=[6])
        torch.testing.assert_close(drawn[1:2], again)
    guided = with_denoiser(model, lambda d: Guided(d, 3.0))
    assert bool(guided.sample(3, labels[:3]).isfinite().all())
    found = flow_bound(model, x[:4], labels[:4], steps=4)
    assert math.isfinite(found.report.value.mean)


def test_a_latent_diffusion_with_all_of_it() -> None:
    """Condition, learned variance, guidance and any sampler, a row's seed giving the row."""
    torch.manual_seed(0)
    inner = Diffusion(3, width=16, condition=Labels(4), variance=LearnedInterpolation(), steps=8)
    vae = LatentDiffusion(2, latents=3, width=16, condition=Labels(4)).first_stage()
    model = LatentDiffusion(vae=vae, diffusion=inner)
    x, labels = torch.randn(8, 2), torch.arange(8) % 4
    model.freeze(x, labels)
    assert bool(model.elbo(x, context=labels, timesteps=None).value.isfinite().all())
    guided = with_denoiser(model, lambda d: Guided(d, 2.0))
    for each in (model, guided):
        drawn = each.sample(2, labels[:2], sampler=UniPC(), steps=4, seeds=[1, 2])
        alone = each.sample(1, labels[1:2], sampler=UniPC(), steps=4, seeds=[2])
        torch.testing.assert_close(drawn[1:], alone)


def test_a_sampler_on_a_chain_of_one_latent_is_refused() -> None:
    model = Diffusion(2, width=8, steps=1)
    assert model.sample(3).shape == (3, 2)
    with pytest.raises(ValueError, match="one latent"):
        model.sample(3, sampler=Euler())


# ------------------------------------------------------------------ objectives and visits


def test_hybrid_teaches_the_timestep_sampler_its_own_cost() -> None:
    """The sampler receives ``c`` with ``sum_j w_j c_j`` the cost, as from every objective."""
    model = Diffusion(2, width=8, variance=LearnedInterpolation(), steps=9)
    objective = Hybrid(weight=0.3, timesteps=LossAwareTimesteps(2))
    elbo = model.elbo(torch.randn(6, 2), timesteps=objective.timesteps)
    steps = elbo.rates["steps"]
    told = (steps.weight * objective.per_level(steps)).sum(-1)
    torch.testing.assert_close(told, objective.cost(elbo))


@pytest.mark.parametrize(
    "inner",
    [Bound(2), Weighted(torch.sigmoid, 2), SigmoidWeight(0.0, 2)],
    ids=repr,
)
def test_a_schedule_is_learned_beside_weights_of_the_bound(inner: Objective) -> None:
    """Those whose mean no schedule changes; not those whose mean follows it."""
    model = Diffusion(2, width=8, schedule=MonotoneNetwork(features=4))
    objective = LearnedSchedule(inner)
    objective.check(model)
    loss, _ = objective(model, Batch(torch.randn(5, 2)))
    loss.backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    with pytest.raises(ValueError, match="Simple"):
        LearnedSchedule(Simple())


def test_a_run_with_a_learned_schedule_and_importance_visits_resumes(tmp_path: Path) -> None:
    """Stopped and resumed is not having stopped: schedule, visits and weights are all in the file."""
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))

    def run(path: Path | None, stop: int) -> tuple[dict[str, Tensor], Objective]:
        torch.manual_seed(1)
        model = Diffusion(2, width=8, schedule=MonotoneNetwork(features=4))
        objective = LearnedSchedule(Bound(LossAwareTimesteps(2, bins=4, least=2.0)))
        for step in training_loop(
            model,
            x,
            objective,
            steps=9,
            batch_size=16,
            checkpoint=path,
            checkpoint_every=4,
            progress=False,
        ):
            if step.number == stop:
                break
        return model.state_dict(), objective

    whole, learned = run(None, 9)
    path = tmp_path / "run.safetensors"
    run(path, 5)
    resumed, again = run(path, 9)
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0)
    assert isinstance(learned.timesteps, LossAwareTimesteps)
    assert isinstance(again.timesteps, LossAwareTimesteps)
    assert float(learned.timesteps.visits.sum()) > 0
    torch.testing.assert_close(again.timesteps.moments, learned.timesteps.moments, rtol=0, atol=0)
    assert all(
        "schedule" not in n
        or not torch.equal(t, MonotoneNetwork(features=4).state_dict()[n.split(".")[-1]])
        for n, t in whole.items()
    )
