r"""The faster route of some samplers: fewer passes over memory, for one kind of denoiser. Private.

For large states, the time of a step outside the network is that of its passes over memory. A ``Learned``
denoiser with a shipped target gives :math:`\hat x = a z + b o` for the network's output ``o``. The steps of
these samplers are linear in the state and in the last few :math:`\hat x`. So ``a`` and ``b`` are multiplied
into the factors of a step, in float64 and for all steps at once, and ``x_hat`` itself is not computed.

``Sampler.states`` takes this route by the exact class of the sampler, unless :func:`_usable` refuses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.modules import module as hooks

from genmod import random
from genmod.denoisers import (
    DataTarget,
    Denoised,
    EDMTarget,
    FlowVelocityTarget,
    Learned,
    NoiseTarget,
    ScoreTarget,
    Target,
    VelocityTarget,
)
from genmod.samplers.base import FUSED, HasXHat, Sampler, State
from genmod.samplers.dpm import DPMSolver
from genmod.samplers.flow import Euler, Heun
from genmod.samplers.multistep import UniPC
from genmod.samplers.single_step import DDIM, Ancestral, shares
from genmod.tensors import expand_like

LINEAR = (DataTarget, EDMTarget, FlowVelocityTarget, NoiseTarget, ScoreTarget, VelocityTarget)
"""The targets whose ``x_hat`` is ``a z + b o``; a subclass may do otherwise, and is not among them."""

Factor: TypeAlias = float | Tensor
"""One number for all rows, or one a row, shaped to broadcast."""


class NoiseLevel(NamedTuple):
    """A noise level: its log-SNR, ``(B,)``, and ``a, b`` of ``x_hat = a z + b o``."""

    log_snr: Tensor
    of_z: Factor
    of_output: Factor


class Output(NamedTuple):
    """A network's output for a state, not yet converted to ``x_hat``."""

    z: Tensor
    output: Tensor
    level: NoiseLevel

    @property
    def x_hat(self) -> Tensor:
        return blend(self.z, 0.0, [(1.0, self)])


class NoiseGrid:
    """The noise levels of a path, with variance-preserving scales, computed before the first step.

    Where all rows have one log-SNR, it is copied from the device once, here. Its factors are then Python
    floats, and no step waits for a GPU.
    """

    def __init__(self, sampler: Sampler, z: Tensor, times: Tensor, context: Tensor | None) -> None:
        assert isinstance(sampler.denoiser, Learned)
        self.denoiser, self.schedule, self.like = sampler.denoiser, sampler.schedule, z
        self.context, self.times = context, times
        with torch.no_grad():
            log_snr = self.schedule.log_snr(times.reshape(-1)).reshape(times.shape)
        self.log_snr = log_snr.cpu().double() if times.ndim == 1 else log_snr
        self.half = 0.5 * self.log_snr
        self.h = self.half.diff(dim=0)
        self.alpha, self.sigma = self.log_snr.sigmoid().sqrt(), (-self.log_snr).sigmoid().sqrt()
        self.sigma_ratio = self.sigma[1:] / self.sigma[:-1]
        rows = self.log_snr.to(z.dtype).to(z.device)
        if rows.ndim == 1:
            rows = rows[:, None].expand(-1, len(z)).contiguous()
        read = map(self.each, _factors(self.denoiser.target, self.alpha, self.sigma))
        self.levels = [NoiseLevel(*level) for level in zip(rows.unbind(0), *read, strict=True)]

    def each(self, factors: Tensor) -> Sequence[Factor]:
        """Factors, one for each step: floats, or tensors that broadcast against the state."""
        rows: list[float] | Tensor = factors.tolist() if factors.ndim == 1 else factors
        return [row if isinstance(row, float) else expand_like(row, self.like) for row in rows]

    def previous(self, count: int) -> Tensor:
        """Half the log-SNR ``count`` times before each step's start.

        Before the first time, finite numbers that no step uses.
        """
        back = torch.arange(count, 0, -1, dtype=self.half.dtype, device=self.half.device)
        back = back.reshape(-1, *[1] * (self.half.ndim - 1))
        return torch.cat([self.half[:1] - back * self.h[:1], self.half[:-1]])[: len(self.h)]

    def fill(self, columns: list[Tensor], weights: Sequence[Tensor], chosen: Tensor) -> None:
        """Put weights, in units of alpha, into the columns of the chosen steps."""
        chosen = chosen.to(self.h.device).reshape(-1, *[1] * (self.h.ndim - 1))
        for i, weight in enumerate(weights):
            columns[i] = torch.where(chosen, self.alpha[1:] * weight, columns[i])

    def lengths(self) -> Sequence[Factor]:
        r""":math:`\sqrt{\alpha^2 + \sigma^2}` at each time: how much larger the schedule's states are."""
        alpha, sigma = self.schedule.scales(self.times.reshape(-1))
        length = torch.hypot(alpha, sigma).detach().reshape(self.times.shape)
        return self.each(length.cpu() if length.ndim == 1 else length)

    def output(self, z: Tensor, level: NoiseLevel) -> Output:
        """The network's output for a variance-preserving state."""
        return Output(z, self.denoiser.output(z, level.log_snr, self.context), level)


