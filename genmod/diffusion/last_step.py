r"""The decoder of a diffusion, its last step: :math:`p(x | z_0)`, around its estimate of ``x``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.decoders import Decoder
from genmod.denoisers import Denoiser
from genmod.denoisers.base import denoise
from genmod.schedules import Schedule
from genmod.schedules.base import time_dtype


class LastStepDecoder(Decoder):
    r"""The decoder of a diffusion: denoise :math:`z_0`, then decode :math:`\hat x` by another decoder.

    .. math:: p(x | z_0) = p_\text{decoder}(x \,|\, \hat x(z_0))

    The denoiser is the same module as the prior's. It is saved once.

    Args:
        denoiser: the denoiser.
        schedule: the diffusion's schedule; a free clean end is set for the decoder's data.
        decoder: takes :math:`\hat x` for its state, for example
            ``GaussianDecoder(Identity(), shape)`` for real data, and
            ``DiscretizedLogisticDecoder(Identity(), DataSpec(shape, bins))`` for integers.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 13.
    """

    schedule: Schedule

    def __init__(self, denoiser: Denoiser, schedule: Schedule, decoder: Decoder) -> None:
        super().__init__(decoder.spec)
        self.denoiser, self.decoder = denoiser, decoder
        self.schedule = schedule.resolve(decoder.spec)

    def forward(self, state: Tensor, context: Tensor | None = None) -> Distribution:
        start = torch.zeros(len(state), dtype=time_dtype(state.device), device=state.device)
        x_hat = denoise(self.denoiser, state, self.schedule.at(start), context).x_hat
        return self.decoder(x_hat, context)

    def formula(self) -> str:
        return self.decoder.formula().replace("| z)", "| z_0)").replace("d(z)", "x_hat(z_0)")
