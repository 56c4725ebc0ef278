r"""A sampler: how to go from the state at ``t`` to the state at ``s``.

A sampler is a few settings and never changes: what a path remembers lives in the generator that walks
it. ``DPMSolver(order=2)`` is one; bound to a denoiser and a schedule it runs:

* ``model.sample(16, sampler=DPMSolver(order=2), steps=20)`` binds it to the model's;
* ``DPMSolver(denoiser, schedule, order=2)``, or ``.of(denoiser, schedule)``, binds it to yours.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.denoisers import Denoiser
from genmod.samplers.walk import Answer, Part, Scale, Walk, blend
from genmod.schedules import Schedule
from genmod.types import PerSample, Real

Bound = TypeVar("Bound", Denoiser, Schedule)
Self = TypeVar("Self", bound="Sampler")


class State(NamedTuple):
    """Where a path is: the time, the state there, and what the last step took for the data."""

    t: Tensor
    z: Tensor
    answer: Part
    """What the step was made with, read or unread: see :attr:`x_hat`."""

    @property
    def x_hat(self) -> Tensor:
        """What the last step took for the data: read from the denoiser's answer when it is asked for."""
        return self.answer if isinstance(self.answer, Tensor) else self.answer.x_hat


class Sampler(ABC):
    """A process that a denoiser and a schedule define.

    Args:
        denoiser: the denoiser; ``None`` leaves it to be bound by :meth:`of`, or by a model.
        schedule: the schedule; likewise.
    """

    draws = False
    """Whether a step draws noise; one that does not can also be walked from data to noise."""

    def __init__(self, denoiser: Denoiser | None = None, schedule: Schedule | None = None) -> None:
        self._denoiser, self._schedule = denoiser, schedule

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser it is bound to."""
        return _bound(self, self._denoiser)

    @property
    def schedule(self) -> Schedule:
        """The schedule it is bound to."""
        return _bound(self, self._schedule)

    def of(self: Self, denoiser: Denoiser, schedule: Schedule) -> Self:
        """The same settings, bound to a denoiser and a schedule."""
        bound = copy.copy(self)
        bound._denoiser, bound._schedule = denoiser, schedule
        return bound

    def complete(self: Self, denoiser: Denoiser, schedule: Schedule) -> Self:
        """Bound to a model's denoiser where it is bound to none yet, and to its schedule.

        Raises:
            ValueError: it is bound to another schedule: states would be noised by one, denoised by another.
        """
        require(
            self._schedule is None or self._schedule is schedule,
            f"{self} bound to another schedule than the model's",
            "the model's own schedule, which says how noisy its first latent is",
            "leave the schedule out, or bind the sampler to model.prior.schedule",
        )
        return self.of(self._denoiser or denoiser, schedule)

    @abstractmethod
    def march(self, walk: Walk, z: Tensor) -> Iterator[tuple[Tensor, Part]]:
        """After each step of a walk, the state and the ``x_hat`` it was made with, or the answer unread.

        States are variance preserving here, whatever the schedule: what a denoiser sees.
        """

    def evaluations(self, steps: int) -> int:
        """How often a path of so many steps asks the denoiser."""
        return steps

    def states(self, z: Real, times: Tensor, context: Tensor | None = None) -> Iterator[State]:
        """Walk from ``z`` at ``times[0]``, and yield where it is at each of ``times[1:]``.

        Args:
            z: the first state, ``(B, *event)``.
            times: ``(N + 1,)``, falling from noise to data (see :mod:`genmod.samplers.grids`); rising
                for the way to noise, which samplers without noise of their own can go, too. A column
                a row, ``(N + 1, B)``, lets rows go their own ways.
            context: what the denoiser is told beside the state.

        Raises:
            ValueError: a state that is not real; times outside [0, 1], times that rest, turn, or rise
                under a sampler that draws noise; a sampler without a denoiser and a schedule, or whose
                denoiser refuses the schedule.
        """
        require(
            1 <= times.ndim <= 2 and len(times) >= 1 and z.is_floating_point(),
            f"times of shape {tuple(times.shape)}, a state of type {z.dtype}",
            "at least one time, as a vector, and real numbers",
            "take times from genmod.samplers.grids; integers become real by model.encoder.real(x)",
        )
        # Not by `require`: words that read tensors cost more than the check.
        if not bool((times.clamp(0, 1) == times).all()):
            raise ValueError(
                f"got times from {float(times.min()):g} to {float(times.max()):g}; expected times in "
                "[0, 1]; a schedule says nothing beyond its ends"
            )
        self.denoiser.check(self.schedule)
        walk = Walk(self.denoiser, self.schedule, z, times, context)
        up = bool((walk.rises > 0).all())
        if not up and (self.draws or not bool((walk.rises < 0).all())):
            raise ValueError(
                f"got times {times[0].flatten()[0]:.4g} .. {times[-1].flatten()[0]:.4g} for {self}; "
                f"expected times that fall at every step{'' if self.draws else ', or rise at every step'}; "
                "sort them and leave none out twice; the way to noise needs a sampler without noise"
            )
        return self._states(walk, z)

    def _states(self, walk: Walk, z: Tensor) -> Iterator[State]:
        if not len(walk):
            return
        times = walk.times.unbind()[1:]
        if walk.schedule.variance_preserving:
            for t, (state, answer) in zip(times, self.march(walk, z), strict=True):
                yield State(t, state, answer)
            return
        first, *lengths = walk.lengths()
        steps = zip(times, lengths, self.march(walk, z / first), strict=True)
        for t, length, (state, answer) in steps:
            yield State(t, state * length, answer)

    def path(self, z: Tensor, times: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        """The states at ``times[1:]``, one after another, from ``z`` at ``times[0]``."""
        return (state.z for state in self.states(z, times, context))

    def run(self, z: Tensor, times: Tensor, context: Tensor | None = None) -> Tensor:
        """The last state of :meth:`path`."""
        for state in self.states(z, times, context):
            z = state.z
        return z

    def step(self, z_t: Real, t: PerSample, s: PerSample, context: Tensor | None = None) -> Tensor:
        """The state at ``s`` from the state ``z_t`` at ``t``, each ``(B,)``: a path of one step.

        A sampler with a memory has none here, and takes its first step.
        """
        return self.run(z_t, torch.stack([t, s]), context)

    def extra_repr(self) -> str:
        """Its settings."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def _bound(sampler: Sampler, part: Bound | None) -> Bound:
    if part is None:
        raise ValueError(
            f"got {sampler} without a denoiser and a schedule; expected a sampler bound to both; hand "
            "it to model.sample(n, sampler=...), or bind it with .of(denoiser, schedule)"
        )
    return part


