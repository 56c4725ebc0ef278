r"""Posterior samplers that change the steps of ancestral sampling, and not its denoiser.

Both are approximations, and biased even for Gaussian data; the guide on inverse problems has by how much.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.denoisers import Denoised, Denoiser
from genmod.diffusion import ReverseVariance
from genmod.inverse.operators import Mask, Operator, check_measurement, check_rows
from genmod.inverse.posterior import pullback
from genmod.samplers import Ancestral, Denoise, Sampler, State, intervals
from genmod.schedules import Schedule
from genmod.shapes import event_sum, expand_like


class DPS(Sampler):
    r"""Diffusion posterior sampling: each ancestral step, then one down the residual's slope.

    .. math:: z_s \leftarrow z_s - \zeta_t\, \nabla_{z_t} \|y - A\hat x(z_t)\|^2, \qquad
        \zeta_t = \frac{\zeta}{\|y - A\hat x(z_t)\|}

    The step has the length :math:`\zeta` at any noise level and for any number of steps:
    :math:`\zeta` must be tuned for each of them, and the noise of ``y`` does not enter. The paper's 0.1 to
    1 are for 1000 steps. The authors' code takes the gradient of the norm: half of their formula.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        operator: ``A``.
        y: the measurement, one a row or one for all, on the scale of the diffusion's real data.
        zeta: the step.
        variance: the variance of a step; the posterior's by default.

    Raises:
        ValueError: a measurement of a wrong shape, or a negative step.

    Reference: Chung, Kim, McCann, Klasky, Ye, "Diffusion posterior sampling for general noisy inverse
    problems" (2023), algorithm 1.
    """

    stochastic = True

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        operator: Operator,
        y: Tensor,
        zeta: float = 1.0,
        variance: ReverseVariance | None = None,
    ) -> None:
        super().__init__(denoiser, schedule)
        check_measurement(operator, y)
        require(0 <= zeta < float("inf"), f"zeta={zeta}", "zeta >= 0", "the paper takes 0.1 to 1")
        self.operator, self.y, self.zeta = operator, y, zeta
        self.chain = Ancestral(variance=variance)

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """An ancestral step, and one down the slope of the residual's square."""
        check_rows(self.operator, self.y, z)
        chain = self.chain.bind(self.denoiser, self.schedule)
        for t, s in intervals(times, z):
            denoised, pull = pullback(partial(_at, denoise, t), z)
            slope = -2 * pull(self.operator.adjoint(self._direction(denoised.x_hat)))
            z = chain.draw(z, denoised, t, s) - self.zeta * slope
            yield State(s, z, denoised.x_hat)

    def _direction(self, x_hat: Tensor) -> Tensor:
        residual = self.y.to(x_hat) - self.operator(x_hat)
        length = event_sum(residual.square()).sqrt()
        # A residual of zero has no direction: 0 / 0.
        return residual / expand_like(length.clamp(min=torch.finfo(length.dtype).tiny), residual)

    def extra_repr(self) -> str:
        """Its settings."""
        return f"{self.operator}, zeta={self.zeta}"


class RePaint(Sampler):
    r"""Inpainting by replacement: the observed entries come from the data, the others from the chain.

    .. math:: z_s = \begin{cases} \alpha_s y + \sigma_s \varepsilon & \text{observed} \\
        \text{a draw of } p(z_s|z_t) & \text{elsewhere} \end{cases}

    The observed entries' noise is independent of the others, so each stretch of ``jump`` steps is noised
    again by :math:`q(z_t | z_s)` and made once more, ``repeats`` times in all (the first stretch
    once, as the authors do): then the two have time to agree. ``y`` is taken to have no noise.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        operator: which entries are observed.
        y: what they are, one a row or one for all, on the scale of the diffusion's real data.
        repeats: how often each stretch but the first is made; 1 is plain replacement.
        jump: how many steps a stretch has; a path needs more than that, unless ``repeats=1``.
        variance: the variance of a step; the posterior's by default.

    Raises:
        ValueError: an operator that is no mask, a measurement of a wrong shape, no repeat or no step.

    Reference: Lugmayr et al., "RePaint: inpainting using denoising diffusion probabilistic models" (2022),
    algorithm 1 and appendix B; replacement is Song et al. (2021), appendix I.2.
    """

    stochastic = True

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        operator: Operator,
        y: Tensor,
        repeats: int = 10,
        jump: int = 10,
        variance: ReverseVariance | None = None,
    ) -> None:
        super().__init__(denoiser, schedule)
        if not isinstance(operator, Mask):
            raise ValueError(
                f"got a {type(operator).__name__}; expected a Mask; replacement needs entries of x "
                "themselves: use MMPS for other operators"
            )
        check_measurement(operator, y)
        require(
            repeats >= 1 and jump >= 1,
            f"repeats={repeats}, jump={jump}",
            "at least 1 each",
            "10 each is the paper's choice",
        )
        self.operator, self.y, self.repeats, self.jump = operator, y, repeats, jump
        self.chain = Ancestral(variance=variance)

    def evaluations(self, steps: int) -> int:
        """How many calls of the denoiser a path makes: the first stretch is made once."""
        return self.repeats * steps - (self.repeats - 1) * min(self.jump, steps)

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """Each state as it is after the last visit of its time.

        Raises:
            ValueError: a path of no more than ``jump`` steps, on which nothing would be repeated.
        """
        check_rows(self.operator, self.y, z)
        steps = list(intervals(times, z))
        require(
            self.repeats == 1 or len(steps) > self.jump,
            f"a path of {len(steps)} steps for {self}",
            f"more than jump={self.jump} steps: the first {self.jump} are made once, and only later ones "
            "are repeated",
            "take more steps, a smaller jump, or repeats=1",
        )
        for first in range(0, len(steps), self.jump):
            stretch = steps[first : first + self.jump]
            for _ in range(self.repeats - 1 if first else 0):
                for t, s in stretch:
                    z, _x_hat = self._step(z, t, s, denoise)
                z = self._back(z, stretch[-1][1], stretch[0][0])
            for t, s in stretch:
                z, x_hat = self._step(z, t, s, denoise)
                yield State(s, z, x_hat)

    def _step(self, z: Tensor, t: Tensor, s: Tensor, denoise: Denoise) -> tuple[Tensor, Tensor]:
        """A draw, whose observed entries are replaced by noised data."""
        denoised = denoise(z, t)
        drawn = self.chain.bind(self.denoiser, self.schedule).draw(z, denoised, t, s)
        alpha, sigma = self.schedule.scales(s)
        known = self.operator.adjoint(self.y.to(z))
        replaced = (alpha * known + sigma * random.normal_like(z)).to(z.dtype)
        observed = self.operator.observed.to(z.device)
        return torch.where(observed, replaced, drawn), denoised.x_hat

    def _back(self, z: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """A draw of ``q(z_t | z_s)`` for ``s < t``: the noise of a whole stretch at once."""
        schedule = self.schedule
        (alpha_s, _), (alpha_t, sigma_t) = map(schedule.scales, (s, t))
        fresh = -torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))
        moved = alpha_t / alpha_s * z + sigma_t * fresh.sqrt() * random.normal_like(z)
        return moved.to(z.dtype)

    def extra_repr(self) -> str:
        """Its settings."""
        return f"{self.operator}, repeats={self.repeats}, jump={self.jump}"


def _at(denoise: Denoise, t: Tensor, z: Tensor) -> Denoised:
    """A denoiser at one time, as a function of the state."""
    return denoise(z, t)