def _usable(sampler: Sampler) -> bool:
    """Whether ``denoiser(z, log_snr, context).x_hat`` is exactly the target of the network's output."""
    denoiser, schedule = sampler.denoiser, sampler.schedule
    if isinstance(sampler, Ancestral) and not sampler.variance.fixed:
        return False  # a variance that depends on all that a denoiser returns
    if isinstance(sampler, DPMSolver) and sampler.starts_high:
        return False  # its first step is a midpoint step
    if type(denoiser) is not Learned or type(denoiser.target) not in LINEAR:
        return False
    if vars(denoiser).keys() & {"forward", "output"} or "x_hat" in vars(denoiser.target):
        return False  # replaced on this one object
    own = (*denoiser._forward_hooks, *denoiser._forward_pre_hooks)
    all_modules = (*hooks._global_forward_hooks, *hooks._global_forward_pre_hooks)
    # The grid carries no gradients: a schedule that learns takes the plain route.
    learns = torch.is_grad_enabled() and any(p.requires_grad for p in schedule.parameters())
    return not (own or all_modules or learns)


Steps: TypeAlias = Iterator[tuple[Tensor, HasXHat]]
"""After each step, the state, and what has the ``x_hat`` that the step used."""


def _own_scale(grid: NoiseGrid, steps: Steps) -> Steps:
    """The states in the schedule's own scale again."""
    if grid.schedule.variance_preserving:
        yield from steps
        return
    for length, (z, output) in zip(grid.lengths()[1:], steps, strict=True):
        yield z * length, output


def _linear(
    grid: NoiseGrid, z: Tensor, keep: Tensor, data: Sequence[Tensor], noise: Tensor | None = None
) -> Steps:
    """A path by factors of all steps: of the state, each ``x_hat`` (newest first), fresh noise."""
    kept, std = grid.each(keep), None if noise is None else grid.each(noise)
    weights = list(zip(*map(grid.each, data), strict=True))
    memory: deque[Output] = deque(maxlen=len(data))
    for i, level in enumerate(grid.levels[:-1]):
        memory.appendleft(grid.output(z, level))
        parts: list[tuple[Factor, Output | Tensor]] = list(zip(weights[i], memory, strict=False))
        if std is not None:
            parts.append((std[i], random.normal_like(z)))
        z = blend(z, kept[i], parts)
        yield z, memory[0]


def _euler(sampler: Sampler, grid: NoiseGrid, z: Tensor) -> Steps:
    return _linear(grid, z, grid.sigma_ratio, [-grid.alpha[1:] * torch.expm1(-grid.h)])


def _ddim(sampler: Sampler, grid: NoiseGrid, z: Tensor) -> Steps:
    assert isinstance(sampler, DDIM)
    kept, std = shares(grid.h, sampler.eta)
    data = -grid.alpha[1:] * torch.expm1(kept.log() - grid.h)
    noise = grid.sigma[1:] * std if sampler.stochastic else None
    return _linear(grid, z, grid.sigma_ratio * kept, [data], noise)


def _ancestral(sampler: Sampler, grid: NoiseGrid, z: Tensor) -> Steps:
    assert isinstance(sampler, Ancestral)
    fresh = -torch.expm1(-2 * grid.h)
    with torch.no_grad():
        ends = grid.times[1:].reshape(-1), grid.times[:-1].reshape(-1)
        bridge = grid.schedule.bridge(*ends)  # in the schedule's own scale
    ratio = sampler.variance.log_std_ratio(bridge, Denoised(bridge.log_sigma_ratio))
    std = grid.sigma[1:] * fresh.sqrt() * ratio.reshape(grid.h.shape).to(grid.h).exp()
    return _linear(grid, z, grid.sigma_ratio * torch.exp(-grid.h), [grid.alpha[1:] * fresh], std)


