r"""UniPC: a multistep predictor, and a corrector that costs no evaluation.

The predictor is DPM-Solver++'s exponential integrator with weights :math:`\rho` that make it exact for
polynomials :math:`\hat x(\ell)`, over the past points :math:`\ell_t + r_k h`; the corrector adds the
point that the predictor found, :math:`r_p = 1`, once the network has seen it:

.. math:: z_s = \frac{\sigma_s}{\sigma_t} z_t + \alpha_s (1 - e^{-h})\, \hat x_0
    - \alpha_s B(h) \sum_k \frac{\rho_k}{r_k} (\hat x_k - \hat x_0), \qquad
    \sum_k r_k^{i-1} \rho_k = \frac{i!\, (-h)\, \varphi_{i+1}(-h)}{B(h)}

Reference: Zhao, Bai, Rao, Zhou, Lu, "UniPC: a unified predictor-corrector framework for fast sampling
of diffusion models" (2023), algorithms 1 and 2 in the data-prediction form of appendix B.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.samplers.base import Sampler
from genmod.samplers.dpm import orders_of
from genmod.samplers.walk import Part, Scale, Walk, blend, phi
from genmod.schedules import Schedule


def bh1(rise: Tensor) -> Tensor:
    """The paper's :math:`B_1`: ``-h``. For few steps without guidance."""
    return -rise


def bh2(rise: Tensor) -> Tensor:
    """The paper's :math:`B_2`: ``exp(-h) - 1``. The customary one."""
    return torch.expm1(-rise)


class UniPC(Sampler):
    """UniPC of order 1, 2 or 3: one evaluation a step, an order more than its predictor's.

    A path yields predicted states, the ones that the network sees; the last is not corrected, since
    nobody evaluates it.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        order: of the predictor: 1, 2 or 3.
        scale: :func:`bh2` or :func:`bh1`, the paper's two functions B of a step's rise ``h``.
        lower_order_final: end on steps of lower order, as is customary with fewer than 15 steps.

    Raises:
        ValueError: another order.
    """

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        order: int = 2,
        scale: Callable[[Tensor], Tensor] = bh2,
        lower_order_final: bool = False,
    ) -> None:
        super().__init__(denoiser, schedule)
        require(1 <= order <= 3, f"order={order}", "order 1, 2 or 3", "higher ones are not stable")
        self.order, self.scale, self.lower_order_final = order, scale, lower_order_final

    def march(self, walk: Walk, z: Tensor) -> Iterator[tuple[Tensor, Part]]:
        """After each step of a walk, the state and the ``x_hat`` it was made with."""
        keep = walk.each(walk.shrinkage)
        predict, correct = (self._rows(walk, corrector) for corrector in (False, True))
        memory: deque[Tensor] = deque(maxlen=self.order + 1)
        before = z
        for i, level in enumerate(walk.levels[:-1]):
            memory.appendleft(walk.x_hat(z, level))
            if i > 0:
                z = blend(before, keep[i - 1], zip(correct[i - 1], memory, strict=False))
            before = z
            z = blend(z, keep[i], zip(predict[i], memory, strict=False))
            yield z, memory[0]

    def _rows(self, walk: Walk, corrector: bool) -> list[tuple[Scale, ...]]:
        """The weights of every step, newest point first; a corrector's newest is the step's own end."""
        orders = orders_of(len(walk), self.order, self.lower_order_final)
        columns = [torch.zeros_like(walk.rises) for _ in range(self.order + corrector)]
        for order in range(1, self.order + 1):
            chosen = orders == order
            for column, weight in zip(columns, self._weights(walk, order, corrector), strict=False):
                column[chosen] = weight[chosen]
        return list(zip(*map(walk.each, columns), strict=True))

    def _weights(self, walk: Walk, order: int, corrector: bool) -> Sequence[Tensor]:
        """The weights of one order for every step."""
        rise, alpha = walk.rises, walk.alpha[1:]
        past = [(walk.earlier(k) - walk.half[:-1]) / rise for k in range(1, order)]
        points = [torch.ones_like(rise), *past] if corrector else past
        scale = self.scale(rise)
        parts = [
            -alpha * scale * rho / r
            for rho, r in zip(_rhos(points, rise, scale), points, strict=True)
        ]
        whole = -alpha * torch.expm1(-rise)
        start = whole - sum(parts, torch.zeros_like(rise))
        return [parts[0], start, *parts[1:]] if corrector else [start, *parts]

    def extra_repr(self) -> str:
        """Its settings."""
        final = ", lower_order_final=True" if self.lower_order_final else ""
        return f"order={self.order}, scale={self.scale.__name__}{final}"


def _rhos(points: Sequence[Tensor], rise: Tensor, scale: Tensor) -> Sequence[Tensor]:
    """The weights that make a rule over the given points exact, for each step."""
    if len(points) == 1:
        # The paper's: exact to the order needed, and it spares the rule its dependence on h.
        return [torch.full_like(rise, 0.5)]
    if not points:
        return []
    powers = torch.stack([torch.stack([r**i for r in points], -1) for i in range(len(points))], -2)
    wanted = torch.stack(
        [-math.factorial(i) * rise * phi(i + 1, -rise) / scale for i in range(1, len(points) + 1)],
        -1,
    )
    return torch.linalg.solve(powers, wanted).unbind(-1)
