"""The scale of a diffusion's last step is the likeliest one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from genmod.decoders import DiscretizedGaussianDecoder, GlobalScale, Identity
from genmod.denoisers import DataTarget, Learned
from genmod.diffusion.last_step import LastStepDecoder
from genmod.models import VAE, Diffusion
from genmod.schedules import LinearLogSNR
from genmod.spec import Bins
from genmod.training import fit_scale
from genmod.training.scale import FINEST, SCALES


class Middle(nn.Module):
    """A network whose output is zero, the middle of [-1, 1]."""

    def forward(self, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        """As many zeros as there are entries."""
        return torch.zeros_like(z)


def test_around_a_fixed_mean_it_is_the_spread_of_the_data() -> None:
    """The likeliest scale of a normal law is the standard deviation, to half a step of the grid."""
    levels, schedule = Bins(256), LinearLogSNR(13.3)
    denoiser = Learned(Middle(), DataTarget())
    decoder = DiscretizedGaussianDecoder(Identity(), (4,), 256, GlobalScale())
    model = Diffusion(
        bins=256,
        denoiser=denoiser,
        schedule=schedule,
        decoder=LastStepDecoder(denoiser, schedule, decoder),
    )
    real = 0.11 * torch.randn(4000, 4, generator=torch.Generator().manual_seed(0))
    x = ((real + 1) / levels.width).round().long().clamp(0, 255)
    spread = float(levels.center(x).square().mean().sqrt())
    step = -math.log(levels.width / FINEST) / (SCALES - 1)
    found = fit_scale(model, x)
    assert abs(math.log(found / spread)) <= 0.5 * step + 0.01
    assert isinstance(decoder.scale, GlobalScale)
    assert float(decoder.scale.log_scale.detach()) == pytest.approx(math.log(found))


def test_a_denoiser_that_gives_nan_is_refused() -> None:
    """Not the narrowest scale, silently."""
    model = Diffusion((1, 8, 8), bins=17, width=8, steps=5)
    with torch.no_grad():
        for parameter in model.prior.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(ValueError, match="log-masses that are NaN"):
        fit_scale(model, torch.randint(0, 17, (64, 1, 8, 8)))


def test_it_leaves_the_denoiser_and_its_mode_alone() -> None:
    """The bound's other terms do not know the scale."""
    model = Diffusion((1, 8, 8), bins=17, width=8, steps=5).train()
    x = torch.randint(0, 17, (64, 1, 8, 8))
    before = {name: tensor.clone() for name, tensor in model.prior.state_dict().items()}
    assert fit_scale(model, x) == fit_scale(model, x)
    assert model.training
    for name, tensor in model.prior.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_decoder_that_is_no_last_step_is_refused() -> None:
    """Other decoders are trained with the bound, and real data have no bins to start from."""
    with pytest.raises(ValueError, match="Denoised"):
        fit_scale(VAE((4,), 17, latents=2, width=8), torch.zeros(8, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="integers"):
        fit_scale(Diffusion(2, width=8), torch.zeros(8, 2))
