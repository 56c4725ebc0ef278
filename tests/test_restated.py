r"""One network in the terms of each target: objectives and samplers give the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from genmod import random
from genmod.denoisers import DataTarget, Denoiser, Learned, Target, VelocityTarget, convert
from genmod.models import Diffusion
from genmod.nn import DenoisingMLP
from genmod.objectives import Batch, Bound, Objective, Simple
from genmod.samplers import Sampler
from genmod.schedules import LinearLogSNR, Schedule
from tests.oracles import F64
from tests.samplers.cases import EVERY
from tests.schedules import drawn
from tests.test_targets import TARGETS


class Restated(nn.Module):
    """A network trained under one target that answers as if trained under another."""

    def __init__(self, trained: Learned, wanted: Target) -> None:
        super().__init__()
        self.trained, self.wanted = trained, wanted

    def forward(self, seen: Tensor, log_snr: Tensor) -> Tensor:
        """What the other network would say to what it is shown."""
        z = seen / self.wanted.inputs(torch.ones_like(seen), log_snr)
        x_hat = self.trained(z, log_snr).x_hat
        return convert(x_hat, DataTarget(), self.wanted, z, log_snr)


def trained(target: Target, shape: tuple[int, ...], seed: int = 0) -> Learned:
    """A network without zero weights."""
    torch.manual_seed(seed)
    network = DenoisingMLP(shape, width=8, depth=1).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return Learned(network, target)


@settings(max_examples=12)
@given(
    schedule=drawn.EVERY,
    steps=st.none() | st.integers(2, 20),
    shape=st.sampled_from([(1,), (3,), (2, 5), (1, 4, 4)]),
    given_=st.sampled_from(TARGETS),
    objective=st.sampled_from([Simple, Bound]),
    draws=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_objectives_agree_whatever_the_target(
    schedule: Schedule,
    steps: int | None,
    shape: tuple[int, ...],
    given_: Target,
    objective: Callable[[int], Objective],
    draws: int,
    seed: int,
) -> None:
    """One network, restated in the terms of every target: one loss, and one gradient for its weights.

    In steps and in continuous time.
    """
    noisy = schedule.log_snr_range()[1]
    if noisy < given_.noisiest:
        given_ = DataTarget()
    original = trained(given_, shape, seed)
    x = torch.randn(4, *shape, dtype=F64)

    def outcome(denoiser: Denoiser) -> tuple[Tensor, Tensor]:
        model = Diffusion(shape, denoiser=denoiser, schedule=schedule, steps=steps).double()
        with random.keyed(seed):
            loss, _ = objective(draws)(model, Batch(x))
        slopes = torch.autograd.grad(loss, list(original.parameters()))
        return loss.detach(), torch.cat([slope.flatten() for slope in slopes])

    expected, slope = outcome(original)
    for wanted in TARGETS:
        if noisy < wanted.noisiest:
            continue
        loss, found = outcome(Learned(Restated(original, wanted), wanted))
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-6 * float(slope.abs().max()))


@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_any_sampler_takes_a_network_of_any_target(sampler: Sampler) -> None:
    """One result for a network and for its conversion to each other target."""
    schedule, times = LinearLogSNR(6.0, -6.0), torch.linspace(1, 0, 6, dtype=F64)
    original = trained(VelocityTarget(), (3,))
    z = torch.randn(4, 3, dtype=F64)

    def result(denoiser: Denoiser) -> Tensor:
        with random.keyed(1), torch.no_grad():
            return sampler.bind(denoiser, schedule).run(z, times)

    expected = result(original)
    for wanted in TARGETS:
        found = result(Learned(Restated(original, wanted), wanted))
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
