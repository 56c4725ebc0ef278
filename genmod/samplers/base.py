r"""A sampler: goes from noise to data (or back) along given times, with calls of a denoiser.

Symbols: :math:`z_t = \alpha_t x + \sigma_t \varepsilon` the state at time ``t``, ``s`` the next time,
:math:`\hat x` (``x_hat``) the denoiser's mean of the data, :math:`h` the rise of half the log-SNR,
:math:`\ell = \log(\alpha / \sigma)`, in a step.

A sampler holds settings and never changes; its memory lives in the generator that walks a path.
Bound to a denoiser and a schedule it runs:

* ``model.sample(16, sampler=DPMSolver(order=2), steps=20)`` binds it to the model's;
* ``DPMSolver(denoiser, schedule, order=2)``, or ``.bind(denoiser, schedule)``, binds it to yours.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from genmod.checks import require
from genmod.config import Settings
from genmod.denoisers import Denoised, Denoiser, denoise
from genmod.schedules import Point, Schedule, time_dtype
from genmod.shapes import PerSample, Real

Bound = TypeVar("Bound", Denoiser, Schedule)
Self = TypeVar("Self", bound="Sampler")

Denoise: TypeAlias = Callable[[Tensor, Tensor], Denoised]
"""``denoise(z, t)``: a state in the schedule's own scale, and its time: one, or one a row."""


class State(NamedTuple):
    """One state of a path."""

    t: Tensor
    """Its time: one number, or one a row."""
    z: Tensor
    """The state there, ``(B, *event)``, in the schedule's own scale."""
    x_hat: Tensor
    """The denoiser's mean of the data, as the step that led here used it."""


class HasXHat(Protocol):
    """A step's ``x_hat``, perhaps made only when it is read."""

    @property
    def x_hat(self) -> Tensor:
        """The denoiser's mean of the data."""


