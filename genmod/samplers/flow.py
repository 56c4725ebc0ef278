r"""The probability flow: a deterministic map between noise and data with the same marginals.

In :math:`y = z / \alpha` and :math:`r = \sigma / \alpha` it reads :math:`dy/dr = (y - \hat x) / r`, and
in :math:`\ell = -\log r` it is :math:`d(z/\sigma)/d\ell = (\alpha/\sigma)\, \hat x`. Euler's step, with
:math:`h = \ell_s - \ell_t`, is exact for a constant :math:`\hat x`:

.. math:: z_s = \frac{\sigma_s}{\sigma_t} z_t + \alpha_s (1 - e^{-h})\, \hat x_t

It does not divide by :math:`\alpha`: near pure noise :math:`z / \alpha` may be 1e9, beside which float32
keeps no digit of the data.

Reference: Song et al., "Score-based generative modeling through SDEs" (2021), eq. 13; in these
variables Karras, Aittala, Aila, Laine, "Elucidating the design space" (2022), eq. 1, algorithms 1, 2.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterator

import torch
from torch import Tensor

from genmod import random
from genmod.checks import invalid
from genmod.denoisers import Denoiser
from genmod.samplers.base import Denoise, Sampler, State, intervals, spread
from genmod.samplers.single_step import SingleStep
from genmod.schedules import Schedule


class Euler(SingleStep):
    """Euler's method on the probability flow: first order. It is DDIM without noise (eta = 0)."""

    def update(self, z_t: Tensor, x_hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
        ratio = sigma_s / sigma_t
        return ratio * z_t + (alpha_s - ratio * alpha_t) * x_hat


class HeunStep(Sampler, ABC):
    """The base class of samplers whose step from ``t`` to ``s`` is Heun's; see :class:`Heun`.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        published: the published weight of the correction. For short steps only.
    """

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        published: bool = False,
    ) -> None:
        super().__init__(denoiser, schedule)
        self.published = published

    def evaluations(self, steps: int) -> int:
        return 2 * steps

    def _step(self, z: Tensor, t: Tensor, s: Tensor, denoise: Denoise) -> tuple[Tensor, Tensor]:
        (_, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
        h = 0.5 * (self.schedule.log_snr(s) - self.schedule.log_snr(t))
        here = denoise(z, t).x_hat
        trial = (sigma_s / sigma_t * z - alpha_s * torch.expm1(-h) * here).to(z.dtype)
        there = denoise(trial, s).x_hat
        return (trial + alpha_s * self.weight(h) * (there - here)).to(z.dtype), here

    def weight(self, h: Tensor) -> Tensor:
        r"""``w(h)``, of the difference of a step's two ``x_hat``, in units of :math:`\alpha_s`."""
        return 0.5 * torch.expm1(h) if self.published else torch.tanh(0.5 * h)


class Heun(HeunStep):
    r"""Heun's method on the probability flow: EDM's sampler, second order, two evaluations a step.

    Euler's step, corrected by the ``x_hat`` at its end:

    .. math:: z_s = z_s^\text{Euler} + \alpha_s\, w(h)\, (\hat x_s - \hat x_t), \qquad
        w(h) = \tanh(h / 2)

    It works in both directions. The published method is the trapezoidal rule in :math:`\sigma/\alpha`,
    :math:`w = (e^h - 1)/2`. In a long step it multiplies the difference of two outputs of a network by
    :math:`e^h`: by 9e8 where a schedule ends in pure noise. The rule in :math:`\alpha/\sigma`,
    :math:`w = (1 - e^{-h})/2`, is as large from data to noise. Their harmonic mean is
    :math:`\tanh(h/2)`. It is below 1 for every ``h``, and :math:`h/2` in short steps, as both are.
    It is odd in ``h``, as a reversible step needs. For Gaussian data it is of third order.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        published: the published weight. For short steps only.

    Reference: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative
    Models" (2022), algorithm 1; the weight is this package's own.

    >>> from genmod.models import Diffusion
    >>> model = Diffusion((1, 8, 8), bins=17)
    >>> model.sample(2, steps=5, sampler=Heun()).shape
    torch.Size([2, 1, 8, 8])
    """

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        for t, s in intervals(times, z):
            z, x_hat = self._step(z, t, s, denoise)
            yield State(s, z, x_hat)

    def extra_repr(self) -> str:
        return "published=True" if self.published else ""


class StochasticHeun(HeunStep):
    r"""EDM's stochastic sampler: before each step of :class:`Heun`, add noise and go back in time.

    In each of :math:`N` steps, a noise level :math:`r = \sigma/\alpha` between two bounds is raised to
    :math:`\hat r = (1 + \gamma) r`, with :math:`\gamma = \min(\text{churn} / N, \sqrt 2 - 1)`, by noise
    of standard deviation :math:`S_\text{noise} \sqrt{\hat r^2 - r^2}`. It is not raised above the
    schedule's noisy end, where no denoiser was trained. So the first step of a path adds no noise.

    Args:
        denoiser, schedule: as for every :class:`Sampler`.
        churn: the amount of added noise over the whole path; 0 is Heun's method.
        lowest: the noise level :math:`r` below which none is added.
        highest: the noise level above which none is added.
        noise: :math:`S_\text{noise}`. A little above 1 corrects a network that removes too much noise.
        published: the published weight of the correction, as for :class:`Heun`.

    Reference: Karras et al. (2022), algorithm 2; their S_churn, S_tmin, S_tmax, S_noise.

    >>> StochasticHeun(churn=30.0).stochastic, StochasticHeun(churn=0.0).stochastic
    (True, False)
    """

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        churn: float = 30.0,
        lowest: float = 0.0,
        highest: float = math.inf,
        noise: float = 1.0,
        published: bool = False,
    ) -> None:
        super().__init__(denoiser, schedule, published=published)
        if not (churn >= 0 and noise >= 0 and 0 <= lowest <= highest):
            raise invalid(
                f"churn={churn}, noise={noise}, lowest={lowest}, highest={highest}",
                "none negative, and lowest <= highest",
                "churn=0 is Heun's method",
            )
        self.churn, self.lowest, self.highest, self.noise = churn, lowest, highest, noise
        self.stochastic = churn > 0

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """Noise up to a time before ``t``, then Heun's step from there."""
        raised = self._raised(times)
        adds = (raised > times[:-1]).reshape(len(raised), -1).any(1)
        steps = zip(adds.tolist(), spread(raised, z), intervals(times, z), strict=True)
        for adds_noise, start, (t, s) in steps:
            if adds_noise:
                z = self._noised(z, t, start)
            z, x_hat = self._step(z, start, s, denoise)
            yield State(s, z, x_hat)

    def _raised(self, times: Tensor) -> Tensor:
        """The time at which each step starts: above ``t``, or ``t`` where no noise is added."""
        if not self.stochastic:
            return times[:-1]
        gamma = min(self.churn / max(len(times) - 1, 1), math.sqrt(2) - 1)
        with torch.no_grad():
            log_snr = self.schedule.log_snr(times[:-1].reshape(-1)).reshape(times[:-1].shape)
            r = torch.exp(-0.5 * log_snr)
            inside = (r >= self.lowest) & (r <= self.highest)
            raised = self.schedule.time((log_snr - 2 * math.log1p(gamma)).reshape(-1))
        # The inverse of the schedule has rounding errors: without this, a start could be cleaner than t.
        raised = torch.maximum(raised.reshape(inside.shape).to(times), times[:-1])
        return torch.where(inside, raised, times[:-1])

    def _noised(self, z: Tensor, t: Tensor, start: Tensor) -> Tensor:
        """A draw of ``q(z_start | z_t)``, with its noise multiplied by ``noise``."""
        (alpha_t, sigma_t), (alpha, sigma) = map(self.schedule.scales, (t, start))
        keep = alpha / alpha_t
        fresh = (sigma.square() - (keep * sigma_t).square()).clamp(min=0).sqrt()
        return (keep * z + self.noise * fresh * random.normal_like(z)).to(z.dtype)

    def extra_repr(self) -> str:
        bounds = f"lowest={self.lowest:g}, highest={self.highest:g}"
        end = ", published=True" if self.published else ""
        return f"churn={self.churn:g}, {bounds}, noise={self.noise:g}{end}"
