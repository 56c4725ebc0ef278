r"""A grid of noise levels laid out once, before the first step, so that a step costs next to nothing.

All samplers work on variance-preserving states and half log-SNR :math:`\ell = \log(\alpha/\sigma)`,
and write a step in the exponential-integrator form

.. math:: z_s = \frac{\sigma_s}{\sigma_t} z_t + \alpha_s (1 - e^{-h})\, \hat x, \qquad
    h = \ell_s - \ell_t

whose factors stay moderate where :math:`z / \alpha` does not: at a log-SNR of -40 that is 1e9, and
float32 would lose the image in it. Factors are found in float64 for the whole grid at once and handed
out as Python floats: a step then reads no tensor of one number, and a GPU never waits.

What a network says is linear in :math:`\hat x`, too: :math:`\hat x = a z + b o`. A step takes the factors
of an :class:`Answer` into its own and never makes the :math:`\hat x` that nobody asks for: of large states
a step's cost is its passes over memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from genmod.denoisers import Denoised, Denoiser
from genmod.schedules import Bridge, Point, Schedule, time_dtype
from genmod.shapes import expand_like

Scale: TypeAlias = float | Tensor
"""A factor of a step: one number for all rows, or one a row, shaped to broadcast."""


class NoiseLevel(NamedTuple):
    """A noise level as a denoiser takes it, and how it is read there."""

    log_snr: Tensor
    """``(B,)``."""
    reading: tuple[Scale, Scale] | None
    """The factors ``a, b`` of its ``x_hat``; ``None`` where that is what it says itself."""


class Answer(NamedTuple):
    r"""What a denoiser said of a state, as yet unread."""

    z: Tensor
    said: Tensor
    level: NoiseLevel

    @property
    def x_hat(self) -> Tensor:
        r""":math:`\hat x = a z + b o`: made when it is asked for."""
        return self.said if self.level.reading is None else blend(self.z, 0.0, [(1.0, self)])


Part: TypeAlias = Tensor | Answer
"""What a step adds up; an answer stands for its ``x_hat``."""


class Walk:
    """One path: its times, their noise levels, and the denoiser along them.

    Args:
        denoiser: the denoiser.
        schedule: the schedule.
        z: the first state, ``(B, *event)``.
        times: ``(N + 1,)``, or ``(N + 1, B)`` for rows that go their own ways.
        context: what the denoiser is told beside the state.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        z: Tensor,
        times: Tensor,
        context: Tensor | None = None,
    ) -> None:
        self.denoiser, self.schedule, self.like, self.context = denoiser, schedule, z, context
        self.times = times = times.to(time_dtype(times.device))
        with torch.no_grad():
            log_snr = schedule.log_snr(times.reshape(-1)).reshape(times.shape)
        # One log-SNR for all rows is a number: it leaves the device once, here.
        self.log_snr = log_snr.cpu().double() if times.ndim == 1 else log_snr
        self.half = 0.5 * self.log_snr
        """Half the log-SNR at each time."""
        self.rises = self.half.diff(dim=0)
        """``h`` of each step: how much half the log-SNR rises."""
        self.alpha, self.sigma = _scales(self.log_snr)
        self.levels = self._read(self.log_snr, self.alpha, self.sigma)

    def __len__(self) -> int:
        return len(self.times) - 1

    @property
    def shrinkage(self) -> Tensor:
        r""":math:`\sigma_s / \sigma_t` of each step."""
        return self.sigma[1:] / self.sigma[:-1]

    def earlier(self, count: int) -> Tensor:
        """Half the log-SNR ``count`` times before each step's start.

        Before the first, as if the first step had been made before: those are never used, and finite.
        """
        back = torch.arange(count, 0, -1, dtype=self.half.dtype, device=self.half.device)
        back = back.reshape(-1, *[1] * (self.half.ndim - 1))
        padded = torch.cat([self.half[:1] - back * self.rises[:1], self.half[:-1]])
        return padded[: len(self)]

    def rows(self, log_snr: Tensor) -> Sequence[NoiseLevel]:
        """Log-SNRs, one for each step, as a denoiser takes them."""
        return self._read(log_snr, *_scales(log_snr))

    def _read(self, log_snr: Tensor, alpha: Tensor, sigma: Tensor) -> Sequence[NoiseLevel]:
        spread = log_snr.to(self.like.dtype).to(self.like.device)
        if spread.ndim == 1:
            spread = spread[:, None].expand(-1, len(self.like)).contiguous()
        of_z, of_said = self.denoiser.reading(alpha, sigma)
        if not bool(of_z.any()) and bool((of_said == 1).all()):
            return [NoiseLevel(row, None) for row in spread.unbind(0)]
        readings = zip(self.each(of_z), self.each(of_said), strict=True)
        return [NoiseLevel(*both) for both in zip(spread.unbind(0), readings, strict=True)]

    def each(self, factors: Tensor) -> Sequence[Scale]:
        """Factors, one for each step, as a step takes them."""
        if factors.ndim == 1:
            found: list[float] = factors.tolist()
            return found
        return [expand_like(row, self.like) for row in factors]

    def lengths(self) -> Sequence[Scale]:
        r""":math:`\sqrt{\alpha^2 + \sigma^2}` at each time: how much larger the schedule's states are."""
        flat = self.times.reshape(-1)
        alpha, sigma = self.schedule.scales(flat)
        length = torch.hypot(alpha, sigma).detach().reshape(self.times.shape)
        return self.each(length.cpu() if length.ndim == 1 else length)

    def answer(self, z: Tensor, level: NoiseLevel) -> Answer:
        """What the denoiser says of a variance-preserving state at a noise level."""
        return Answer(z, self.denoiser.said(z, level.log_snr, self.context), level)

    def x_hat(self, z: Tensor, level: NoiseLevel) -> Tensor:
        """What it takes for the data there."""
        return self.answer(z, level).x_hat

    def denoised(self, z: Tensor, level: NoiseLevel) -> Denoised:
        """All that it makes of it, variances and all."""
        return self.denoiser(z, level.log_snr, self.context)

    @cached_property
    def bridges(self) -> Bridge:
        """The law that each step draws from, in the schedule's own states, for all steps at once."""
        found: list[Tensor] = [self.times, self.log_snr, self.alpha, self.sigma]
        if not self.schedule.variance_preserving:
            with torch.no_grad():
                found = list(self.schedule.at(self.times.reshape(-1))[:4])
        t, log_snr, *scales = (each.reshape(self.times.shape) for each in found)
        near, far = (
            Point(
                t[at], log_snr[at], scales[0][at], scales[1][at], self.schedule.variance_preserving
            )
            for at in (slice(1, None), slice(None, -1))
        )
        return Bridge.between(near, far)

    def bridge(self, step: int) -> Bridge:
        """The law that a step draws from, row by row."""
        rows, device = len(self.like), self.like.device
        found = (each[step].to(time_dtype(device)).to(device) for each in self.bridges)
        return Bridge(*(each.expand(rows) for each in found))


def _scales(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()


def blend(z: Tensor, keep: Scale, parts: Iterable[tuple[Scale, Part]]) -> Tensor:
    """``keep * z + sum_j scale_j * part_j``, with one pass over memory for each tensor.

    An answer about ``z`` itself is one tensor more, what was said; about another state it is two.
    """
    terms: list[tuple[Scale, Tensor]] = []
    for scale, part in parts:
        if isinstance(part, Tensor):
            terms.append((scale, part))
        elif part.level.reading is None:
            terms.append((scale, part.said))
        else:
            of_z, of_said = part.level.reading
            if part.z is z:
                keep = keep + scale * of_z
            else:
                terms.append((scale * of_z, part.z))
            terms.append((scale * of_said, part.said))
    total = z * keep
    for scale, part in terms:
        if isinstance(scale, float):
            total.add_(part, alpha=scale)
        else:
            total.add_(part * scale)
    return total


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