class Sampler(Settings, ABC):
    """A way from noise to data, given a denoiser and a schedule.

    A sampler of your own whose steps need the current state only is a :class:`SingleStep`. Any other is one
    generator, :meth:`trajectory`.

    Args:
        denoiser: the denoiser; ``None`` leaves it to be bound by :meth:`bind`, or by a model.
        schedule: the schedule; likewise.
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
            ValueError: it is bound to another schedule, which would denoise what was not noised by it.
        """
        require(
            self._schedule is None or self._schedule is schedule,
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
            times: ``(N + 1,)``; or ``(N + 1, B)``, a column a row, also shaped to broadcast against ``z``.
                :func:`intervals` gives the pairs ``t, s`` of successive times, shaped to broadcast.
            denoise: ``denoise(z, t)``; call it as often as the method needs. ``x_hat``, and what more
                the denoiser knows, are fields of its result.
        """

    def evaluations(self, steps: int) -> int:
        """How many calls of the denoiser a path of ``steps`` steps makes."""
        return steps

    def states(self, z: Real, times: Tensor, context: Tensor | None = None) -> Iterator[State]:
        """Every state of a path: :meth:`trajectory` with the bound denoiser, once the times are checked.

        Args:
            z: the first state, ``(B, *event)``.
            times: ``(N + 1,)``, falling from noise to data (see :mod:`genmod.samplers.grids`); or rising
                from data to noise, where the sampler draws no noise. ``(N + 1, B)``, a column a row, gives
                each row its own times.
            context: what the denoiser is conditioned on, ``(B, ...)``.

        Raises:
            ValueError: a state that is not real; times outside [0, 1]; times that repeat, turn, or rise
                under a stochastic sampler; a sampler without a denoiser and a schedule, or whose denoiser
                refuses the schedule.
        """
        times = self._checked(z, times)
        steps = self._steps(z, times, context)
        return (State(t, z, step.x_hat) for t, (z, step) in zip(times[1:], steps, strict=True))

    def _checked(self, z: Tensor, times: Tensor) -> Tensor:
        """The times in float64, if there is a way along them."""
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
                "[0, 1]; a schedule is not defined beyond its ends"
            )
        self.denoiser.check(self.schedule)
        times = times.to(time_dtype(times.device))
        with torch.no_grad():
            rises = self.schedule.log_snr(times.reshape(-1)).reshape(times.shape).diff(dim=0)
        up = bool((rises < 0).all())
        if not (up and not self.stochastic) and not bool((rises > 0).all()):
            either = "" if self.stochastic else ", or rise at every step"
            raise ValueError(
                f"got times {times[0].flatten()[0]:.4g} .. {times[-1].flatten()[0]:.4g} for {self}; "
                f"expected times that fall at every step{either}; "
                "sort them and leave none out twice; the way to noise needs a sampler without noise"
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
        return ((state.z, state) for state in states)

    def denoise_with(self, context: Tensor | None = None) -> Denoise:
        """The bound denoiser as a function ``denoise(z, t)`` of a state and its time.

        Args:
            context: what the denoiser is conditioned on, ``(B, ...)``.
        """
        denoiser, schedule = self.denoiser, self.schedule

        def denoise_at(z: Tensor, t: Tensor) -> Denoised:
            given = context
            if given is not None and given.is_inference() and not torch.is_inference_mode_enabled():
                given = (
                    given.clone()
                )  # a tensor made in inference mode cannot be saved for gradients
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


class SingleStep(Sampler):
    r"""A sampler whose step needs nothing but the state and ``x_hat``: one method, :meth:`update`.

    >>> from genmod.denoisers import GaussianDenoiser
    >>> from genmod.schedules import Cosine
    >>> class MyDDIM(SingleStep):
    ...     def update(self, z_t, x_hat, t, s):
    ...         (alpha_t, sigma_t), (alpha_s, sigma_s) = map(self.schedule.scales, (t, s))
    ...         eps_hat = (z_t - alpha_t * x_hat) / sigma_t
    ...         return alpha_s * x_hat + sigma_s * eps_hat
    >>> normal = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    >>> MyDDIM(normal, Cosine()).run(torch.ones(1, 2), torch.linspace(1, 0, 101)).shape
    torch.Size([1, 2])
    """

    @abstractmethod
    def update(self, z_t: Tensor, x_hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The state at ``s`` from the state at ``t``.

        Args:
            z_t: the state, ``(B, *event)``, in the schedule's own scale.
            x_hat: the denoiser's mean of the data there, ``(B, *event)``.
            t: the time of ``z_t``, shaped to broadcast against it, so that
                ``alpha, sigma = self.schedule.scales(t)`` can be multiplied with it for any event shape.
                In float64: the result may be too, and is cast to the type of ``z_t``.
            s: the time to go to, likewise.
        """

    def trajectory(self, z: Tensor, times: Tensor, denoise: Denoise) -> Iterator[State]:
        """One call of the denoiser and one :meth:`update` a step."""
        for t, s in intervals(times, z):
            x_hat = denoise(z, t).x_hat
            moved = self.update(z, x_hat, t, s).to(z.dtype)
            if moved.shape != z.shape:
                raise ValueError(
                    f"got a state of shape {tuple(moved.shape)} from {self}.update; expected the shape of "
                    f"z_t, {tuple(z.shape)}; use factors that broadcast against z_t, as schedule.scales(t)"
                )
            z = moved
            yield State(s, z, x_hat)


Fused: TypeAlias = Callable[
    [Sampler, Tensor, Tensor, Tensor | None], "Iterator[tuple[Tensor, HasXHat]] | None"
]
FUSED: dict[type[Sampler], Fused] = {}
"""Faster routes by the exact class of a sampler: private, equal to :meth:`Sampler.trajectory`, and ``None``
where they would not be. Filled by ``genmod.samplers._fused``, which explains them."""


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
        raise ValueError(
            f"got {sampler} without a denoiser and a schedule; expected a sampler bound to both; hand "
            "it to model.sample(n, sampler=...), or bind it with .bind(denoiser, schedule)"
        )
    return part
