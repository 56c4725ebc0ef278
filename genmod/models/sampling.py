"""How the samples of a diffusion are drawn: by which sampler, in which steps, from which seeds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import SupportsIndex, TypeVar

import torch
from torch import Tensor

from genmod import random
from genmod.arrays import Context, as_context
from genmod.checks import check_at_least, instance, invalid
from genmod.denoisers import Guided
from genmod.diffusion import DiffusionPrior
from genmod.model import LatentModel
from genmod.models.replace import with_denoiser
from genmod.path import sample_rows
from genmod.samplers import Ancestral, Sampler, State, UniformTime
from genmod.samplers.grids import TimeGrid
from genmod.signatures import checked

Self = TypeVar("Self", bound="DiffusionBased")


class DiffusionBased(LatentModel, ABC):
    """A model whose latents are drawn by a diffusion, and so by any sampler in any number of steps."""

    @property
    @abstractmethod
    def diffusion(self) -> DiffusionPrior:
        """The prior of the diffusion."""

    @abstractmethod
    def draw_from(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """A draw of ``x`` for each state ``z_0`` of the diffusion."""

    @torch.no_grad()
    @checked
    def sample(
        self,
        n: int,
        context: Context = None,
        *,
        sampler: Sampler | None = None,
        steps: int | None = None,
        grid: TimeGrid | None = None,
        guidance_scale: float = 1.0,
        seeds: Sequence[SupportsIndex] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """``n`` draws of ``x``: the last latent of the diffusion by a sampler, then data from the decoder.

        Args:
            n: how many.
            context: what the model is conditioned on, ``(n, ...)``.
            sampler: any of :mod:`genmod.samplers`, ``DPMSolver(order=2)`` for example; ancestral
                sampling by default.
            steps: how many steps it takes; as many as the chain by default.
            grid: where they lie: even in time by default.
            guidance_scale: of classifier-free guidance; 1 is none (:class:`~genmod.denoisers.Guided`).
            seeds: one a sample. The noise of a sample then depends on its seed alone:
                ``sample(1, seeds=[7])`` draws one of a batch again.
            progress: whether a bar is shown.

        >>> from genmod.models import Diffusion
        >>> from genmod.samplers import DDIM
        >>> model = Diffusion((1, 8, 8), bins=17, width=16)
        >>> model.sample(2, sampler=DDIM(eta=0.5), steps=4, seeds=[0, 7]).shape
        torch.Size([2, 1, 8, 8])
        """
        model = self.guided(guidance_scale)
        sampling = Sampling(sampler, steps, grid, None, progress)
        draw = model._draw_from_prior if sampling.plain else partial(model._draw_by, sampling)
        return model._draw_in_chunks(draw, n, context, seeds)

    def _draw_by(self, sampling: Sampling, n: int, context: Tensor | None) -> Tensor:
        """``n`` draws of ``x`` that fit in memory: ``z_0`` by a sampler, then what follows from it."""
        return self.draw_from(sampling.draw(self.diffusion, n, context), context)

    @checked
    def states(
        self,
        n: int,
        context: Context = None,
        *,
        sampler: Sampler | None = None,
        steps: int | None = None,
        grid: TimeGrid | None = None,
        guidance_scale: float = 1.0,
        seeds: Sequence[SupportsIndex] | None = None,
        progress: bool = False,
    ) -> Iterator[State]:
        """The states of ``n`` draws after each step, and the estimate ``x_hat`` at each.

        The same path as :meth:`sample`'s, whose decoder takes the last ``z``. The states are the
        diffusion's own: of a latent diffusion, its latents. Each argument is :meth:`sample`'s.

        Raises:
            ValueError: at once: settings out of range, or a context that the model cannot take.
        """
        model, context = self.guided(guidance_scale), as_context(context, n)
        sampling = Sampling(sampler, steps, grid, seeds, progress)
        return sampling.states(model.diffusion, n, context)

    def guided(self: Self, scale: float) -> Self:
        """The same model under classifier-free guidance; itself at a scale of 1."""
        if scale == 1:
            return self
        return with_denoiser(self, lambda denoiser: Guided(denoiser, scale))


@dataclass(frozen=True)
class Sampling:
    """How ``z_0`` is drawn from noise: by which sampler, in which steps, from which seeds.

    Args:
        sampler: any of :mod:`genmod.samplers`; ancestral sampling by default. A denoiser or schedule
            that it is not bound to is the model's own.
        steps: how many steps it takes; by default as many as the chain has.
        grid: where they lie; :class:`~genmod.samplers.UniformTime` by default, as in the chain.
        seeds: one a sample; a sample's noise then depends on its seed alone.
        progress: whether a bar is shown.
    """

    sampler: Sampler | None = None
    steps: int | None = None
    grid: TimeGrid | None = None
    seeds: Sequence[SupportsIndex] | None = None
    progress: bool = False
    noise: AbstractContextManager[None] = field(init=False)
    """Where the samples' noise is drawn, this path's and the decoder's."""

    def __post_init__(self) -> None:
        seeds = self.seeds
        noise = nullcontext() if seeds is None else random.seeded(seeds)
        object.__setattr__(self, "noise", noise)

    @property
    def plain(self) -> bool:
        """Whether nothing but seeds was asked for: the prior draws its latents itself."""
        return (
            self.sampler is None and self.steps is None and self.grid is None and not self.progress
        )

    def draw(self, prior: DiffusionPrior, n: int, context: Tensor | None) -> Tensor:
        """``z_0`` of ``n`` draws: the state that the decoder takes.

        Raises:
            ValueError: as by :meth:`states`; a chain of one latent, which no sampler has a step of.
        """
        times = self._times(prior)
        if len(times) < 2:
            raise invalid(
                "a chain of one latent",
                "steps for a sampler to take",
                "sample it as it is, sample(n), or state their number: sample(n, sampler=..., "
                "steps=50)",
            )
        if self.progress:
            return deque(self.states(prior, n, context), maxlen=1)[0].z
        # The states alone: an estimate x_hat at each would cost one more pass over memory.
        sampler = self._sampler(prior)
        with self.noise, torch.no_grad():
            return sampler.run(self._start(prior, n, context), times, context)

    def states(self, prior: DiffusionPrior, n: int, context: Tensor | None) -> Iterator[State]:
        """The states of ``n`` draws after each step.

        Raises:
            ValueError: a sampler bound to another schedule; fewer than one sample.
        """
        check_at_least(n, 1, "n", "ask for at least one sample")
        return self._states(prior, self._sampler(prior), n, context)

    def _sampler(self, prior: DiffusionPrior) -> Sampler:
        sampler: Sampler = Ancestral(variance=prior.variance)
        if self.sampler is not None:
            sampler = instance(self.sampler, Sampler, "sampler")
        return sampler.bind_missing(prior.denoiser, prior.schedule)

    def _start(self, prior: DiffusionPrior, n: int, context: Tensor | None) -> Tensor:
        """The noisiest state of ``n`` rows."""
        _, law = next(prior.generate(n, context))
        return sample_rows(law, n)

    def _states(
        self, prior: DiffusionPrior, sampler: Sampler, n: int, context: Tensor | None
    ) -> Iterator[State]:
        times = self._times(prior)
        with self.noise, torch.no_grad():
            states = sampler.states(self._start(prior, n, context), times, context)
        steps: Iterable[int] = range(len(times) - 1)
        if self.progress:
            # Only here: rich takes a while to import.
            from rich.progress import track

            steps = track(steps, description=repr(sampler), total=len(times) - 1)
        for _ in steps:
            # Not around the yield: the caller's own noise and gradients have nothing to do with samples.
            with self.noise, torch.no_grad():
                state = next(states)
            yield state

    def _times(self, prior: DiffusionPrior) -> Tensor:
        own = prior.times().flip(0)
        if self.steps is None and self.grid is None:
            return own
        steps = len(own) - 1 if self.steps is None else self.steps
        return (self.grid or UniformTime()).times(prior.schedule, steps, own.device)
