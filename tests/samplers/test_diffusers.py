"""Step for step what diffusers' schedulers give, for the same network outputs and the same noise.

A table of 1000 betas; their integer timestep ``i`` is our ``t = i / 999``. Their steps from the cleanest
latent to "data" (a log-SNR of infinity) have no counterpart: here that step is the decoder's.

Their tables are rounded to float32, so they are given the float64 ones, once both have been compared.
Some of their schedulers cast the state to float32 at each step; only there is the comparison as coarse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from genmod import random
from genmod.denoisers import DataTarget, Learned, NoiseTarget, Target, VelocityTarget
from genmod.diffusion import FixedLarge, FixedSmall
from genmod.diffusion.variances import ReverseVariance
from genmod.samplers import DDIM, Ancestral, DPMSolver, Euler, Heun, Sampler, StochasticHeun, UniPC
from genmod.schedules import LinearBeta
from tests.oracles import F64

schedulers = pytest.importorskip("diffusers.schedulers")
# Theirs: they convert tensors to arrays in a way that numpy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TABLE = LinearBeta(1000)
STEPS = [10, 25]
TARGETS = {"epsilon": NoiseTarget(), "sample": DataTarget(), "v_prediction": VelocityTarget()}
Next = Callable[[Tensor, Any, Tensor], Tensor]


class Network(nn.Module):
    """A fixed function, neither linear nor optimal, that depends on the noise level."""

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """As many numbers a row as the state has."""
        level = torch.tanh(log_snr / 5)[:, None, None, None]
        return 0.7 * torch.tanh(1.3 * z + 0.4 * level) + 0.2 * level * z.roll(1, -1)


NETWORK = Network()


def noise(seed: int = 0) -> Tensor:
    """A first state."""
    return torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=F64)


def log_snr(timesteps: Tensor) -> Tensor:
    """The table's entries."""
    return TABLE.table[timesteps.long()]


def build(name: str, spacing: str = "leading", **settings: Any) -> Any:
    """One of their schedulers on our table, nothing clipped."""
    common = {"num_train_timesteps": 1000, "beta_schedule": "linear", "timestep_spacing": spacing}
    made = getattr(schedulers, name)(beta_start=1e-4, beta_end=0.02, **common, **settings)
    torch.testing.assert_close(
        made.alphas_cumprod.double(), TABLE.table.sigmoid(), rtol=1e-5, atol=1e-6
    )
    made.alphas_cumprod = TABLE.table.sigmoid()
    return made


def theirs(scheduler: Any, times: Tensor, z: Tensor, advance: Next) -> list[Tensor]:
    """Their states after each of the given timesteps, variance preserving."""
    states = []
    for t in times:
        out = NETWORK(z, log_snr(t).expand(len(z)))
        z = advance(out, t, z)
        states.append(z)
    return states


def ours(sampler: Sampler, target: Target, timesteps: Tensor, z: Tensor) -> list[Tensor]:
    """Our states after each step between the given timesteps."""
    bound = sampler.bind(Learned(NETWORK, target), TABLE)
    with torch.no_grad():
        return list(bound.path(z, timesteps.double() / 999))


def agree(a: list[Tensor], b: list[Tensor], rtol: float = 1e-9) -> None:
    """Every state of two paths, and none is missing."""
    assert len(a) == len(b) > 0
    for one, other in zip(a, b, strict=True):
        assert bool(one.isfinite().all())
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol)


@contextmanager
def shared_noise(seed: int = 3, dtype: torch.dtype = F64) -> Iterator[torch.Generator]:
    """A generator for them, and ours drawing from one of the same seed."""
    ours, its = (torch.Generator().manual_seed(seed) for _ in range(2))

    def normal(shape: tuple[int, ...], kind: torch.dtype, device: torch.device) -> Tensor:
        return torch.randn(shape, generator=ours, dtype=dtype).to(kind)

    with patch.object(random.streams, "normal", normal):
        yield its


