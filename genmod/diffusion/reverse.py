r"""The reverse process: :math:`p(z_s | z_t)`, from noise to data, one step after another.

.. math:: p(z_s | z_t) = \mathcal{N}(\text{mean of } q(z_s | z_t, x = \hat x(z_t)),\; v_p)

with the variance :math:`v_p` of :mod:`genmod.diffusion.variances`.

Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 6-7, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.denoisers import Denoised, Denoiser
from genmod.denoisers.base import denoise
from genmod.diffusion.variances import ReverseVariance
from genmod.distributions import Normal
from genmod.distributions.normal import StandardNormal
from genmod.schedules import Schedule
from genmod.tensors import PerSample, Real, expand_like


@dataclass(frozen=True, eq=False)
class ReverseProcess:
    """The reverse process of a diffusion: the law of each step of its generative chain.

    Args:
        denoiser: estimates ``x`` from ``z_t`` and its log-SNR.
        schedule: the noise at each time.
        variance: of each reverse step.
    """

    denoiser: Denoiser
    schedule: Schedule
    variance: ReverseVariance

    def law(self, z_t: Real, t: PerSample, s: PerSample, context: Tensor | None = None) -> Normal:
        """``p(z_s | z_t)`` for ``s < t``."""
        denoised = denoise(self.denoiser, z_t, self.schedule.at(t), context)
        return self.law_given(denoised, z_t, t, s)

    def law_given(self, denoised: Denoised, z_t: Real, t: Tensor, s: Tensor) -> Normal:
        """``p(z_s | z_t)``, given what the denoiser returned for ``z_t``; times ``(B,)`` or ``(1,)``."""
        bridge = self.schedule.bridge(s, t)
        mean = expand_like(bridge.coef_z, z_t) * z_t
        mean = mean + expand_like(bridge.coef_x, z_t) * denoised.x_hat
        extra = self.variance.log_std_ratio(bridge, denoised)
        return Normal(mean, expand_like(bridge.log_std, z_t) + extra)

    def top(self, like: Real, t: Tensor) -> Normal:
        r"""The law of the noisiest latent, :math:`p(z_1) = N(0, (\alpha_1^2 + \sigma_1^2) I)`.

        It is the marginal of :math:`z_1` where the data have mean zero and variance one.

        Args:
            like: a batch of states, for its shape, type and device.
            t: the time of the noisiest latent, ``(1,)`` or ``(B,)``.
        """
        if self.schedule.variance_preserving:
            return StandardNormal(tuple(like.shape), like.dtype, like.device)
        zero = torch.zeros_like(like)
        return Normal(zero, expand_like(torch.hypot(*self.schedule.scales(t)).log(), zero))
