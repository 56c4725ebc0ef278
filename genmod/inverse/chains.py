r"""DPS and RePaint: posterior samplers that change the steps of ancestral sampling, not its denoiser.

Both are approximations, and biased even for Gaussian data. The guide on inverse problems has the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from genmod import random
from genmod.arrays import Rows
from genmod.checks import invalid, whole_number
from genmod.denoisers import Denoised, Denoiser
from genmod.diffusion.variances import ReverseVariance
from genmod.inverse.operators import Mask, Operator, as_measurement, measurements_of
from genmod.nn.jacobian import pullback
from genmod.samplers import Ancestral, Sampler, State
from genmod.samplers.base import Denoise, intervals
from genmod.schedules import Schedule
from genmod.tensors import event_sum, expand_like


class DPS(Sampler):
    r"""Diffusion posterior sampling (DPS): ancestral steps, each with a gradient step on the residual.

    .. math:: z_s \leftarrow z_s - \zeta_t\, \nabla_{z_t} \|y - A\hat x(z_t)\|^2, \qquad
        \zeta_t = \frac{\zeta}{\|y - A\hat x(z_t)\|}

    The length of the gradient step depends neither on the noise level, nor on the number of steps, nor on
    the noise of ``y``. So :math:`\zeta` must be tuned for each of them. The paper's 0.1 to 1 are for 1000
    steps. The authors' code has the gradient of the norm, which is half of their formula.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        operator: ``A``.
        y: the measurement, one for each row or one for all, on the scale of the diffusion's real data.
        zeta: :math:`\zeta`, the size of the gradient step.
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
        y: Rows,
        zeta: float = 1.0,
        variance: ReverseVariance | None = None,
    ) -> None:
        super().__init__(denoiser, schedule)
        y = as_measurement(operator, y)
        if not 0 <= zeta < float("inf"):
            raise invalid(f"zeta={zeta}", "zeta >= 0", "the paper takes 0.1 to 1")
        self.operator, self.y, self.zeta = operator, y, zeta
        self.chain = Ancestral(variance=variance)

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """For each step, an ancestral step and a gradient step on the squared residual."""
        y = measurements_of(self.operator, self.y, z)
        chain = self.chain.bind(self.denoiser, self.schedule)
        for t, s in intervals(times, z):
            x_hat, others, pull = pullback(partial(_at, denoise, t), z)
            denoised = Denoised(x_hat, *others)
            slope = -2 * pull(self.operator.adjoint(self._direction(denoised.x_hat, y)))
            z = chain.draw(z, denoised, t, s) - self.zeta * slope
            yield State(s, z, denoised.x_hat)

    def _direction(self, x_hat: Tensor, y: Tensor) -> Tensor:
        residual = y.to(x_hat) - self.operator(x_hat)
        length = event_sum(residual.square()).sqrt()
        # A residual of zero has no direction: 0 / 0.
        return residual / expand_like(length.clamp(min=torch.finfo(length.dtype).tiny), residual)

    def extra_repr(self) -> str:
        return f"{self.operator}, zeta={self.zeta}"


class RePaint(Sampler):
    r"""Inpainting by replacement: the observed entries come from the data, the others from the chain.

    .. math:: z_s = \begin{cases} \alpha_s y + \sigma_s \varepsilon & \text{observed} \\
        \text{a draw of } p(z_s|z_t) & \text{elsewhere} \end{cases}

    The noise of the observed entries is independent of the others. So that both come to agree, each group
    of ``jump`` steps is repeated: its result is noised again by :math:`q(z_t | z_s)`, and the steps are
    made once more, ``repeats`` times in all. (The first group is made once, as in the authors' code.)
    ``y`` is assumed to have no noise.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        operator: the mask of the observed entries.
        y: their values, one row for each row or one for all, on the scale of the diffusion's real data.
        repeats: how often each group but the first is made; 1 is plain replacement.
        jump: the number of steps in a group; a path needs more steps than that, unless ``repeats=1``.
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
        y: Rows,
        repeats: int = 10,
        jump: int = 10,
        variance: ReverseVariance | None = None,
    ) -> None:
        super().__init__(denoiser, schedule)
        if not isinstance(operator, Mask):
            raise invalid(
                f"a {type(operator).__name__}",
                "a Mask, which observes entries of x",
                "use MMPS for other operators",
            )
        y = as_measurement(operator, y)
        repeats, jump = whole_number(repeats, "repeats"), whole_number(jump, "jump")
        if repeats < 1 or jump < 1:
            raise invalid(
                f"repeats={repeats}, jump={jump}",
                "at least 1 each",
                "10 each is the paper's choice",
            )
        self.operator, self.y, self.repeats, self.jump = operator, y, repeats, jump
        self.chain = Ancestral(variance=variance)

    def evaluations(self, steps: int) -> int:
        """The number of calls of the denoiser on a path: the first group of steps is made once."""
        return self.repeats * steps - (self.repeats - 1) * min(self.jump, steps)

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """Each state after its last repeat.

        Raises:
            ValueError: a path of no more than ``jump`` steps, on which nothing would be repeated.
        """
        y = measurements_of(self.operator, self.y, z)
        steps = list(intervals(times, z))
        if self.repeats != 1 and len(steps) <= self.jump:
            raise invalid(
                f"a path of {len(steps)} steps for {self}",
                f"more than jump={self.jump} steps: the first {self.jump} are made once, only "
                "later steps are repeated",
                "take more steps, a smaller jump, or repeats=1",
            )
        for first in range(0, len(steps), self.jump):
            group = steps[first : first + self.jump]
            for _ in range(self.repeats - 1 if first else 0):
                for t, s in group:
                    z, _x_hat = self._step(z, t, s, denoise, y)
                z = self._back(z, group[-1][1], group[0][0])
            for t, s in group:
                z, x_hat = self._step(z, t, s, denoise, y)
                yield State(s, z, x_hat)

    def _step(
        self, z: Tensor, t: Tensor, s: Tensor, denoise: Denoise, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A draw of ``p(z_s | z_t)`` with its observed entries replaced by noised data."""
        denoised = denoise(z, t)
        drawn = self.chain.bind(self.denoiser, self.schedule).draw(z, denoised, t, s)
        alpha, sigma = self.schedule.scales(s)
        known = self.operator.adjoint(y.to(z))
        replaced = (alpha * known + sigma * random.normal_like(z)).to(z.dtype)
        observed = self.operator.observed.to(z.device)
        return torch.where(observed, replaced, drawn), denoised.x_hat

    def _back(self, z: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """A draw of ``q(z_t | z_s)`` for ``s < t``: the noise of a whole group of steps at once."""
        schedule = self.schedule
        (alpha_s, _), (alpha_t, sigma_t) = map(schedule.scales, (s, t))
        fresh = -torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))
        moved = alpha_t / alpha_s * z + sigma_t * fresh.sqrt() * random.normal_like(z)
        return moved.to(z.dtype)

    def extra_repr(self) -> str:
        return f"{self.operator}, repeats={self.repeats}, jump={self.jump}"


def _at(denoise: Denoise, t: Tensor, z: Tensor) -> Denoised:
    """A denoiser at one time, as a function of the state."""
    return denoise(z, t)
