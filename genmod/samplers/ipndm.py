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

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.samplers.base import Sampler
from genmod.samplers.walk import Part, Scale, Walk, blend
from genmod.schedules import Schedule

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights by order, of the newest slope first."""


class IPNDM(Sampler):
    r"""iPNDM of order 1 (which is Euler) to 4: one evaluation a step.

    In :math:`y = z/\alpha` and :math:`r = \sigma/\alpha` the flow is :math:`dy/dr = \hat\varepsilon`, so
    the weights are the right ones where steps are equal in :math:`r`; on other smooth grids, second order
    is left. Where :math:`\hat x` does not answer to the state (near pure noise), an error grows from step
    to step if log-SNR rises by more than 2.19 (order 2), 1.12 (3) or 0.60 (4) in one: with few steps take
    a lower order, or a grid with shorter steps there (:class:`~genmod.samplers.PolynomialGrid`).

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        order: from 1 to 4.

    Raises:
        ValueError: another order.
    """

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        order: int = 4,
    ) -> None:
        super().__init__(denoiser, schedule)
        require(1 <= order <= 4, f"order={order}", "an order from 1 to 4", "4 is customary")
        self.order = order

    def march(self, walk: Walk, z: Tensor) -> Iterator[tuple[Tensor, Part]]:
        """After each step of a walk, the state and the ``x_hat`` it was made with."""
        rise, alpha, sigma = walk.rises, walk.alpha, walk.sigma
        keep, data = walk.each(walk.shrinkage), walk.each(-alpha[1:] * torch.expm1(-rise))
        per_noise = walk.each(-sigma[1:] * torch.expm1(rise))
        of_z, of_x = walk.each(1 / sigma[:-1]), walk.each(-alpha[:-1] / sigma[:-1])
        memory: deque[Tensor] = deque(maxlen=self.order)
        for i, level in enumerate(walk.levels[:-1]):
            x_hat = walk.x_hat(z, level)
            parts: list[tuple[Scale, Tensor]] = [(data[i], x_hat)]
            if self.order > 1:
                memory.appendleft(blend(z, of_z[i], [(of_x[i], x_hat)]))
                weights = ADAMS_BASHFORTH[len(memory) - 1]
                changed = (weights[0] - 1, *weights[1:])
                parts += [(w * per_noise[i], eps) for w, eps in zip(changed, memory, strict=True)]
            z = blend(z, keep[i], parts)
            yield z, x_hat

    def extra_repr(self) -> str:
        """Its settings."""
        return f"order={self.order}"
