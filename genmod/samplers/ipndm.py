r"""iPNDM: Adams-Bashforth's multistep rule on the noise prediction, moved by DDIM's step.

.. math:: z_s = \frac{\alpha_s}{\alpha_t} (z_t - \sigma_t \bar\varepsilon) + \sigma_s \bar\varepsilon,
    \qquad \bar\varepsilon = \sum_j w_j \hat\varepsilon_{-j}

with the rule's weights for equal steps and, at the start, those of lower order. Since they add up to
one, :math:`\bar\varepsilon = \hat\varepsilon_0 + \sum_j w_j (\hat\varepsilon_{-j} - \hat\varepsilon_0)`:
the first part is Euler's step in :math:`\hat x`, and what is added carries the factor
:math:`\sigma_s (1 - e^h)`, so nothing is divided by :math:`\alpha`.

Reference: Liu, Ren, Lin, Zhao, "Pseudo numerical methods for diffusion models on manifolds" (2022),
eq. 12; started without its Runge-Kutta steps by Zhang, Chen, "Fast sampling of diffusion models with
exponential integrator" (2023), appendix H.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.samplers.base import Denoise, Sampler, State, intervals
from genmod.samplers.dpm import log_snrs
from genmod.schedules import Schedule

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights by order, of the newest slope first."""
LIMITS = (math.inf, 2.19, 1.12, 0.60)
"""By order, the rise of log-SNR in a step up to which errors do not grow from step to step."""


class IPNDM(Sampler):
    r"""iPNDM of order 1 (which is Euler) to 4: one evaluation a step.

    In :math:`y = z/\alpha` and :math:`r = \sigma/\alpha` the flow is :math:`dy/dr = \hat\varepsilon`, so
    the weights are the right ones where steps are equal in :math:`r`; on other smooth grids, second order
    is left. Where :math:`\hat x` does not depend on the state (near pure noise), an error grows from step
    to step if log-SNR rises by more than 2.19 (order 2), 1.12 (3) or 0.60 (4) in one. A step longer than
    that is made with the highest order that is stable; the paper's method is not limited so.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        order: from 1 to 4.
        published: keep the order in long steps, too. For short steps only.

    Raises:
        ValueError: another order.
    """

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        order: int = 4,
        published: bool = False,
    ) -> None:
        super().__init__(denoiser, schedule)
        require(
            1 <= order <= 4, f"order={order}", "an order from 1 to 4", "4 is the paper's choice"
        )
        self.order, self.published = order, published

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """Euler's step, and what the older noise predictions add to it."""
        memory: deque[Tensor] = deque(maxlen=self.order)
        for (t, s), order in zip(intervals(times, z), self.orders(times), strict=True):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
            h = 0.5 * (self.schedule.log_snr(s) - self.schedule.log_snr(t))
            x_hat = denoise(z, t).x_hat
            moved = sigma_s / sigma_t * z - alpha_s * torch.expm1(-h) * x_hat
            memory.appendleft(((z - alpha_t * x_hat) / sigma_t).to(z.dtype))
            for eps_hat, weight in zip(memory, differences(order), strict=False):
                moved = moved - sigma_s * torch.expm1(h) * weight * eps_hat
            z = moved.to(z.dtype)
            yield State(s, z, x_hat)

    def orders(self, times: Tensor) -> list[int]:
        """The order of each step: no more than it remembers slopes for, nor than is stable."""
        rises = log_snrs(self.schedule, times).diff(dim=0)
        longest = rises.flatten(1).amax(1) if rises.ndim > 1 else rises
        found = []
        for step, rise in enumerate(longest.tolist()):
            stable = sum(rise <= limit for limit in LIMITS) if not self.published else self.order
            found.append(min(self.order, step + 1, stable))
        return found

    def extra_repr(self) -> str:
        """Its settings."""
        return f"order={self.order}" + (", published=True" if self.published else "")


def differences(order: int) -> tuple[float, ...]:
    """What the rule of an order adds to Euler's step: a weight for each slope, the newest first."""
    weights = ADAMS_BASHFORTH[order - 1]
    return (weights[0] - 1, *weights[1:]) if order > 1 else ()
