"""How a model's samples are drawn: by which sampler, in which steps, from which seeds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require
from genmod.diffusion import DiffusionPrior
from genmod.prior import Prior, sample_rows
from genmod.samplers import Sampler, State, TimeGrid, UniformTime


@dataclass(frozen=True)
class Sampling:
    """A way to walk a diffusion's latents from noise to ``z_0``.

    Args:
        sampler: any of :mod:`genmod.samplers`; the chain itself by default. What it is not bound to
            (usually anything) is the model's own.
        steps: how many steps it takes; by default as many as the chain has.
        grid: where they lie; :class:`~genmod.samplers.UniformTime` by default, as in the chain.
        seeds: one a sample; a sample's noise is then its seed's alone.
        progress: whether a bar is shown.
    """

    sampler: Sampler | None = None
    steps: int | None = None
    grid: TimeGrid | None = None
    seeds: Sequence[int] | None = None
    progress: bool = False
    noise: AbstractContextManager[None] = field(init=False)
    """Where the samples' noise is drawn, this path's and the decoder's."""

    def __post_init__(self) -> None:
        seeds = self.seeds
        noise = nullcontext() if seeds is None else random.seeded(seeds)
        object.__setattr__(self, "noise", noise)

    @property
    def plain(self) -> bool:
        """Whether nothing but seeds was asked for: the prior's own way will do."""
        return self.sampler is self.steps is self.grid is None and not self.progress

    def draw(self, prior: Prior, n: int, context: Tensor | None) -> Tensor:
        """The state that ``n`` draws hand to the decoder.

        Raises:
            ValueError: as by :meth:`states`; a chain of one latent, which no sampler has a step of.
        """
        if self.plain:
            with self.noise:
                return prior.sample(n, context)
        last = deque(self.states(prior, n, context), maxlen=1)
        if not last:
            raise ValueError(
                "got a chain of one latent; expected steps for a sampler to take; sample it as it is, "
                "sample(n), or say how many, sample(n, sampler=..., steps=50)"
            )
        return last[0].z

    def states(self, prior: Prior, n: int, context: Tensor | None) -> Iterator[State]:
        """Where ``n`` draws are after each step.

        Raises:
            ValueError: the prior is no diffusion; a sampler bound to another schedule.
        """
        if not isinstance(prior, DiffusionPrior):
            raise ValueError(
                f"got a {type(prior).__name__} prior with a sampler, steps or a grid; expected a "
                "diffusion; sample it as it is, sample(n)"
            )
        require(n >= 1, f"n={n}", "n >= 1", "ask for at least one sample")
        sampler = (self.sampler or prior.chain).bind_missing(prior.denoiser, prior.schedule)
        return self._states(prior, sampler, n, context)

    def _states(
        self, prior: DiffusionPrior, sampler: Sampler, n: int, context: Tensor | None
    ) -> Iterator[State]:
        times = self._times(prior)
        with self.noise, torch.no_grad():
            _, law = next(prior.descent(n, context))
            states = sampler.states(sample_rows(law, n), times, context)
        steps: Iterable[int] = range(len(times) - 1)
        if self.progress:
            # Only here: rich takes a while to import.
            from rich.progress import track

            steps = track(steps, description=repr(sampler), total=len(times) - 1)
        for _ in steps:
            # Not around the yield: the caller's own noise and gradients are no sample's.
            with self.noise, torch.no_grad():
                state = next(states)
            yield state

    def _times(self, prior: DiffusionPrior) -> Tensor:
        own = prior.times().flip(0)
        if self.steps is None and self.grid is None:
            return own
        steps = len(own) - 1 if self.steps is None else self.steps
        return (self.grid or UniformTime()).times(prior.schedule, steps, own.device)