# ---------------------------------------------------------------------- the tables


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "UniPCMultistepScheduler"])
def test_the_tables_are_theirs(name: str) -> None:
    """Every beta and every cumulated alpha, to 1e-6."""
    theirs = getattr(schedulers, name)(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    kept = TABLE.table.sigmoid()
    betas = 1 - kept / torch.cat([torch.ones(1, dtype=F64), kept[:-1]])
    torch.testing.assert_close(theirs.betas.double(), betas, rtol=0, atol=1e-6)
    torch.testing.assert_close(theirs.alphas_cumprod.double(), kept, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------- chains


@pytest.mark.parametrize("count", STEPS)
@pytest.mark.parametrize("prediction", TARGETS)
@pytest.mark.parametrize(
    ("kind", "variance"), [("fixed_small", FixedSmall()), ("fixed_large", FixedLarge())]
)
def test_ddpm(count: int, prediction: str, kind: str, variance: ReverseVariance) -> None:
    """The ancestral chain with both variances, under all three predictions."""
    scheduler = build(
        "DDPMScheduler", variance_type=kind, prediction_type=prediction, clip_sample=False
    )
    scheduler.set_timesteps(count)
    z = noise()
    with shared_noise() as its:
        expected = theirs(
            scheduler,
            scheduler.timesteps[:-1],
            z,
            lambda out, t, z: scheduler.step(out, t, z, generator=its).prev_sample,
        )
        found = ours(Ancestral(variance=variance), TARGETS[prediction], scheduler.timesteps, z)
    agree(found, expected)


def test_their_large_variance_in_logarithms_is_not_a_number() -> None:
    """``fixed_large_log`` takes the square root of a logarithm, which is negative: every state is NaN.

    What it means to be is ``fixed_large``, with which ours agrees above.
    """
    scheduler = build("DDPMScheduler", variance_type="fixed_large_log", clip_sample=False)
    scheduler.set_timesteps(10)
    z, t = noise(), scheduler.timesteps[0]
    broken = scheduler.step(NETWORK(z, log_snr(t).expand(2)), t, z).prev_sample
    assert bool(broken.isnan().all())
    found = ours(Ancestral(variance=FixedLarge()), NoiseTarget(), scheduler.timesteps, z)
    assert all(bool(state.isfinite().all()) for state in found)


@pytest.mark.parametrize("count", STEPS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", TARGETS)
def test_ddim(count: int, eta: float, prediction: str) -> None:
    """DDIM between no noise and the chain's."""
    scheduler = build("DDIMScheduler", prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(count)
    z = noise()
    with shared_noise() as its:
        expected = theirs(
            scheduler,
            scheduler.timesteps[:-1],
            z,
            lambda out, t, z: scheduler.step(out, t, z, eta=eta, generator=its).prev_sample,
        )
        found = ours(DDIM(eta=eta), TARGETS[prediction], scheduler.timesteps, z)
    agree(found, expected)


# ---------------------------------------------------------------------- solvers


def timesteps_of(scheduler: Any, count: int) -> Tensor:
    """Their timesteps and the table's cleanest entry, at which they end; sigmas in float64."""
    scheduler.set_timesteps(count)
    timesteps = torch.cat([scheduler.timesteps, scheduler.timesteps.new_zeros(1)])
    scheduler.sigmas = torch.exp(-0.5 * log_snr(timesteps))
    return timesteps


@pytest.mark.parametrize("count", STEPS)
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    ("order", "sde"), [(1, False), (2, False), (3, False), (1, True), (2, True)]
)
def test_dpm_solver(count: int, order: int, sde: bool, lower: bool) -> None:
    """DPM-Solver++ 1, 2M, 3M as published, and the SDE's 1 and 2M. Their states are float32."""
    scheduler = build(
        "DPMSolverMultistepScheduler",
        prediction_type="v_prediction",
        algorithm_type="sde-dpmsolver++" if sde else "dpmsolver++",
        solver_order=order,
        lower_order_final=lower,
        final_sigmas_type="sigma_min",
    )
    timesteps = timesteps_of(scheduler, count)
    z = noise()
    sampler = DPMSolver(
        order=order, sde=sde, published=True, lower_order_final=lower and count < 15
    )
    with shared_noise(dtype=torch.float32) as its:
        expected = theirs(
            scheduler,
            timesteps[:-1],
            z,
            lambda out, t, z: scheduler.step(out, t, z, generator=its).prev_sample,
        )
        found = ours(sampler, VelocityTarget(), timesteps, z)
    agree(found, expected, 2e-6)
    if order == 3:
        corrected = ours(DPMSolver(order=3), VelocityTarget(), timesteps, z)
        assert float((corrected[-1] - found[-1]).abs().max()) > 1e-4


@pytest.mark.parametrize("count", STEPS)
@pytest.mark.parametrize(
    ("order", "scale", "prediction"),
    [
        *((order, scale, "v_prediction") for order in (1, 2, 3) for scale in ("bh1", "bh2")),
        (2, "bh2", "epsilon"),
        (3, "bh2", "sample"),
    ],
)
def test_unipc(count: int, order: int, scale: str, prediction: str) -> None:
    """UniPC of every order with both functions B, under all three predictions."""
    lower = count < 15 and prediction == "sample"
    scheduler = build(
        "UniPCMultistepScheduler",
        prediction_type=prediction,
        solver_order=order,
        solver_type=scale,
        lower_order_final=lower,
        final_sigmas_type="sigma_min",
    )
    timesteps = timesteps_of(scheduler, count)
    z = noise()
    expected = theirs(
        scheduler, timesteps[:-1], z, lambda out, t, z: scheduler.step(out, t, z).prev_sample
    )
    sampler = UniPC(order=order, scale=scale, lower_order_final=lower, published=True)
    agree(ours(sampler, TARGETS[prediction], timesteps, z), expected)


def exploding(scheduler: Any, timesteps: Tensor, z: Tensor, twice: bool) -> list[Tensor]:
    """Their states of a scheduler that counts in sigma / alpha, made variance preserving."""
    states = []
    alpha = log_snr(timesteps).sigmoid().sqrt()
    times = iter(scheduler.timesteps)
    y = z / alpha[0]
    for i in range(len(timesteps) - 1):
        for level in (i, i + 1)[: 1 + twice]:
            t = next(times)
            scheduler.scale_model_input(y, t)
            out = NETWORK(y * alpha[level], log_snr(timesteps[level]).expand(len(z)))
            y = scheduler.step(out, t, y).prev_sample
        states.append(y * alpha[i + 1])
    return states


@pytest.mark.parametrize("count", STEPS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_heun(count: int, prediction: str) -> None:
    """Heun's method; EDM's without churn is the same."""
    scheduler = build("HeunDiscreteScheduler", prediction_type=prediction)
    scheduler.set_timesteps(count)
    timesteps = torch.cat([scheduler.timesteps[:1], scheduler.timesteps[1::2]])
    sigmas = torch.exp(-0.5 * log_snr(timesteps))
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:].repeat_interleave(2)])
    z = noise()
    expected = exploding(scheduler, timesteps, z, twice=True)
    for sampler in (Heun(published=True), StochasticHeun(churn=0, published=True)):
        agree(ours(sampler, TARGETS[prediction], timesteps, z), expected)


@pytest.mark.parametrize("count", STEPS)
def test_euler(count: int) -> None:
    """Euler's method; their states are float32, of a size of up to 160."""
    scheduler = build("EulerDiscreteScheduler", prediction_type="v_prediction")
    scheduler.set_timesteps(count)
    scheduler.sigmas = torch.exp(-0.5 * log_snr(scheduler.timesteps))
    z = noise()
    expected = exploding(scheduler, scheduler.timesteps, z, twice=False)
    for sampler in (Euler(), DDIM(eta=0), DPMSolver(order=1)):
        agree(ours(sampler, VelocityTarget(), scheduler.timesteps, z), expected, 5e-6)
