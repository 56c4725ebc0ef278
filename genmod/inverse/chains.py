r"""Posterior samplers that change the steps of a chain, and not its denoiser.

Both are approximations, and biased even for Gaussian data; the guide on inverse problems has by how much.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.denoisers import Denoised, Denoiser
from genmod.inverse.calculus import pullback
from genmod.inverse.operators import Mask, Operator
from genmod.inverse.posterior import check_measurement, check_rows
from genmod.samplers import Ancestral, ReverseVariance, Sampler
from genmod.schedules import Schedule
from genmod.shapes import against, event_sum
from genmod.types import PerSample, Real


class DPS(Sampler):
    r"""Diffusion posterior sampling: each ancestral step, then one down the residual's slope.

    .. math:: z_s \leftarrow z_s - \zeta_t\, \nabla_{z_t} \|y - A\hat x(z_t)\|^2, \qquad
        \zeta_t = \frac{\zeta}{\|y - A\hat x(z_t)\|}

    The step has the length that :math:`\zeta` says at any noise level and for any number of steps:
    :math:`\zeta` must be tuned for each of them, and the noise of ``y`` does not enter. The paper's 0.1 to
    1 are for 1000 steps. The authors' code takes the gradient of the norm: half of their formula.

    Args:
        denoiser: the denoiser.
        schedule: the schedule.
        operator: ``A``.
        y: the measurement, one a row or one for all, on the scale of the diffusion's real data.
        zeta: the step.
        variance: the variance of a step; the posterior's by default.

    Raises:
        ValueError: a measurement of a wrong shape, or a negative step.

    Reference: Chung, Kim, McCann, Klasky, Ye, "Diffusion posterior sampling for general noisy inverse
    problems" (2023), algorithm 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        operator: Operator,
        y: Tensor,
        zeta: float = 1.0,
        variance: ReverseVariance | None = None,
    ) -> None:
        super().__init__(denoiser, schedule)
        check_measurement(operator, y)
        require(0 <= zeta < float("inf"), f"zeta={zeta}", "zeta >= 0", "0.1 to 1 are customary")
        self.operator, self.y, self.zeta, self.variance = operator, y, zeta, variance

    def step(self, z_t: Real, t: PerSample, s: PerSample, context: Tensor | None = None) -> Tensor:
        """A draw of the state at ``s < t``."""
        check_rows(self.y, z_t)
        point = self.schedule.at(t)
        size = against(torch.hypot(point.alpha, point.sigma), z_t)
        x_hat, pull = pullback(self.denoiser, z_t / size, point.log_snr.to(z_t.dtype), context)
        residual = self.y.to(x_hat) - self.operator(x_hat)
        length = event_sum(residual.square()).sqrt()
        # A residual of zero has no direction: 0 / 0.
        unit = residual / against(length.clamp(min=torch.finfo(length.dtype).tiny), residual)
        slope = -2 * pull(self.operator.adjoint(unit)) / size
        chain = Ancestral(_Known(x_hat), self.schedule, self.variance)
        return chain.step(z_t, t, s, context) - self.zeta * slope


class RePaint(Sampler):
    r"""Inpainting by replacement: the observed entries come from the data, the others from the chain.

    .. math:: z_s = \begin{cases} \alpha_s y + \sigma_s \varepsilon & \text{observed} \\
        \text{a draw of } p(z_s|z_t) & \text{elsewhere} \end{cases}

    The observed entries' noise knows nothing of the others, so each stretch of ``jump`` steps is noised
    again by :math:`q(z_t | z_s)` and walked once more, ``repeats`` times in all (the first stretch
    once, as the authors do): then the two have time to agree. ``y`` is taken to have no noise.

    Args:
        denoiser: the denoiser.
        schedule: the schedule.
        operator: which entries are observed.
        y: what they are, one a row or one for all, on the scale of the diffusion's real data.
        repeats: how often each stretch is walked; 1 is plain replacement.
        jump: how many steps a stretch has.
        variance: the variance of a step; the posterior's by default.

    Raises:
        ValueError: an operator that is no mask, a measurement of a wrong shape, no repeat or no step.

    Reference: Lugmayr et al., "RePaint: inpainting using denoising diffusion probabilistic models" (2022),
    algorithm 1 and appendix B; replacement is Song et al. (2021), appendix I.2.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
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
        self.chain = Ancestral(denoiser, schedule, variance)

    def step(self, z_t: Real, t: PerSample, s: PerSample, context: Tensor | None = None) -> Tensor:
        """A draw of the state at ``s < t``, its observed entries replaced."""
        check_rows(self.y, z_t)
        drawn, near = self.chain.step(z_t, t, s, context), self.schedule.at(s)
        data = self.operator.adjoint(self.y.to(z_t))
        known = against(near.alpha, z_t) * data
        known = known + against(near.sigma, z_t) * random.normal_like(z_t)
        return torch.where(self.operator.observed, known, drawn)

    def path(self, z: Tensor, times: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        """The states at ``times[1:]`` as they are when the walk has passed them for the last time."""
        for first in range(0, len(times) - 1, self.jump):
            stretch = times[first : first + self.jump + 1]
            for _ in range(self.repeats - 1 if first else 0):
                for state in super().path(z, stretch, context):
                    z = state
                z = self._back(z, stretch[-1], stretch[0])
            for state in super().path(z, stretch, context):
                z = state
                yield z

    def _back(self, z: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """A draw of ``q(z_t | z_s)``: the noise of a whole stretch at one leap."""
        near, far = self.schedule.at(s.reshape(1)), self.schedule.at(t.reshape(1))
        std = far.sigma * (-torch.expm1(far.log_snr - near.log_snr)).sqrt()
        return against(far.alpha / near.alpha, z) * z + against(std, z) * random.normal_like(z)


class _Known(Denoiser):
    """What a denoiser has said already, so that a step does not ask it twice."""

    def __init__(self, x_hat: Tensor) -> None:
        super().__init__()
        self.x_hat = x_hat

    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        """It, whatever is asked."""
        return Denoised(self.x_hat)
