r"""Multistep samplers beside DPM-Solver: iPNDM and UniPC, one evaluation of the network a step.

**iPNDM** is Adams-Bashforth's rule on the noise prediction, with DDIM's step:

.. math:: z_s = \frac{\alpha_s}{\alpha_t} (z_t - \sigma_t \bar\varepsilon) + \sigma_s \bar\varepsilon,
    \qquad \bar\varepsilon = \sum_j w_j \hat\varepsilon_{-j}

with the rule's weights for equal steps and, at the start, those of lower order. They add up to one, so
:math:`\bar\varepsilon = \hat\varepsilon_0 + \sum_j w_j (\hat\varepsilon_{-j} - \hat\varepsilon_0)`:
the first part is Euler's step in :math:`\hat x`, and what is added carries the factor
:math:`\sigma_s (1 - e^h)`. Nothing is divided by :math:`\alpha`.

**UniPC** has a predictor, and a corrector that costs no evaluation. The predictor is DPM-Solver++'s
exponential integrator with weights :math:`\rho` that make it exact for polynomials :math:`\hat x(\ell)`,
over the past points :math:`\ell_t + r_k h`. The corrector adds the point that the predictor found,
:math:`r_p = 1`, once the network has been evaluated there:

.. math:: z_s = \frac{\sigma_s}{\sigma_t} z_t + \alpha_s (1 - e^{-h})\, \hat x_0
    - \alpha_s B(h) \sum_k \frac{\rho_k}{r_k} (\hat x_k - \hat x_0), \qquad
    \sum_k r_k^{i-1} \rho_k = \frac{i!\, (-h)\, \varphi_{i+1}(-h)}{B(h)}
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from genmod.checks import invalid, one_of, whole_number
from genmod.denoisers import Denoiser
from genmod.samplers.base import Denoise, Sampler, State, intervals
from genmod.samplers.dpm import log_snrs, lowered, orders_of, phi
from genmod.schedules import Schedule

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights by order, of the newest slope first."""
LIMITS = (math.inf, 2.19, 1.12, 0.60)
"""For each order, the largest rise of log-SNR in a step for which errors do not grow from step to step."""


class IPNDM(Sampler):
    r"""iPNDM of order 1 (which is Euler) to 4: one evaluation a step.

    In :math:`y = z/\alpha` and :math:`r = \sigma/\alpha` the flow is :math:`dy/dr = \hat\varepsilon`. The
    weights have the full order where steps are equal in :math:`r`, and second order on other smooth grids.
    Near pure noise :math:`\hat x` does not depend on the state. There, errors grow from step to step if a
    step raises the log-SNR by more than 2.19 (order 2), 1.12 (3) or 0.60 (4). A longer step uses the
    highest order that is stable; the published method does not.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        order: from 1 to 4.
        published: use the full order in long steps, too. Only for paths of short steps.

    Raises:
        ValueError: another order.

    Reference: Liu, Ren, Lin, Zhao, "Pseudo numerical methods for diffusion models on manifolds" (2022),
    eq. 12; started without its Runge-Kutta steps by Zhang, Chen, "Fast sampling of diffusion models with
    exponential integrator" (2023), appendix H.
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
        order = whole_number(order, "order")
        if not 1 <= order <= 4:
            raise invalid(f"order={order}", "an order from 1 to 4", "4 is the paper's choice")
        self.order, self.published = order, published

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """Euler's step, plus the terms of older noise predictions."""
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
        """The order of each step: limited by the number of past slopes and by stability."""
        rises = log_snrs(self.schedule, times).diff(dim=0)
        longest = rises.flatten(1).amax(1) if rises.ndim > 1 else rises
        orders = []
        for step, rise in enumerate(longest.tolist()):
            stable = sum(rise <= limit for limit in LIMITS) if not self.published else self.order
            orders.append(min(self.order, step + 1, stable))
        return orders

    def extra_repr(self) -> str:
        return f"order={self.order}" + (", published=True" if self.published else "")


def differences(order: int) -> tuple[float, ...]:
    """The rule of an order minus Euler's step: a weight for each slope, the newest first."""
    weights = ADAMS_BASHFORTH[order - 1]
    return (weights[0] - 1, *weights[1:]) if order > 1 else ()


SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "bh1": torch.neg,
    "bh2": lambda h: torch.expm1(-h),
}
"""The paper's two functions ``B(h)``: ``-h``, and ``exp(-h) - 1``."""


class UniPC(Sampler):
    r"""UniPC of order 1, 2 or 3: one evaluation a step; the corrector adds one order to the predictor's.

    A path yields the predicted states, at which the network is evaluated. The last state is not corrected,
    because that would take one more evaluation.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        order: of the predictor: 1, 2 or 3.
        scale: the paper's ``B(h)``, by diffusers' names: ``"bh2"``, :math:`e^{-h} - 1`; or ``"bh1"``,
            :math:`-h`, for few steps without guidance.
        lower_order_final: end with steps of lower order, as the authors do with fewer than 15 steps.
        published: use the full order in long steps, as in the paper. Otherwise those are of order 1, as
            for :class:`~genmod.samplers.DPMSolver`.

    Raises:
        ValueError: another order or scale.

    Reference: Zhao, Bai, Rao, Zhou, Lu, "UniPC: a unified predictor-corrector framework for fast sampling
    of diffusion models" (2023), algorithms 1 and 2 in the data-prediction form of appendix B.
    """

    def __init__(
        self,
        denoiser: Denoiser | None = None,
        schedule: Schedule | None = None,
        *,
        order: int = 2,
        scale: str = "bh2",
        lower_order_final: bool = False,
        published: bool = False,
    ) -> None:
        super().__init__(denoiser, schedule)
        order = whole_number(order, "order")
        if not 1 <= order <= 3:
            raise invalid(f"order={order}", "order 1, 2 or 3", "higher ones are not stable")
        self.scale = one_of(SCALES, scale, "scale")
        self.order, self.lower_order_final = order, lower_order_final
        self.published = published

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """Correct the state by its ``x_hat``, then predict the next state."""
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
        r"""The weight of each ``x_hat`` in a step, the newest first, as a multiple of :math:`\alpha_s`.

        The newest ``x_hat`` of a corrector is that at the end of the step; of a predictor, at its start.

        Args:
            order: of this step.
            half: half the log-SNR at the start of the step, at its end, and at the times before it, the
                latest first.
            corrector: whether the end of the step is one of the points.
        """
        start, end, *before = half
        h = end - start
        past = [(each - start) / h for each in before[: order - 1]]
        points = [torch.ones_like(h), *past] if corrector else past
        scale = SCALES[self.scale](h)
        parts = [-scale * rho / r for rho, r in zip(_rhos(points, h, scale), points, strict=True)]
        own = -torch.expm1(-h) - sum(parts, torch.zeros_like(h))
        return [parts[0], own, *parts[1:]] if corrector else [own, *parts]

    def extra_repr(self) -> str:
        flags = {"lower_order_final": self.lower_order_final, "published": self.published}
        names = "".join(f", {flag}=True" for flag, on in flags.items() if on)
        return f"order={self.order}, scale={self.scale}{names}"


def _rhos(points: Sequence[Tensor], h: Tensor, scale: Tensor) -> Sequence[Tensor]:
    r"""The :math:`\rho_k` of a step: the linear equations above, a Vandermonde system in :math:`r_k`.

    There are as many equations as points, at most 3. They can be solved because no two points are at one
    time. They are solved in float64: with steps of very different lengths the :math:`r_k` reach hundreds,
    their squares 1e5, and float32 would keep two or three digits of :math:`\rho_k`.
    """
    if len(points) == 1:
        # The paper's choice for one point: it has the order that is needed, and does not depend on h.
        return [torch.full_like(h, 0.5)]
    if not points:
        return []
    powers = torch.stack([torch.stack([r**i for r in points], -1) for i in range(len(points))], -2)
    # Both factors tend to zero with h, their ratio to a constant: -h phi(-h) / B(h) is of order one.
    wanted = [-math.factorial(i) * h * phi(i + 1, -h) / scale for i in range(1, len(points) + 1)]
    solved: Tensor = torch.linalg.solve(powers, torch.stack(wanted, -1))
    return solved.unbind(-1)
