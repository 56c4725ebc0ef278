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

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from genmod import random
from genmod.checks import invalid, whole_number
from genmod.denoisers import Denoiser
from genmod.samplers.base import Denoise, Sampler, State, intervals
from genmod.schedules import Schedule


class DPMSolver(Sampler):
    r"""DPM-Solver++ of order 1 (which is Euler), 2 (2M) or 3 (3M): good samples in 10 to 20 steps.

    A step uses one evaluation of the denoiser and the results of the last one or two. In second order,
    with :math:`h = \ell_s - \ell_t` and :math:`h_0` that of the step before,

    .. math:: z_s = \frac{\sigma_s}{\sigma_t} z_t + \alpha_s (1 - e^{-h})
        \left(\hat x_0 + \frac{h}{2 h_0} (\hat x_0 - \hat x_1)\right)

    **The corrected third order.** From Newton's differences :math:`[01] = (\hat x_0 - \hat x_1) / h_0`,
    :math:`[12] = (\hat x_1 - \hat x_2) / h_1` and :math:`[012] = ([01] - [12]) / (h_0 + h_1)`, the
    derivatives are :math:`\hat x' = [01] + h_0 [012]` and :math:`\hat x'' = 2\,[012]`, since a quadratic's
    second divided difference is half of its second derivative. The published third-order update has
    :math:`[012]` in place of :math:`\hat x''`, which makes the sampler one of second order. Third order
    also needs a first step of second order: one midpoint step (2S, one evaluation more).
    ``DPMSolver(order=3)`` does both; ``published=True`` does neither.

    **Long steps.** In a step much longer than those before, past differences extrapolate too far, and
    samples become too large. The last one of even times is such a step. So a step is of first order where
    the log-SNR rises by more than 4. It is also of first order where the rise is more than 1 and more than
    twice that of the step before. It is of third order only where the log-SNR rises by at most 2.
    ``published=True`` gives every step the full order.

    Args:
        denoiser, schedule: as for every :class:`~genmod.samplers.Sampler`.
        order: 1, 2 or 3.
        sde: solve the reverse SDE, with fresh noise at every step; order 1 is then the ancestral chain.
        published: the method of the paper, with the full order in long steps and the published order 3.
        lower_order_final: end with steps of order 2 and 1, as the authors do with fewer than 15 steps.

    Raises:
        ValueError: another order; an SDE of third order.

    Reference: Lu, Zhou, Bao, Chen, Li, Zhu, "DPM-Solver++: fast solver for guided sampling of diffusion
    probabilistic models" (2022), algorithm 2 and section 5.

    >>> from genmod.models import Diffusion
    >>> model = Diffusion((1, 8, 8), bins=17)
    >>> model.sample(2, steps=10, sampler=DPMSolver(order=2)).shape
    torch.Size([2, 1, 8, 8])
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
        highest, order = 2 if sde else 3, whole_number(order, "order")
        if not 1 <= order <= highest:
            raise invalid(
                f"order={order}{' for the SDE' if sde else ''}",
                f"an order from 1 to {highest}",
                "order 2 is the default; UniPC and IPNDM are other multistep methods",
            )
        self.order, self.sde, self.published = order, sde, published
        self.lower_order_final = lower_order_final
        self.stochastic = sde

    def evaluations(self, steps: int) -> int:
        return steps + (self.starts_high and steps > 0)

    @property
    def starts_high(self) -> bool:
        """Whether the first step is a midpoint step."""
        return self.order == 3 and not self.published

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """A step from the newest ``x_hat`` and the differences of the last two or three."""
        half: deque[Tensor] = deque(maxlen=self.order)
        x_hats: deque[Tensor] = deque(maxlen=self.order)
        orders = self.orders(log_snrs(self.schedule, times)).tolist()
        for i, (t, s) in enumerate(intervals(times, z)):
            x_hats.appendleft(denoise(z, t).x_hat)
            half.appendleft(0.5 * self.schedule.log_snr(t))
            if i == 0 and self.starts_high:
                z = self._midpoint(z, t, s, x_hats[0], denoise)
            else:
                h, gaps = (
                    0.5 * self.schedule.log_snr(s) - half[0],
                    [a - b for a, b in pairwise(half)],
                )
                keep, weights, std = self.coefficients(orders[i], h, gaps)
                (_, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
                moved = keep * sigma_s / sigma_t * z
                for weight, x_hat in zip(weights, x_hats, strict=False):
                    moved = moved + alpha_s * weight * x_hat
                if self.sde:
                    moved = moved + sigma_s * std * random.normal_like(z)
                z = moved.to(z.dtype)
            yield State(s, z, x_hats[0])

    def orders(self, log_snr: Tensor) -> Tensor:
        """The order of each step, from the log-SNR at each time of a path."""
        orders = orders_of(len(log_snr) - 1, self.order, self.lower_order_final)
        return orders if self.published else lowered(orders, log_snr)

    def coefficients(
        self, order: int, h: Tensor, gaps: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        r"""The factors of a step in units of :math:`\sigma_s/\sigma_t`, :math:`\alpha_s`, :math:`\sigma_s`.

        Args:
            order: of this step.
            h: how much half the log-SNR rises in it.
            gaps: how much it rose in the steps before, the latest step first; at least ``order - 1``.

        Returns:
            The factor of the state; of each ``x_hat``, the newest first; of fresh noise.
        """
        if self.sde:
            keep, whole = torch.exp(-h), -torch.expm1(-2 * h)
            std = whole.sqrt()
        else:
            keep, whole, std = torch.ones_like(h), -torch.expm1(-h), torch.zeros_like(h)
        if order == 1:
            return keep, [whole], std
        if order == 2:
            # 2M: the slope (x_0 - x_1) / h_0, over the first half of the step.
            slope = 0.5 * whole * h / gaps[0]
            return keep, [whole + slope, -slope], std
        first = h.square() * phi(2, -h)
        second = h.pow(3) * phi(3, -h) * (1 if self.published else 2)
        # The weight of [012] = ([01] - [12]) / (sum of gaps), and from it the weights of the points.
        curve = (first * gaps[0] + second) / (gaps[0] + gaps[1])
        newest, oldest = (first + curve) / gaps[0], curve / gaps[1]
        return keep, [whole + newest, -(newest + oldest), oldest], std

    def _midpoint(self, z: Tensor, t: Tensor, s: Tensor, x_hat: Tensor, denoise: Denoise) -> Tensor:
        """The first step of third order: 2S, by the ``x_hat`` in the middle of the step in log-SNR."""
        schedule = self.schedule
        low, high = schedule.log_snr(t), schedule.log_snr(s)
        m = schedule.time(0.5 * (low + high))
        (_, sigma_t), (alpha_m, sigma_m), (alpha_s, sigma_s) = map(schedule.scales, (t, m, s))
        h, half = 0.5 * (high - low), 0.5 * (schedule.log_snr(m) - low)
        middle = (sigma_m / sigma_t * z - alpha_m * torch.expm1(-half) * x_hat).to(z.dtype)
        x_hat = denoise(middle, m).x_hat
        return (sigma_s / sigma_t * z - alpha_s * torch.expm1(-h) * x_hat).to(z.dtype)

    def extra_repr(self) -> str:
        flags = {
            "sde": self.sde,
            "published": self.published,
            "lower_order_final": self.lower_order_final,
        }
        return ", ".join([f"order={self.order}", *(f"{f}=True" for f, on in flags.items() if on)])


def orders_of(steps: int, order: int, lower_order_final: bool) -> Tensor:
    """The order of each step: at most one more than the steps before it, or than those after it.

    >>> orders_of(5, 3, True).tolist()
    [1, 2, 3, 2, 1]
    """
    index = torch.arange(steps)
    orders = (index + 1).clamp(max=order)
    return torch.minimum(orders, steps - index) if lower_order_final else orders


LONGEST = 2.0
"""How much longer than the one before it, in log-SNR, a long step of more than first order may be."""
SHORT = 1.0
"""A rise of log-SNR up to which a step is short: any order is safe there."""


def log_snrs(schedule: Schedule, times: Tensor) -> Tensor:
    """The log-SNR at each time of a path, of the shape of the times, without a gradient."""
    with torch.no_grad():
        return schedule.log_snr(times.reshape(-1)).reshape(times.shape)


def lowered(orders: Tensor, log_snr: Tensor) -> Tensor:
    """The orders of a path's steps, lower where a step is too long for what was evaluated before it.

    Args:
        orders: of each step, ``(N,)``.
        log_snr: at each time, ``(N + 1,)``, or with more dimensions, whose longest step counts.
    """
    # As Python numbers: a path has few steps, and a dozen small tensors would cost more than they do.
    rises = log_snr.reshape(len(log_snr), -1).diff(dim=0).abs().tolist()
    found = orders.tolist()
    for i, rise in enumerate(rises):
        # The first step has no step before it; it is of first order already.
        if i > 0 and any(map(_too_long, rise, rises[i - 1])):
            found[i] = 1
        elif max(rise) > 2 * SHORT:
            # A parabola through three past values is far off over a long step.
            found[i] = min(found[i], 2)
    return torch.tensor(found)


def _too_long(rise: float, before: float) -> bool:
    return rise > 4 * SHORT or (rise > SHORT and rise > LONGEST * before)


def phi(order: int, x: Tensor) -> Tensor:
    r"""The exponential integrators' :math:`\varphi_k`, for ``k`` of at least 1.

    .. math:: \varphi_k(x) = \int_0^1 e^{(1 - u) x} \frac{u^{k-1}}{(k-1)!}\, du, \qquad
        \varphi_k(x) = \frac{\varphi_{k-1}(x) - 1/(k-1)!}{x}, \quad \varphi_0 = e^x

    >>> phi(1, torch.tensor([0.0, 1.0], dtype=torch.float64))
    tensor([1.0000, 1.7183], dtype=torch.float64)
    """
    powers = x[..., None].expand(*x.shape, 15).cumprod(-1)
    weights = [1 / math.factorial(term + order) for term in range(1, 16)]
    series = powers @ powers.new_tensor(weights) + 1 / math.factorial(order)
    far = torch.where(x.abs() < 0.5, torch.ones_like(x), x)
    value = torch.expm1(far) / far
    for lower in range(1, order):
        value = (value - 1 / math.factorial(lower)) / far
    # The recursion loses digits near zero: at x = 1e-5 and k = 3, all of them.
    return torch.where(x.abs() < 0.5, series, value)
