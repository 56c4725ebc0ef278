r"""DPM-Solver++: multistep exponential integrators of the probability flow, and of its SDE.

The flow solved for :math:`\hat x` as a function of :math:`\ell = \log(\alpha/\sigma)` is exactly

.. math:: z_s = \frac{\sigma_s}{\sigma_t} z_t
    + \alpha_s \int_0^h e^{\tau - h}\, \hat x(\ell_t + \tau)\, d\tau

With :math:`\hat x` a Taylor polynomial around the step's start, whose derivatives come from past
evaluations, the integral is :math:`h \sum_k \varphi_{k+1}(-h)\, h^k \hat x^{(k)}`.

Reference: Lu, Zhou, Bao, Chen, Li, Zhu, "DPM-Solver++: fast solver for guided sampling of diffusion
probabilistic models" (2022), algorithms 1 and 2, section 5, appendix A.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.samplers.base import Linear, Rule
from genmod.samplers.walk import Answer, Walk, blend, phi
from genmod.schedules import Schedule


class DPMSolver(Linear):
    r"""DPM-Solver++ of order 1 (which is Euler), 2 (2M) or 3 (3M); one evaluation a step.

    **As published and corrected.** From Newton's differences :math:`[01] = (\hat x_0 - \hat x_1) / h_0`,
    :math:`[12] = (\hat x_1 - \hat x_2) / h_1` and :math:`[012] = ([01] - [12]) / (h_0 + h_1)`, the
    derivatives are :math:`\hat x' = [01] + h_0 [012]` and :math:`\hat x'' = 2\,[012]`, since a quadratic's
    second divided difference is half of its second derivative. The published third-order update puts
    :math:`[012]` for :math:`\hat x''`: the step's local error is then of third order and the sampler's of
    second. Third order also needs a start that is not first order: one midpoint step (2S, one evaluation
    more). ``DPMSolver(order=3)`` does both; ``published=True`` neither.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        order: 1, 2 or 3.
        sde: solve the reverse SDE, with fresh noise at every step; order 1 is then the ancestral chain.
        published: order 3 with the second difference and the start that were published: second order.
        lower_order_final: end on steps of order 2 and 1, as is customary with fewer than 15 steps.

    Raises:
        ValueError: another order; an SDE of third order.
    """

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        order: int = 2,
        sde: bool = False,
        published: bool = False,
        lower_order_final: bool = False,
    ) -> None:
        super().__init__(denoiser, schedule)
        highest = 2 if sde else 3
        require(
            1 <= order <= highest,
            f"order={order}{' for the SDE' if sde else ''}",
            f"an order from 1 to {highest}",
            "UniPC and IPNDM have other rules; no order of an SDE's noise is gained beyond 2",
        )
        self.order, self.sde, self.published = order, sde, published
        self.lower_order_final = lower_order_final
        self.draws = sde

    def evaluations(self, steps: int) -> int:
        """How often a path of so many steps asks the denoiser."""
        return steps + (self._starts_high and steps > 0)

    @property
    def _starts_high(self) -> bool:
        return self.order == 3 and not self.published

    def rule(self, walk: Walk) -> Rule:
        """The factors of every step."""
        rise = walk.rises
        orders = orders_of(len(walk), self.order, self.lower_order_final)
        if self.sde:
            fresh = -torch.expm1(-2 * rise)
            keep, whole = walk.shrinkage * torch.exp(-rise), walk.alpha[1:] * fresh
            noise: Tensor | None = walk.sigma[1:] * fresh.sqrt()
        else:
            keep, whole = walk.shrinkage, -walk.alpha[1:] * torch.expm1(-rise)
            noise = None
        data = [whole, *(torch.zeros_like(whole) for _ in range(self.order - 1))]
        for order in range(2, self.order + 1):
            chosen = orders == order
            added = self._second(walk, whole) if order == 2 else self._third(walk)
            for column, change in zip(data, added, strict=False):
                column[chosen] += change[chosen]
        return Rule(keep, data, noise)

    def _second(self, walk: Walk, whole: Tensor) -> Sequence[Tensor]:
        r"""2M: :math:`(\hat x_0 - \hat x_1) / 2r` beside :math:`\hat x_0`, with :math:`r = h_0 / h`."""
        slope = 0.5 * whole * walk.rises / (walk.half[:-1] - walk.earlier(1))
        return slope, -slope

    def _third(self, walk: Walk) -> Sequence[Tensor]:
        """3M: the two derivatives of the parabola through three points, in each point's weight."""
        rise, alpha = walk.rises, walk.alpha[1:]
        last, before = walk.half[:-1] - walk.earlier(1), walk.earlier(1) - walk.earlier(2)
        first = alpha * rise.square() * phi(2, -rise)
        second = alpha * rise.pow(3) * phi(3, -rise) * (1 if self.published else 2)
        # What [012] counts for, and its weights on the points: [01] - [12] over the sum of gaps.
        curve = (first * last + second) / (last + before)
        newest, oldest = (first + curve) / last, curve / before
        return newest, -(newest + oldest), oldest

    def first(self, walk: Walk, z: Tensor, answer: Answer) -> Tensor | None:
        """For third order, a midpoint step in half log-SNR (2S)."""
        if not self._starts_high:
            return None
        rise, middle = walk.rises[:1], 0.5 * (walk.log_snr[:1] + walk.log_snr[1:2])
        alpha, sigma = middle.sigmoid().sqrt(), (-middle).sigmoid().sqrt()
        (trial,) = walk.each(-alpha * torch.expm1(-0.5 * rise))
        (kept,) = walk.each(sigma / walk.sigma[:1])
        (whole,) = walk.each(-walk.alpha[1:2] * torch.expm1(-rise))
        (keep,) = walk.each(walk.shrinkage[:1])
        (level,) = walk.rows(middle)
        return blend(z, keep, [(whole, walk.answer(blend(z, kept, [(trial, answer)]), level))])

    def extra_repr(self) -> str:
        """Its settings."""
        flags = {
            "sde": self.sde,
            "published": self.published,
            "lower_order_final": self.lower_order_final,
        }
        return ", ".join([f"order={self.order}", *(f"{f}=True" for f, on in flags.items() if on)])


def orders_of(steps: int, order: int, lower_order_final: bool) -> Tensor:
    """The order of each step: as high as its memory reaches, and falling at the end if asked to.

    >>> orders_of(5, 3, True).tolist()
    [1, 2, 3, 2, 1]
    """
    index = torch.arange(steps)
    orders = (index + 1).clamp(max=order)
    return torch.minimum(orders, steps - index) if lower_order_final else orders
