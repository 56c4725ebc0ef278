"""One ancestral step, against diffusers' scheduler given the same outputs and the same noise.

The scheduler keeps its tables in float32; they are replaced by the same tables in float64, so that
what is compared is the formula and not the rounding of its betas.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmod.denoisers import DataTarget, Learned, NoiseTarget, Target, VelocityTarget
from genmod.diffusion import FixedLarge, FixedSmall, LearnedInterpolation
from genmod.diffusion.reverse import ReverseProcess
from genmod.diffusion.variances import ReverseVariance
from genmod.schedules import LinearBeta

diffusers = pytest.importorskip("diffusers")

F64 = torch.float64
SHAPE = (2, 4, 4)
VARIANCES: dict[str, ReverseVariance] = {
    "fixed_small": FixedSmall(),
    "fixed_large": FixedLarge(),
    "learned_range": LearnedInterpolation(),
}
TARGETS: dict[str, Target] = {
    "epsilon": NoiseTarget(),
    "sample": DataTarget(),
    "v_prediction": VelocityTarget(),
}


class Says(nn.Module):
    """A network with one output for every input."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        """It."""
        return self.output


def scheduler(variance: str, prediction: str, sampling: int) -> Any:
    """DDPM's scheduler of 1000 steps, in float64."""
    made = diffusers.DDPMScheduler(
        1000, variance_type=variance, prediction_type=prediction, clip_sample=False
    )
    made.betas = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    made.alphas_cumprod = (1 - made.betas).cumprod(0)
    made.set_timesteps(sampling)
    return made


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("prediction", TARGETS)
@pytest.mark.parametrize("sampling", [10, 50, 1000])
def test_a_learned_variance_step_equals_diffusers(
    variance: str, prediction: str, sampling: int
) -> None:
    """First, middle and late steps of 10, 50 and 1000: the same state, to rounding.

    ``learned_range`` reads the second half of the channels as Improved DDPM does.
    """
    peer, schedule = scheduler(variance, prediction, sampling), LinearBeta(1000)
    learned = VARIANCES[variance].learned
    draw = torch.Generator().manual_seed(0)
    channels = SHAPE[0] * (2 if learned else 1)
    for index in (0, sampling // 2, sampling - 2):
        k, before = int(peer.timesteps[index]), int(peer.timesteps[index + 1])
        z = torch.randn(3, *SHAPE, dtype=F64, generator=draw)
        output = torch.randn(3, channels, *SHAPE[1:], dtype=F64, generator=draw)
        seeded = torch.Generator().manual_seed(index)
        expected = peer.step(output, k, z, generator=seeded).prev_sample
        # The same noise again: the peer's generator, started anew.
        noise = torch.randn(z.shape, dtype=F64, generator=torch.Generator().manual_seed(index))
        denoiser = Learned(Says(output), TARGETS[prediction], interpolation=learned)
        chain = ReverseProcess(denoiser, schedule, VARIANCES[variance])
        t, s = (torch.full((3,), step / 999, dtype=F64) for step in (k, before))
        law = chain.law(z, t, s)
        torch.testing.assert_close(law.mean + law.stddev * noise, expected, rtol=1e-9, atol=1e-9)
