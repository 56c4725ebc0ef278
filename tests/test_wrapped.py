"""Wrapped denoisers: what they refuse, what they pass on, and what they serve."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genmod.denoisers import (
    DataTarget,
    Denoised,
    Denoiser,
    GaussianDenoiser,
    Guided,
    Learned,
    NoiseTarget,
    VelocityTarget,
    calibrate,
)
from genmod.denoisers.calibrated import Calibrated
from genmod.diffusion import Analytic, DiffusionPrior, LearnedInterpolation
from genmod.inverse import DPS, MMPS, Mask, PiGDM, RePaint
from genmod.models import Diffusion, with_denoiser
from genmod.samplers import Ancestral, Euler
from genmod.schedules import LinearBeta, LinearLogSNR, ZeroTerminalSNR

F64 = torch.float64
ZERO = ZeroTerminalSNR(LinearBeta(1000))
FIRST = Mask(torch.tensor([True, False]))


def network(target: NoiseTarget | DataTarget | VelocityTarget, outputs: int = 2) -> Learned:
    """A small network read through a target."""

    class Told(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, outputs)

        def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
            return self.layer(torch.cat([z, log_snr[:, None] / 10], 1))

    return Learned(Told(), target, interpolation=outputs == 4)


Y = torch.tensor([[1.0]])
WRAPPERS: dict[str, Callable[[Denoiser], Denoiser]] = {
    "guided": lambda d: Guided(d, 2.0),
    "worse": lambda d: Guided(network(VelocityTarget()), 2.0, worse=d),
    "calibrated": lambda d: Calibrated(d, torch.tensor([-1.0, 1.0]), torch.tensor([0.5, 0.5])),
    "mmps": lambda d: MMPS(d, FIRST, Y, std=0.1),
    "pigdm": lambda d: PiGDM(d, FIRST, Y, std=0.1),
    "nested": lambda d: MMPS(Guided(d, 2.0), FIRST, Y, std=0.1),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_refuses_what_its_denoiser_refuses(name: str) -> None:
    """A network that predicts noise under zero terminal SNR, however wrapped, wherever it is bound."""
    refused = WRAPPERS[name](network(NoiseTarget()))
    with pytest.raises(ValueError, match="divides by alpha"):
        DiffusionPrior(refused, ZERO, (2,))
    with pytest.raises(ValueError, match="divides by alpha"):
        Euler(refused, ZERO).step(torch.zeros(1, 2), torch.ones(1), torch.zeros(1))
    DiffusionPrior(refused, LinearLogSNR(), (2,))


def test_mmps_refuses_schedules_that_end_in_pure_noise() -> None:
    """The measurement's correction divides by alpha, whatever the network predicts."""
    model = Diffusion(2, denoiser=network(VelocityTarget()), schedule=ZERO, steps=5)
    with pytest.raises(ValueError, match="MMPS under a schedule that ends at log-SNR -40"):
        with_denoiser(model, lambda d: MMPS(d, FIRST, Y, std=0.1))
    for sampler in (DPS(operator=FIRST, y=Y), RePaint(operator=FIRST, y=Y, jump=2)):
        assert bool(model.sample(3, sampler=sampler).isfinite().all())


@pytest.mark.parametrize("name", [n for n in WRAPPERS if n != "worse"])
def test_a_wrapper_keeps_the_learned_reverse_variance(name: str) -> None:
    """The chain of a learned variance takes a measurement, or guidance."""

    class Twice(Denoiser):
        def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
            return inner(z, log_snr)

    inner = network(VelocityTarget(), outputs=4)
    z, log_snr, labels = torch.randn(3, 2), torch.zeros(3), torch.zeros(3, dtype=torch.long)
    said = WRAPPERS[name](Twice())(z, log_snr, labels).interpolation
    wanted = inner(z, log_snr).interpolation
    assert said is not None
    assert wanted is not None
    torch.testing.assert_close(said, wanted)


def test_the_chain_of_a_learned_variance_takes_a_measurement() -> None:
    """By a wrapped denoiser, and by the two samplers with the same variance."""
    variance = LearnedInterpolation()
    model = Diffusion(2, denoiser=network(VelocityTarget(), outputs=4), steps=6, variance=variance)
    told = with_denoiser(model, lambda d: MMPS(d, FIRST, Y, std=0.1))
    assert told.sample(4).shape == (4, 2)
    for sampler in (
        DPS(operator=FIRST, y=Y, variance=variance),
        RePaint(operator=FIRST, y=Y, variance=variance, repeats=2, jump=2),
    ):
        assert bool(model.sample(4, sampler=sampler).isfinite().all())


def test_measured_variances_serve_the_chain_of_a_wrapped_model() -> None:
    """Calibrated, an optimal chain of few steps has the data's spread; with the posterior's it does not.

    Data with one variance in all directions: the measured one is then exact.
    """
    torch.manual_seed(0)
    known = GaussianDenoiser(torch.zeros(2, dtype=F64), 0.6 * torch.eye(2, dtype=F64))
    x = math.sqrt(0.6) * torch.randn(4000, 2, dtype=F64)
    schedule = LinearLogSNR(8.0, -8.0)

    class Bare(Denoiser):
        def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
            return Denoised(known(z, log_snr).x_hat)

    model = Diffusion(2, denoiser=Bare(), schedule=schedule, steps=12).double()
    measured = with_denoiser(model, lambda d: calibrate(d, schedule, x))
    analytic = Ancestral(variance=Analytic())
    with pytest.raises(ValueError, match="calibrate"):
        model.sample(1, sampler=analytic)
    *_, last = measured.states(8000, sampler=analytic)
    *_, short = model.states(8000)
    # A sum of two variances of 0.6 from 8000 draws; the calibration's own error is beside it.
    error = math.sqrt(2 * 2 * 0.36 * (1 / 8000 + 1 / 4000))
    assert abs(last.z.var(0).sum().item() - 1.2) < 4.9 * error
    assert short.z.var(0).sum().item() < 1.2 - 4.9 * error
