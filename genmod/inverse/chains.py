r"""Posterior samplers that change the steps of a chain, and not its denoiser.

Both are approximations, and biased even for Gaussian data; the guide on inverse problems has by how much.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.diffusion import ReverseVariance
from genmod.inverse.calculus import pullback
from genmod.inverse.operators import Mask, Operator
from genmod.inverse.posterior import check_measurement, check_rows
from genmod.samplers import Ancestral, Sampler, Walk
from genmod.samplers.walk import Part, blend
from genmod.schedules import Schedule
from genmod.shapes import event_sum, expand_like


class DPS(Sampler):
    r"""Diffusion posterior sampling: each ancestral step, then one down the residual's slope.

    .. math:: z_s \leftarrow z_s - \zeta_t\, \nabla_{z_t} \|y - A\hat x(z_t)\|^2, \qquad
        \zeta_t = \frac{\zeta}{\|y - A\hat x(z_t)\|}

    The step has the length that :math:`\zeta` says at any noise level and for any number of steps:
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

    draws = True

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
        require(0 <= zeta < float("inf"), f"zeta={zeta}", "zeta >= 0", "0.1 to 1 are customary")
        self.operator, self.y, self.zeta = operator, y, zeta
        self.chain = Ancestral(variance=variance)

    def march(self, walk: Walk, z: Tensor) -> Iterator[tuple[Tensor, Part]]:
        """After each step of a walk, the state and the ``x_hat`` it was made with."""
        check_rows(self.operator, self.y, z)
        draw, lengths = self.chain.drawing(walk), walk.lengths()
        for step, level in enumerate(walk.levels[:-1]):
            denoised, pull = pullback(walk.denoiser, z, level.log_snr, walk.context)
            slope = -2 * pull(self.operator.adjoint(self._direction(denoised.x_hat)))
            # The paper's is a slope in the schedule's own state, and so is its step.
            scale = lengths[step] * lengths[step + 1]
            z = draw(step, z, denoised) - self.zeta * slope / scale
            yield z, denoised.x_hat

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

    The observed entries' noise knows nothing of the others, so each stretch of ``jump`` steps is noised
    again by :math:`q(z_t | z_s)` and walked once more, ``repeats`` times in all (the first stretch
    once, as the authors do): then the two have time to agree. ``y`` is taken to have no noise.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
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

    draws = True

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
        """How often a path of so many steps asks the denoiser: the first stretch is walked once."""
        return self.repeats * steps - (self.repeats - 1) * min(self.jump, steps)

    def march(self, walk: Walk, z: Tensor) -> Iterator[tuple[Tensor, Part]]:
        """After each step of a walk, its state when it has been passed for the last time."""
        check_rows(self.operator, self.y, z)
        draw, known = self.chain.drawing(walk), self.operator.adjoint(self.y.to(z))
        alpha, sigma = walk.each(walk.alpha[1:]), walk.each(walk.sigma[1:])
        observed = self.operator.observed.to(z.device)

        def take(step: int, z: Tensor) -> tuple[Tensor, Tensor]:
            denoised = walk.denoised(z, walk.levels[step])
            drawn = draw(step, z, denoised)
            seen = alpha[step] * known + sigma[step] * random.normal_like(z)
            return torch.where(observed, seen, drawn), denoised.x_hat

        for first in range(0, len(walk), self.jump):
            last = min(first + self.jump, len(walk))
            for _ in range(self.repeats - 1 if first else 0):
                for step in range(first, last):
                    z, _x_hat = take(step, z)
                z = self._back(walk, z, last, first)
            for step in range(first, last):
                z, x_hat = take(step, z)
                yield z, x_hat

    def _back(self, walk: Walk, z: Tensor, s: int, t: int) -> Tensor:
        """A draw of ``q(z_t | z_s)``: the noise of a whole stretch at one leap."""
        fresh = -torch.expm1(walk.log_snr[t : t + 1] - walk.log_snr[s : s + 1])
        (keep,) = walk.each(walk.alpha[t : t + 1] / walk.alpha[s : s + 1])
        (std,) = walk.each(walk.sigma[t : t + 1] * fresh.sqrt())
        return blend(z, keep, [(std, random.normal_like(z))])

    def extra_repr(self) -> str:
        """Its settings."""
        return f"{self.operator}, repeats={self.repeats}, jump={self.jump}"
