r"""UniPC: a multistep predictor, and a corrector that costs no evaluation.

The predictor is DPM-Solver++'s exponential integrator with weights :math:`\rho` that make it exact for
polynomials :math:`\hat x(\ell)`, over the past points :math:`\ell_t + r_k h`; the corrector adds the
point that the predictor found, :math:`r_p = 1`, once the network has been evaluated there:

.. math:: z_s = \frac{\sigma_s}{\sigma_t} z_t + \alpha_s (1 - e^{-h})\, \hat x_0
    - \alpha_s B(h) \sum_k \frac{\rho_k}{r_k} (\hat x_k - \hat x_0), \qquad
    \sum_k r_k^{i-1} \rho_k = \frac{i!\, (-h)\, \varphi_{i+1}(-h)}{B(h)}

Reference: Zhao, Bai, Rao, Zhou, Lu, "UniPC: a unified predictor-corrector framework for fast sampling
of diffusion models" (2023), algorithms 1 and 2 in the data-prediction form of appendix B.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from genmod.checks import require
from genmod.config import register
from genmod.denoisers import Denoiser
from genmod.samplers.base import Denoise, Sampler, State, intervals
from genmod.samplers.dpm import log_snrs, lowered, orders_of, phi
from genmod.schedules import Schedule


@register
def bh1(h: Tensor) -> Tensor:
    """The paper's :math:`B_1`: ``-h``. For few steps without guidance."""
    return -h


@register
def bh2(h: Tensor) -> Tensor:
    """The paper's :math:`B_2`: ``exp(-h) - 1``. The default, here and in diffusers."""
    return torch.expm1(-h)


class UniPC(Sampler):
    """UniPC of order 1, 2 or 3: one evaluation a step, an order more than its predictor's.

    A path yields predicted states, those that the network is given. The last is not corrected, since that
    would take one more evaluation.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        order: of the predictor: 1, 2 or 3.
        scale: :func:`bh2` or :func:`bh1`, the paper's two functions B of ``h``.
        lower_order_final: end on steps of lower order, as the authors do with fewer than 15 steps.
        published: as in the paper, the full order in long steps, too; otherwise those are of order 1, as
            for :class:`~genmod.samplers.DPMSolver`.

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
        published: bool = False,
    ) -> None:
        super().__init__(denoiser, schedule)
        require(1 <= order <= 3, f"order={order}", "order 1, 2 or 3", "higher ones are not stable")
        self.order, self.scale, self.lower_order_final = order, scale, lower_order_final
        self.published = published

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """Correct the state by its own ``x_hat``, then predict the next one."""
        x_hats: deque[Tensor] = deque(maxlen=self.order + 1)
        half: deque[Tensor] = deque(maxlen=self.order + 1)
        orders = self.orders(log_snrs(self.schedule, times)).tolist()
        previous: tuple[Tensor, Tensor, Tensor] | None = None
        for i, (t, s) in enumerate(intervals(times, z)):
            x_hats.appendleft(denoise(z, t).x_hat)
            half.appendleft(0.5 * self.schedule.log_snr(t))
            if previous is not None:
                points = [half[1], half[0], *list(half)[2:]]  # the start, the end, those before
                weights = self.weights(orders[i - 1], points, corrector=True)
                z = self._moved(*previous, weights, x_hats)
            previous = z, t, s
            points = [half[0], 0.5 * self.schedule.log_snr(s), *list(half)[1:]]
            z = self._moved(*previous, self.weights(orders[i], points, corrector=False), x_hats)
            yield State(s, z, x_hats[0])

    def orders(self, log_snr: Tensor) -> Tensor:
        """The order of each step, from the log-SNR at each time of a path."""
        orders = orders_of(len(log_snr) - 1, self.order, self.lower_order_final)
        return orders if self.published else lowered(orders, log_snr)

    def _moved(
        self,
        z: Tensor,
        t: Tensor,
        s: Tensor,
        weights: Sequence[Tensor],
        x_hats: Iterable[Tensor],
    ) -> Tensor:
        (_, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
        moved = sigma_s / sigma_t * z
        for weight, x_hat in zip(weights, x_hats, strict=False):
            moved = moved + alpha_s * weight * x_hat
        return moved.to(z.dtype)

    def weights(self, order: int, half: Sequence[Tensor], corrector: bool) -> list[Tensor]:
        r"""The weight of each ``x_hat`` in a step, the newest first, in units of :math:`\alpha_s`.

        A corrector's newest ``x_hat`` is that of the step's end, a predictor's that of its start.

        Args:
            order: of this step.
            half: half the log-SNR at the step's start, at its end, and before it, the last first.
            corrector: whether the step's end is one of the points.
        """
        start, end, *before = half
        h = end - start
        past = [(each - start) / h for each in before[: order - 1]]
        points = [torch.ones_like(h), *past] if corrector else past
        scale = self.scale(h)
        parts = [-scale * rho / r for rho, r in zip(_rhos(points, h, scale), points, strict=True)]
        own = -torch.expm1(-h) - sum(parts, torch.zeros_like(h))
        return [parts[0], own, *parts[1:]] if corrector else [own, *parts]

    def extra_repr(self) -> str:
        """Its settings."""
        flags = {"lower_order_final": self.lower_order_final, "published": self.published}
        names = "".join(f", {flag}=True" for flag, on in flags.items() if on)
        return f"order={self.order}, scale={self.scale.__name__}{names}"


def _rhos(points: Sequence[Tensor], h: Tensor, scale: Tensor) -> Sequence[Tensor]:
    r"""The :math:`\rho_k` of a step: the linear equations above, a Vandermonde system in :math:`r_k`.

    Its size is the number of points, at most 3, and its right side is of order one, since :math:`B(h)`
    divides it: :math:`-h\varphi_{i+1}(-h)` alone would underflow in short steps.
    """
    if len(points) == 1:
        # The paper's: exact to the order needed, and independent of h.
        return [torch.full_like(h, 0.5)]
    if not points:
        return []
    powers = torch.stack([torch.stack([r**i for r in points], -1) for i in range(len(points))], -2)
    wanted = [-math.factorial(i) * h * phi(i + 1, -h) / scale for i in range(1, len(points) + 1)]
    solved: Tensor = torch.linalg.solve(powers, torch.stack(wanted, -1))
    return solved.unbind(-1)
