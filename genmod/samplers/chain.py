r"""Samplers of one draw a step: the generative chain itself, and DDIM.

The chain draws :math:`z_s \sim p(z_s | z_t) = q(z_s | z_t, x = \hat x(z_t))`, step by step. DDIM goes from
the probability flow (:math:`\eta = 0`) to that chain (:math:`\eta = 1`), and past it.

Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eqs. 6-7, algorithm 2;
Song, Meng, Ermon, "Denoising Diffusion Implicit Models" (2021), eqs. 12 and 16.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.denoisers import Denoised, Denoiser
from genmod.diffusion.reverse import ReverseProcess
from genmod.diffusion.variances import FixedSmall, ReverseVariance
from genmod.samplers.base import Denoise, Sampler, SingleStep, State, intervals
from genmod.schedules import Schedule


class Ancestral(Sampler):
    """Draw each state from the reverse step ``p(z_s | z_t)`` (:class:`genmod.diffusion.ReverseProcess`).

    With a model's own variance and times this is the model's generative process.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        variance: the variance of a step; the posterior's by default.
    """

    stochastic = True

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        variance: ReverseVariance | None = None,
    ) -> None:
        super().__init__(denoiser, schedule)
        self.variance = variance or FixedSmall()

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """A draw of the reverse step's law for each step."""
        for t, s in intervals(times, z):
            denoised = denoise(z, t)
            z = self.draw(z, denoised, t, s)
            yield State(s, z, denoised.x_hat)

    def draw(self, z_t: Tensor, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        """A draw of ``p(z_s | z_t)``, given what the denoiser returned for ``z_t``."""
        reverse = ReverseProcess(self.denoiser, self.schedule, self.variance)
        times = (time.reshape(-1).expand(len(z_t)) for time in (t, s))
        law = reverse.law_given(denoised, z_t, *times)
        return (law.mean + law.stddev * random.normal_like(z_t)).to(z_t.dtype)

    def extra_repr(self) -> str:
        """Its settings."""
        return f"variance={self.variance}"


class DDIM(SingleStep):
    r"""DDIM: steps with the same marginals for any amount of fresh noise.

    .. math:: z_s = \alpha_s \hat x + \sqrt{\sigma_s^2 - v}\, \hat\varepsilon + \sqrt v\, \varepsilon,
        \qquad v = \eta^2 \sigma_s^2 \left(1 - \frac{\mathrm{SNR}_t}{\mathrm{SNR}_s}\right)

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        eta: 0 is Euler's method on the probability flow, 1 the ancestral chain with the posterior's
            variance. More is possible while :math:`v \le \sigma_s^2`, that is, with short steps.

    Raises:
        ValueError: a negative ``eta``; on a path, an ``eta`` too large for its steps.

    Reference: Song, Meng, Ermon, "Denoising Diffusion Implicit Models" (2021), eqs. 12 and 16.
    """

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        eta: float = 0.0,
    ) -> None:
        super().__init__(denoiser, schedule)
        require(eta >= 0, f"eta={eta}", "eta >= 0", "0 is deterministic, 1 ancestral")
        self.eta = eta
        self.stochastic = eta > 0

    def update(self, z_t: Tensor, x_hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        r"""The formula above, with :math:`\hat\varepsilon = (z_t - \alpha_t \hat x) / \sigma_t`."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
        h = 0.5 * (self.schedule.log_snr(s) - self.schedule.log_snr(t))
        kept, std = shares(h, self.eta)
        factor = kept * sigma_s / sigma_t
        z_s = factor * z_t + (alpha_s - factor * alpha_t) * x_hat
        return z_s + sigma_s * std * random.normal_like(z_t) if self.stochastic else z_s

    def extra_repr(self) -> str:
        """Its settings."""
        return f"eta={self.eta:g}"


def shares(h: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    r"""Of :math:`\sigma_s`, the shares of old noise, :math:`\sqrt{1 - \eta^2 c}`, and of fresh noise,
    :math:`\eta \sqrt c`, with :math:`c = 1 - \mathrm{SNR}_t / \mathrm{SNR}_s = 1 - e^{-2h}`.

    Raises:
        ValueError: ``eta`` is too large for one of the steps.
    """
    if eta == 0:
        return torch.ones_like(h), torch.zeros_like(h)
    fresh = -torch.expm1(-2 * h)
    if eta > 1 and not bool((eta**2 * fresh <= 1).all()):
        raise ValueError(
            f"got eta={eta:g} on steps that raise log-SNR by up to {2 * float(h.max()):.3g}; expected "
            f"eta <= {float(fresh.max().rsqrt()):.4g} for these steps; take more steps, or less noise"
        )
    # At eta = 1 it is e^-h, to the last bit.
    kept = torch.exp(-h) if eta == 1 else torch.exp(0.5 * torch.log1p(-(eta**2) * fresh))
    return kept, eta * fresh.sqrt()
