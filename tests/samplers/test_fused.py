"""A network's reading, taken into a step's own factors, against the same step on ``x_hat`` itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genmod import random
from genmod.denoisers import (
    Denoised,
    Denoiser,
    EDMTarget,
    Learned,
    NoiseTarget,
    Target,
    VelocityTarget,
)
from genmod.samplers import Sampler, UniformTime
from genmod.schedules import LinearLogSNR
from tests.oracles import F64, real
from tests.samplers.cases import EVERY

SCHEDULE = LinearLogSNR(6.0, -6.0)
Z = torch.linspace(-1.5, 1.5, 6, dtype=F64).reshape(3, 2)


class Plain(Denoiser):
    """A denoiser that says ``x_hat`` itself, as whatever wraps another one does."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """What the other one makes of it."""
        return self.inner(z, log_snr, context)


class Curved(nn.Module):
    """A network without weights."""

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """Neither linear nor optimal."""
        return torch.tanh(1.3 * z + 0.1 * log_snr[:, None])


@pytest.mark.parametrize("target", [NoiseTarget(), VelocityTarget(), EDMTarget(0.5)], ids=repr)
@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_a_reading_taken_into_the_step_is_the_same_step(sampler: Sampler, target: Target) -> None:
    """Every state and every ``x_hat``: of an answer unread, and of ``x_hat`` itself.

    Flipped: the sign of ``scale * of_z`` in ``blend``.
    """
    denoiser = Learned(Curved(), target)
    times = UniformTime().times(SCHEDULE, 5)
    for way in (times, times[:, None] * real(1.0, 0.9, 0.8)):
        found = []
        for each in (denoiser, Plain(denoiser)):
            with random.keyed(0), torch.no_grad():
                steps = list(sampler.bind(each, SCHEDULE).states(Z, way))
            found.append(torch.stack([torch.stack([step.z, step.x_hat]) for step in steps]))
        torch.testing.assert_close(found[0], found[1])
