r"""Samplers: they turn noise into data (or data into noise) along given times, by calls of a denoiser.

Symbols: :math:`z_t = \alpha_t x + \sigma_t \varepsilon` is the state at time ``t``; ``s`` is the next time;
:math:`\hat x` (``x_hat``) is the denoiser's mean of the data. Half the log-SNR is
:math:`\ell = \log(\alpha / \sigma)`, and :math:`h = \ell_s - \ell_t` is how much it rises in a step.

A sampler holds settings and never changes. What a multistep method remembers are local variables of its
generator. A sampler runs once it is bound to a denoiser and a schedule:

* ``model.sample(16, sampler=DPMSolver(order=2), steps=20)`` binds it to the model's;
* ``DPMSolver(denoiser, schedule, order=2)``, or ``.bind(denoiser, schedule)``, binds it to yours.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from genmod.arrays import for_autograd
from genmod.checks import invalid
from genmod.config import Settings
from genmod.denoisers import Denoised, Denoiser
from genmod.denoisers.base import denoise
from genmod.schedules import Schedule
from genmod.schedules.base import Point, time_dtype
from genmod.tensors import PerSample, Real

Bound = TypeVar("Bound", Denoiser, Schedule)
Self = TypeVar("Self", bound="Sampler")

Denoise: TypeAlias = Callable[[Tensor, Tensor], Denoised]
"""``denoise(z, t)``: a state in the schedule's own scale, and its time: one, or one a row."""


class State(NamedTuple):
    """One state of a path."""

    t: Tensor
    """The time: one number, or one a row."""
    z: Tensor
    """The state there, ``(B, *event)``, in the schedule's own scale."""
    x_hat: Tensor
    """The denoiser's mean of the data, as the step that led here used it."""


class HasXHat(Protocol):
    """Anything with an ``x_hat``; the faster route computes it only when it is read."""

    @property
    def x_hat(self) -> Tensor:
        """The denoiser's mean of the data."""