def _dpm(sampler: Sampler, grid: NoiseGrid, z: Tensor) -> Steps:
    assert isinstance(sampler, DPMSolver)
    orders = sampler.orders(grid.log_snr)
    half = [grid.half[:-1], *(grid.previous(k) for k in range(1, sampler.order))]
    gaps = [a - b for a, b in pairwise(half)]
    data = [torch.zeros_like(grid.h) for _ in range(sampler.order)]
    for order in range(1, sampler.order + 1):
        keep, weights, std = sampler.coefficients(order, grid.h, gaps)
        grid.fill(data, weights, orders == order)
    noise = grid.sigma[1:] * std if sampler.stochastic else None
    return _linear(grid, z, grid.sigma_ratio * keep, data, noise)


def _heun(sampler: Sampler, grid: NoiseGrid, z: Tensor) -> Steps:
    assert isinstance(sampler, Heun)
    keep, trial = grid.each(grid.sigma_ratio), -grid.alpha[1:] * torch.expm1(-grid.h)
    there = grid.alpha[1:] * sampler.weight(grid.h)
    factors = list(zip(*map(grid.each, (trial, trial - there, there)), strict=True))
    for i, level in enumerate(grid.levels[:-1]):
        alone, near, far = factors[i]
        here = grid.output(z, level)
        end = grid.output(blend(z, keep[i], [(alone, here)]), grid.levels[i + 1])
        z = blend(z, keep[i], [(near, here), (far, end)])
        yield z, here


def _unipc(sampler: Sampler, grid: NoiseGrid, z: Tensor) -> Steps:
    assert isinstance(sampler, UniPC)
    keep = grid.each(grid.sigma_ratio)
    orders = sampler.orders(grid.log_snr)
    predict, correct = (_unipc_factors(grid, sampler, orders, last) for last in (False, True))
    memory: deque[Tensor] = deque(maxlen=sampler.order + 1)
    before = z
    for i, level in enumerate(grid.levels[:-1]):
        # As a tensor: up to four blends use it. The output is not kept, to use less of the cache.
        memory.appendleft(grid.output(z, level).x_hat)
        if i > 0:
            z = blend(before, keep[i - 1], zip(correct[i - 1], memory, strict=False))
        before = z
        z = blend(z, keep[i], zip(predict[i], memory, strict=False))
        yield z, State(grid.times[i + 1], z, memory[0])


def _unipc_factors(
    grid: NoiseGrid, sampler: UniPC, orders: Tensor, corrector: bool
) -> list[tuple[Factor, ...]]:
    half = [grid.half[:-1], grid.half[1:], *(grid.previous(k) for k in range(1, sampler.order))]
    columns = [torch.zeros_like(grid.h) for _ in range(sampler.order + corrector)]
    for order in range(1, sampler.order + 1):
        grid.fill(columns, sampler.weights(order, half, corrector), orders == order)
    return list(zip(*map(grid.each, columns), strict=True))


def _enter(
    steps: Callable[[Sampler, NoiseGrid, Tensor], Steps],
    sampler: Sampler,
    z: Tensor,
    times: Tensor,
    context: Tensor | None,
) -> Steps | None:
    """The faster route of one class of samplers; ``None`` where it would not equal the plain one."""
    if not _usable(sampler):
        return None
    grid = NoiseGrid(sampler, z, times, context)
    start = z if grid.schedule.variance_preserving else z / grid.lengths()[0]
    return _own_scale(grid, steps(sampler, grid, start))


_ROUTES: dict[type[Sampler], Callable[..., Steps]] = {
    Ancestral: _ancestral,
    DDIM: _ddim,
    DPMSolver: _dpm,
    Euler: _euler,
    Heun: _heun,
    UniPC: _unipc,
}
FUSED.update({kind: partial(_enter, steps) for kind, steps in _ROUTES.items()})


def _factors(target: Target, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The ``a, b`` of ``x_hat = a z + b o``: ``x_hat`` of an output of zero, and of a state of zero."""
    none, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    return target.x_hat(none, one, alpha, sigma), target.x_hat(one, none, alpha, sigma)


def blend(z: Tensor, keep: Factor, parts: Iterable[tuple[Factor, Output | Tensor]]) -> Tensor:
    """``keep * z + sum_j factor_j * part_j``, with one pass over memory for each tensor.

    An output at ``z`` itself needs one more pass; an output at another state needs two.
    """
    terms: list[tuple[Factor, Tensor]] = []
    for factor, part in parts:
        if isinstance(part, Tensor):
            terms.append((factor, part))
            continue
        if part.z is z:
            keep = keep + factor * part.level.of_z
        else:
            terms.append((factor * part.level.of_z, part.z))
        terms.append((factor * part.level.of_output, part.output))
    total = z * keep
    for factor, part in terms:
        if isinstance(factor, float):
            total.add_(part, alpha=factor)
        else:
            total.add_(part * factor)
    return total