class Rule(NamedTuple):
    r"""The factors of every step of a :class:`Linear` sampler, each of the grid's shape less one.

    .. math:: z_s = \text{keep}\, z_t + \sum_j \text{data}_j\, \hat x_{-j} + \text{noise}\, \varepsilon
    """

    keep: Tensor
    data: Sequence[Tensor]
    """Of the newest ``x_hat``, of the one before, and so on; zero where there is none yet."""
    noise: Tensor | None = None


class Linear(Sampler):
    """A step that is linear in the state and in what the denoiser said lately, one evaluation each."""

    @abstractmethod
    def rule(self, walk: Walk) -> Rule:
        """The factors of every step."""

    def first(self, walk: Walk, z: Tensor, answer: Answer) -> Tensor | None:
        """Another first step, for a rule that needs a better start than its own; most do not."""
        return None

    def march(self, walk: Walk, z: Tensor) -> Iterator[tuple[Tensor, Part]]:
        """After each step of a walk, the state and the answer it was made with."""
        rule = self.rule(walk)
        keep, noise = walk.each(rule.keep), None if rule.noise is None else walk.each(rule.noise)
        data = list(zip(*map(walk.each, rule.data), strict=True))
        memory: deque[Answer] = deque(maxlen=len(rule.data))
        for i, level in enumerate(walk.levels[:-1]):
            answer = walk.answer(z, level)
            memory.appendleft(answer)
            start = self.first(walk, z, answer) if i == 0 else None
            if start is None:
                parts: list[tuple[Scale, Part]] = list(zip(data[i], memory, strict=False))
                if noise is not None:
                    parts.append((noise[i], random.normal_like(z)))
                start = blend(z, keep[i], parts)
            z = start
            yield z, answer
