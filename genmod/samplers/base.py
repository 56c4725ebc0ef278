"""A sampler: how to go from the state at ``t`` to the state at ``s``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from genmod.denoisers import Denoiser
from genmod.schedules import Schedule
from genmod.types import PerSample, Real


class Sampler(ABC):
    """One step of a process that a denoiser and a schedule define."""

    def __init__(self, denoiser: Denoiser, schedule: Schedule) -> None:
        self.denoiser = denoiser
        self.schedule = schedule

    @abstractmethod
    def step(self, z_t: Real, t: PerSample, s: PerSample, context: Tensor | None = None) -> Tensor:
        """The state at ``s`` from the state ``z_t`` at ``t``; times are ``(B,)``."""

    def path(self, z: Tensor, times: Tensor, context: Tensor | None = None) -> Iterator[Tensor]:
        """The states at ``times[1:]``, one after another, from ``z`` at ``times[0]``."""
        for t, s in pairwise(times):
            z = self.step(z, t.expand(len(z)), s.expand(len(z)), context)
            yield z

    def run(self, z: Tensor, times: Tensor, context: Tensor | None = None) -> Tensor:
        """The last state of :meth:`path`."""
        for state in self.path(z, times, context):
            z = state
        return z
