r"""The probability flow: a deterministic map between noise and data with the same marginals.

In :math:`y = z / \alpha` and :math:`r = \sigma / \alpha` it reads :math:`dy/dr = (y - \hat x) / r`.
Steps are written without :math:`y` (see :mod:`genmod.samplers.walk`): with :math:`q = r_s / r_t`,

.. math:: y_s = q\, y_t + (1 - q)\, \hat x \iff
    z_s = \frac{\sigma_s}{\sigma_t} z_t + \alpha_s (1 - q)\, \hat x

Reference: Song et al., "Score-based generative modeling through SDEs" (2021), eq. 13; in these
variables Karras, Aittala, Aila, Laine, "Elucidating the design space" (2022), eq. 1, algorithms 1, 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.samplers.base import Linear, Rule, Sampler
from genmod.samplers.walk import Answer, NoiseLevel, Part, Scale, Walk, blend
from genmod.schedules import Schedule


class Euler(Linear):
    """Euler's method: first order, either direction. It is DDIM without noise (eta = 0)."""

    def rule(self, walk: Walk) -> Rule:
        """The factors of every step."""
        return Rule(walk.shrinkage, [-walk.alpha[1:] * torch.expm1(-walk.rises)])


class Heun(Sampler):
    """Heun's method: second order, two evaluations a step, either direction."""

    def evaluations(self, steps: int) -> int:
        """How often a path of so many steps asks the denoiser."""
        return 2 * steps

    def march(self, walk: Walk, z: Tensor) -> Iterator[tuple[Tensor, Part]]:
        """After each step of a walk, the state and the answer it was made with."""
        for i, pair in enumerate(_pairs(walk, walk.log_snr[:-1])):
            z, answer = _corrected(walk, z, pair, walk.levels[i], walk.levels[i + 1])
            yield z, answer


class StochasticHeun(Sampler):
    r"""EDM's sampler: before each step of :class:`Heun`, add some noise and go back by as much.

    A step of :math:`N` from a noise level :math:`r = \sigma/\alpha` within bounds first rises to
    :math:`\hat r = (1 + \gamma) r`, with :math:`\gamma = \min(\text{churn} / N, \sqrt 2 - 1)`, by noise
    of standard deviation :math:`S_\text{noise} \sqrt{\hat r^2 - r^2}`.

    Args:
        denoiser, schedule: as for every :class:`Sampler`.
        churn: how much, over the whole path; 0 is Heun's method.
        lowest: the noise level :math:`r` below which nothing is added.
        highest: the noise level above which nothing is added.
        noise: the factor of what is added; a little above 1 makes up for a network that takes away
            too much.

    Reference: Karras et al. (2022), algorithm 2; their S_churn, S_tmin, S_tmax, S_noise.
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
    ) -> None:
        super().__init__(denoiser, schedule)
        require(
            churn >= 0 and noise >= 0 and 0 <= lowest <= highest,
            f"churn={churn}, noise={noise}, lowest={lowest}, highest={highest}",
            "none negative, and lowest <= highest",
            "churn=0 is Heun's method",
        )
        self.churn, self.lowest, self.highest, self.noise = churn, lowest, highest, noise
        self.draws = churn > 0

    def evaluations(self, steps: int) -> int:
        """How often a path of so many steps asks the denoiser."""
        return 2 * steps

    def march(self, walk: Walk, z: Tensor) -> Iterator[tuple[Tensor, Part]]:
        """After each step of a walk, the state and the answer it was made with."""
        r = torch.exp(-walk.half[:-1])
        gamma = min(self.churn / max(len(walk), 1), math.sqrt(2) - 1)
        lift = torch.where((r >= self.lowest) & (r <= self.highest), gamma, 0.0)
        start = walk.log_snr[:-1] - 2 * torch.log1p(lift)
        keep = start.sigmoid().sqrt() / walk.alpha[:-1]
        # The noisier state's alpha times r sqrt((1 + gamma)^2 - 1), without 1 / alpha.
        added = self.noise * keep * walk.sigma[:-1] * (lift * (2 + lift)).sqrt()
        levels, pairs = walk.rows(start), _pairs(walk, start)
        for i, (kept, std) in enumerate(zip(walk.each(keep), walk.each(added), strict=True)):
            if std != 0.0 if isinstance(std, float) else self.churn > 0:
                z = blend(z, kept, [(std, random.normal_like(z))])
            z, answer = _corrected(walk, z, pairs[i], levels[i], walk.levels[i + 1])
            yield z, answer

    def extra_repr(self) -> str:
        """Its settings."""
        bounds = f"lowest={self.lowest:g}, highest={self.highest:g}"
        return f"churn={self.churn:g}, {bounds}, noise={self.noise:g}"


class _Pair(NamedTuple):
    """The factors of a step of Heun's method: of the state; of ``x_hat`` in the trial; of both."""

    keep: Scale
    trial: Scale
    here: Scale
    there: Scale


def _pairs(walk: Walk, start: Tensor) -> list[_Pair]:
    r"""Steps from given log-SNRs to those of ``walk[1:]``.

    The mean of the slopes :math:`(y_t - \hat x_t) / r_t` and :math:`(y_s - \hat x_s) / r_s`, with the
    trial :math:`y_s = q y_t + (1 - q) \hat x_t`, leaves of the state what Euler's step leaves:

    .. math:: z_s = \frac{\sigma_s}{\sigma_t} z_t
        + \frac{\alpha_s (1 - q)}{2} \left[(2 - q^{-1})\, \hat x_t + q^{-1} \hat x_s\right]
    """
    rise = walk.half[1:] - 0.5 * start
    keep = walk.sigma[1:] / (-start).sigmoid().sqrt()
    trial = -walk.alpha[1:] * torch.expm1(-rise)
    here, there = 0.5 * trial * (2 - rise.exp()), 0.5 * trial * rise.exp()
    return [_Pair(*row) for row in zip(*map(walk.each, (keep, trial, here, there)), strict=True)]


def _corrected(
    walk: Walk, z: Tensor, pair: _Pair, level: NoiseLevel, below: NoiseLevel
) -> tuple[Tensor, Answer]:
    """One step of Heun's method, and the first of its two answers."""
    here = walk.answer(z, level)
    there = walk.answer(blend(z, pair.keep, [(pair.trial, here)]), below)
    return blend(z, pair.keep, [(pair.here, here), (pair.there, there)]), here