class Sampler(Settings, ABC):
    """The base class of samplers: a numerical method from noise to data.

    A sampler of your own whose steps need only the current state is a :class:`~genmod.samplers.SingleStep`.
    Any other one implements one generator, :meth:`trajectory`.

    Args:
        denoiser: the denoiser; ``None``: :meth:`bind` or a model sets it later.
        schedule: the schedule; ``None``: likewise.
    """

    stochastic = False
    """Whether a step draws noise. A sampler that draws none can also go from data to noise."""

    def __init__(self, denoiser: Denoiser | None = None, schedule: Schedule | None = None) -> None:
        if schedule is not None:
            schedule.check()
        self._denoiser, self._schedule = denoiser, schedule

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser it is bound to."""
        return _bound(self, self._denoiser)

    @property
    def schedule(self) -> Schedule:
        """The schedule it is bound to."""
        return _bound(self, self._schedule)

    def bind(self: Self, denoiser: Denoiser, schedule: Schedule) -> Self:
        """The same settings, bound to a denoiser and a schedule."""
        bound = copy.copy(self)
        bound._denoiser, bound._schedule = denoiser, schedule
        return bound

    def bind_missing(self: Self, denoiser: Denoiser, schedule: Schedule) -> Self:
        """The same settings, bound to a model's schedule, and to its denoiser unless it has one.

        Raises:
            ValueError: it is bound to another schedule than the one that noised the model's data.
        """
        if self._schedule is not None and self._schedule is not schedule:
            raise invalid(
                f"{self} bound to another schedule than the model's",
                "the model's own schedule, which gives the noise of its first latent",
                "leave the schedule out, or bind the sampler to model.prior.schedule",
            )
        return self.bind(self._denoiser or denoiser, schedule)

    @abstractmethod
    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """The states at ``times[1:]``, one after another, from ``z`` at ``times[0]``.

        Args:
            z: the first state, ``(B, *event)``, in the schedule's own scale (``self.schedule``).
            times: ``(N + 1,)``, the same for all rows; or ``(N + 1, B, 1, ..., 1)``, a column for each.
                ``intervals(times, z)`` gives the pairs ``t, s`` of successive times.
            denoise: ``denoise(z, t)`` returns a :class:`~genmod.denoisers.Denoised` with ``x_hat``. Call it
                as often as the method needs.
        """

    def evaluations(self, steps: int) -> int:
        """How many calls of the denoiser a path of ``steps`` steps makes."""
        return steps

    def states(self, z: Real, times: Tensor, context: Tensor | None = None) -> Iterator[State]:
        """Every state of a path: checks the times, then runs :meth:`trajectory` with the bound denoiser.

        Args:
            z: the first state, ``(B, *event)``.
            times: ``(N + 1,)``, falling from noise to data, as :meth:`UniformTime.times` gives them. Rising
                times go from data to noise; only a sampler without noise can. ``(N + 1, B)`` gives each row
                times of its own, one column for each row.
            context: what the denoiser is conditioned on, ``(B, ...)``.

        Raises:
            ValueError: a state that is not real; times outside [0, 1]; times that repeat or change
                direction, or that rise under a stochastic sampler; a sampler without a denoiser or a
                schedule, or whose denoiser refuses the schedule.
        """
        times = self._checked(z, times)
        steps = self._steps(z, times, context)
        return (State(t, z, step.x_hat) for t, (z, step) in zip(times[1:], steps, strict=True))

    def _checked(self, z: Tensor, times: Tensor) -> Tensor:
        """The times in float64, or an error if no path follows them."""
        if z.ndim == 0 or len(z) == 0:
            raise invalid(
                f"states of shape {tuple(z.shape)}", "at least one row", "leave an empty batch out"
            )
        if not (1 <= times.ndim <= 2 and len(times) >= 1 and z.is_floating_point()):
            raise invalid(
                f"times of shape {tuple(times.shape)}, a state of type {z.dtype}",
                "at least one time, as a vector, and real numbers",
                "take times from UniformTime().times(schedule, steps); integers become real by "
                "model.encoder.real(x)",
            )
        if not bool((times.clamp(0, 1) == times).all()):
            raise invalid(
                f"times from {float(times.min()):g} to {float(times.max()):g}",
                "times in [0, 1]",
                "a schedule is not defined beyond its ends",
            )
        self.denoiser.check(self.schedule)
        times = times.to(time_dtype(times.device))
        with torch.no_grad():
            rises = self.schedule.log_snr(times.reshape(-1)).reshape(times.shape).diff(dim=0)
        up = bool((rises < 0).all())
        if not (up and not self.stochastic) and not bool((rises > 0).all()):
            either = "" if self.stochastic else ", or rise at every step"
            raise invalid(
                f"times {times[0].flatten()[0]:.4g} .. {times[-1].flatten()[0]:.4g} for {self}",
                f"times that fall at every step{either}",
                "sort them and repeat none; from data to noise, use a sampler without noise, as "
                "DDIM()",
            )
        return times

    def _steps(
        self, z: Tensor, times: Tensor, context: Tensor | None
    ) -> Iterator[tuple[Tensor, HasXHat]]:
        """After each step, the state, and something that has its ``x_hat``."""
        if len(times) == 1:
            return iter(())
        fused = FUSED.get(type(self))
        steps = None if fused is None else fused(self, z, times, context)
        if steps is not None:
            return steps
        states = self.trajectory(z, spread(times, z), self.denoise_with(context))
        return self._checked_states(states, z.shape, len(times) - 1)

    def _checked_states(
        self, states: Iterator[State], shape: torch.Size, steps: int
    ) -> Iterator[tuple[Tensor, State]]:
        """Each state of a path, refused where one is missing or of another shape."""
        expected = f"a State for each of the {steps} steps, with z of shape {tuple(shape)}"
        advice = "let trajectory yield State(s, z, x_hat) for each t, s in intervals(times, z)"
        found = 0
        for state in states if isinstance(states, Iterable) else ():
            if not isinstance(state, State) or state.z.shape != shape:
                got = tuple(state.z.shape) if isinstance(state, State) else type(state).__name__
                raise invalid(f"{got} from {self}.trajectory", expected, advice)
            found += 1
            yield state.z, state
        if found != steps:
            raise invalid(f"{found} states of {self}", expected, advice)

    def denoise_with(self, context: Tensor | None = None) -> Denoise:
        """The bound denoiser as a function ``denoise(z, t)`` of a state and its time.

        Args:
            context: what the denoiser is conditioned on, ``(B, ...)``.
        """
        denoiser, schedule = self.denoiser, self.schedule

        def denoise_at(z: Tensor, t: Tensor) -> Denoised:
            given = None if context is None else for_autograd(context)
            with torch.no_grad():
                point = schedule.at(t.reshape(-1))
            at, log_snr, alpha, sigma = (part.to(z.device).expand(len(z)) for part in point[:4])
            there = Point(at, log_snr, alpha, sigma, schedule.variance_preserving)
            return denoise(denoiser, z, there, given)

        return denoise_at

    def path(self, z: Tensor, times: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        """The ``z`` of :meth:`states`."""
        return (state for state, _ in self._steps(z, self._checked(z, times), context))

    def run(self, z: Tensor, times: Tensor, context: Tensor | None = None) -> Tensor:
        """The last state of :meth:`path`."""
        for state in self.path(z, times, context):
            z = state
        return z

    def step(self, z_t: Real, t: PerSample, s: PerSample, context: Tensor | None = None) -> Tensor:
        """The state at ``s`` from the state ``z_t`` at ``t``, each ``(B,)``: a path of one step.

        A sampler with a memory takes its first step.
        """
        return self.run(z_t, torch.stack([t, s]), context)

    def extra_repr(self) -> str:
        """Its settings."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


Fused: TypeAlias = Callable[
    [Sampler, Tensor, Tensor, Tensor | None], "Iterator[tuple[Tensor, HasXHat]] | None"
]
FUSED: dict[type[Sampler], Fused] = {}
"""Private: a faster route for each class of sampler, equal to :meth:`Sampler.trajectory`. A route returns
``None`` where it would not be equal. ``genmod.samplers._fused`` fills the table and explains them."""


def spread(times: Tensor, z: Tensor) -> Tensor:
    """Times of a path, each shaped to broadcast against ``z``: ``(N + 1,)`` or ``(N + 1, B, 1, ..., 1)``.

    One time for all rows has no dimensions: its float64 then leaves a state of float32 as it is.
    """
    if times.ndim == 1 or times.ndim == z.ndim + 1:
        return times
    return times.reshape(*times.shape, *[1] * (z.ndim - 1))


def intervals(times: Tensor, z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The steps of a path: pairs ``t, s`` of successive times, shaped to broadcast against ``z``."""
    return pairwise(spread(times, z).unbind())


def _bound(sampler: Sampler, part: Bound | None) -> Bound:
    if part is None:
        raise invalid(
            f"{sampler} without a denoiser and a schedule",
            "a sampler bound to both",
            "pass it to model.sample(n, sampler=...), or bind it with .bind(denoiser, schedule)",
        )
    return part
