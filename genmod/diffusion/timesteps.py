r"""Timestep samplers: which noise levels of a diffusion a row visits, if not all of them.

A timestep sampler gives each row places ``u`` in [0, 1) and weights. For every function ``f`` of the
level, and for each row,

.. math:: \mathbb{E}\Big[\sum_j w_j f(u_j)\Big] = \int_0^1 f(u)\, du

The choice of places changes the variance of an estimate, never its mean. What is estimated is the
objective's matter (:mod:`genmod.objectives`).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, distributed

from genmod import random
from genmod.checks import check_at_least, instance, invalid, whole_number
from genmod.path import AutoTimesteps, Timesteps, TimestepSampler
from genmod.random.streams import stratified
from genmod.tensors import PerLevel


class UniformTimesteps(TimestepSampler):
    """Independent uniform timesteps: the choice of DDPM, with the largest variance.

    Reference: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020), algorithm 1.
    """

    def forward(
        self, rows: int, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> tuple[PerLevel, PerLevel]:
        u = random.uniform((rows, self.n), dtype, device)
        return u, torch.full_like(u, 1 / self.n)


class StratifiedTimesteps(TimestepSampler):
    """Stratified timesteps (low-discrepancy): each row, and the batch, cover [0, 1) evenly. The default.

    Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), appendix I.1.
    """

    def forward(
        self, rows: int, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> tuple[PerLevel, PerLevel]:
        u = stratified(rows, self.n, dtype, device)
        return u, torch.full_like(u, 1 / self.n)


class TabulatedTimesteps(TimestepSampler):
    r"""Timesteps from a table of probabilities, one for each of ``K`` equal bins of [0, 1).

    A place in bin ``k`` has density :math:`q = K p_k` and weight :math:`1 / (n q)`. Places are the
    quantiles of stratified numbers, so that batches cover the density evenly.

    Args:
        masses: ``(K,)``, the probability of each bin, up to a constant; all above zero.
        n: how many levels a row visits.

    >>> TabulatedTimesteps(torch.tensor([3.0, 1.0]))
    TabulatedTimesteps(bins=2, n=1)
    """

    masses: Tensor

    def __init__(self, masses: Tensor, n: int = 1) -> None:
        super().__init__(n)
        if masses.ndim != 1 or not ((masses > 0).all() and masses.isfinite().all()):
            raise invalid(
                f"masses of shape {tuple(masses.shape)} from {float(masses.min()):g}",
                "one positive finite number for each bin",
                "a level that is never visited is missing from the sum: give it a small mass "
                "instead",
            )
        self.register_buffer("masses", (masses / masses.sum()).detach())

    def forward(
        self, rows: int, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> tuple[PerLevel, PerLevel]:
        return _quantiles(stratified(rows, self.n, dtype, device), self.masses)

    def extra_repr(self) -> str:
        return f"bins={len(self.masses)}, {super().extra_repr()}"


class LossAwareTimesteps(TimestepSampler):
    r"""Loss-aware timesteps: importance sampling of the levels with large losses, learned in training.

    .. math:: q(u) = \text{floor} + (1 - \text{floor})\, \frac{\sqrt{\mathbb{E}[c^2 | u]}}
        {\int \sqrt{\mathbb{E}[c^2 | u]}\, du}

    ``q`` is constant on each of ``K`` bins of [0, 1). ``c`` is the loss of a level in the objective that
    holds this sampler; its second moment in each bin is an average over the last visits. ``q`` is
    uniform until every bin was visited ``least`` times. The weights keep the estimate unbiased for any
    ``q``, and the floor keeps them below ``1 / floor``.

    It learns only in training. Each run resets it, and its state is part of a checkpoint. Where
    ``torch.distributed`` is initialized, each process learns from the visits of all processes.

    Args:
        n: how many levels a row visits.
        bins: ``K``.
        floor: the fraction of visits that are uniform, above 0 and at most 1.
        memory: the number of visits of a bin over which its second moment is averaged.
        least: the number of visits that a bin needs before its moment is used.

    Reference: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), eq. 18:
    one bin a step, the last ten costs of each, no floor. Here any objective, and continuous time.
    """

    moments: Tensor
    """The second moment of the cost in each bin."""
    visits: Tensor
    """The number of visits of each bin."""

    def __init__(
        self,
        n: int = 1,
        bins: int = 64,
        floor: float = 0.1,
        memory: float = 200.0,
        least: float = 10.0,
    ) -> None:
        super().__init__(n)
        check_at_least(bins, 2, "bins", "one bin is StratifiedTimesteps")
        if not 0 < floor <= 1:
            raise invalid(f"floor={floor}", "0 < floor <= 1", "1 is StratifiedTimesteps")
        check_at_least(least, 1, "least", "the paper waits for 10")
        if memory < least:
            raise invalid(f"memory={memory}", f"at least {least:g} visits", "raise it")
        self.bins, self.floor, self.memory, self.least = bins, floor, memory, least
        self.register_buffer("moments", torch.zeros(bins))
        self.register_buffer("visits", torch.zeros(bins))

    def masses(self) -> Tensor:
        """The probability of each bin, ``(K,)``."""
        even = torch.full_like(self.moments, 1 / self.bins)
        root = self.moments.sqrt()
        total = root.sum()
        # torch.where, not an if: reading a tensor would make the host wait for a GPU at each step.
        known = (self.visits >= self.least).all() & (total > 0)
        learned = self.floor * even + (1 - self.floor) * root / total
        return torch.where(known, learned, even)

    def forward(
        self, rows: int, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> tuple[PerLevel, PerLevel]:
        return _quantiles(stratified(rows, self.n, dtype, device), self.masses())

    @torch.no_grad()
    def update(self, level: PerLevel, dt: PerLevel, cost: PerLevel) -> None:
        """Update the second moments of the bins that were visited."""
        inside = _overlaps(level.reshape(-1), dt.reshape(-1), self.bins).to(self.moments)
        square = cost.detach().reshape(-1).to(self.moments).square()
        # Infinite losses are left out: one of them would make the moments infinite for good.
        finite = square.isfinite()
        inside = inside * finite[:, None]
        visits, sums = inside.sum(0), inside.T @ torch.where(finite, square, 0)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(visits)
            distributed.all_reduce(sums)
        mean = sums / visits.clamp(min=1e-12)
        self.visits += visits
        # At first the mean of all visits, later an exponential mean of about the last `memory` visits.
        share = torch.maximum(
            visits / self.visits.clamp(min=1e-12), -torch.expm1(-visits / self.memory)
        )
        self.moments.lerp_(mean, share)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, bins={self.bins}, floor={self.floor}, "
            f"memory={self.memory}, least={self.least}"
        )


def _quantiles(v: PerLevel, masses: Tensor) -> tuple[PerLevel, PerLevel]:
    """Where uniform numbers fall under a density of constant bins, and the weight of each place."""
    masses = masses.to(v)
    ends = masses.cumsum(0)
    # Normalized again in the precision of the places: float32 masses add up to one to 1e-7 only, and
    # the rest would be a bias.
    masses, ends = masses / ends[-1], ends / ends[-1]
    bins, n = len(masses), v.shape[1]
    index = torch.searchsorted(ends[:-1].contiguous(), v.contiguous(), right=True)
    start = torch.cat([ends.new_zeros(1), ends[:-1]])[index]
    density = bins * masses[index]
    # The clamp: a place such as 1 - 1e-17 rounds to the end of its bin, which belongs to the next one.
    below_one = 1 - torch.finfo(v.dtype).eps
    inside = (bins * (v - start) / density).clamp(0, below_one)
    return ((index + inside) / bins).clamp(max=below_one), 1 / (n * density)


def _overlaps(level: Tensor, dt: Tensor, bins: int) -> Tensor:
    """The part of each visited level that lies in each bin, ``(visits, bins)``; rows sum to one.

    A step of a chain covers the time from ``level - dt`` to ``level``. In continuous time (``dt`` of
    one) a level is a point. So is the level of a chain with one step, where there is nothing to choose.
    """
    index = torch.arange(bins, dtype=level.dtype, device=level.device)
    low = index / bins
    t, width = level[:, None], dt[:, None]
    covered = torch.minimum(t, low + 1 / bins) - torch.maximum(t - width, low)
    point = (level * bins).floor().clamp(max=bins - 1)[:, None] == index
    return torch.where(width < 1, covered.clamp(min=0) / width, point.to(level.dtype))


def timestep_sampler(timesteps: int | TimestepSampler) -> TimestepSampler:
    """The sampler for a number of levels: stratified, unless one is given."""
    if isinstance(timesteps, TimestepSampler):
        return timesteps
    if isinstance(timesteps, type):
        return instance(timesteps, TimestepSampler, "timesteps")
    # Before the cache, for which 2.0 and 2 are one key.
    return _stratified(whole_number(timesteps, "timesteps"))


@lru_cache
def _stratified(n: int) -> StratifiedTimesteps:
    return StratifiedTimesteps(n)


def resolve_timesteps(timesteps: Timesteps, steps: int | None) -> TimestepSampler | None:
    """Which levels to visit in a chain of ``steps`` latents (``None``: continuous time); ``None``: all.

    Raises:
        ValueError: ``timesteps=None`` in continuous time.
    """
    if timesteps is AutoTimesteps.TRAINING:
        return _stratified(1)
    if timesteps is AutoTimesteps.EVALUATION:
        timesteps = None if steps is not None and steps <= MOST_LEVELS else FEW_LEVELS
    if timesteps is None:
        if steps is None:
            raise invalid(
                "timesteps=None in continuous time",
                "a number of levels to visit",
                "pass timesteps=n (unbiased), or build the model with steps=T to visit all T",
            )
        return None
    assert not isinstance(timesteps, AutoTimesteps)
    return timestep_sampler(timesteps)


MOST_LEVELS = 1000
"""The largest T whose levels are all visited in evaluation where ``timesteps`` is left out."""
FEW_LEVELS = 16
"""The number of levels that a row visits beyond that T, and in continuous time."""


def bin_index(u: Tensor, count: int) -> Tensor:
    """Which of ``count`` equal bins of [0, 1) each place falls into, from 0 to ``count - 1``."""
    return (u * count).floor()
