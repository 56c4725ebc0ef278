"""A candidate: a model of a comparison, the plan of its training, and what it waits for."""

from __future__ import annotations

import copy
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from genmod.checks import one_of, require
from genmod.data import Dataset
from genmod.model import LatentModel
from genmod.objectives import Bound, Objective, WarmUp
from genmod.training import Step, training_loop
from genmod.training.history import OnProgress
from genmod.training.validation import validate

LATENTS = 1000
"""Latents of the diffusions, at full effort."""


@dataclass(frozen=True, eq=False)
class BuildInputs:
    """What a candidate's ``build`` receives.

    Args:
        data: the data set.
        effort: the fraction of the full number of training steps.
        trained: the candidates that this one comes ``after``, trained.
    """

    data: Dataset
    effort: float
    trained: Mapping[str, LatentModel]

    @property
    def latents(self) -> int:
        """How many latents a diffusion has: fewer at a fraction of the effort, so that a trial is quick."""
        return max(10, min(LATENTS, round(LATENTS * self.effort)))


@dataclass(frozen=True)
class Candidate:
    """A model of a comparison.

    Args:
        name: what reports call it.
        build: builds it, untrained. A function at the top level of a module, so that another
            process can find it by its name.
        plan: how it is trained at full effort.
        after: the candidates that have to be trained before; they come earlier in the suite.
        importance_samples: how many importance samples its report gets; 0 for none.
        timesteps: how many levels of a diffusion each test sample visits; ``None``: the default of
            :func:`~genmod.evaluation.evaluate`.
        cost: about how long training and scoring take, relative to the other candidates. It decides the
            order in which they are started, and the time left that is shown; no number depends on it.
    """

    name: str
    build: Callable[[BuildInputs], LatentModel]
    plan: Plan
    after: tuple[str, ...] = ()
    importance_samples: int = 0
    timesteps: int | None = None
    cost: float = 1.0

    @property
    def slug(self) -> str:
        """The name as the command and files have it.

        >>> from genmod.models import VAE
        >>> Candidate("VAE, wide", lambda inputs: VAE(inputs.data.shape), Plan(10)).slug
        'vae-wide'
        """
        return slug(self.name)


def slug(name: str) -> str:
    """A name in small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def check_suite(suite: Sequence[Candidate]) -> None:
    """Require names that differ as files, and candidates that come after earlier ones.

    Raises:
        ValueError: two candidates of one name; one after another that is not before it in the suite.
    """
    require(len(suite) >= 1, "a suite without candidates", "at least one", "pass suite=None")
    seen: dict[str, str] = {}
    for candidate in suite:
        require(
            candidate.slug != "" and candidate.slug not in seen,
            f"a candidate named {candidate.name!r} beside {seen.get(candidate.slug, 'others')!r}",
            "names that differ in letters or digits, because each names files",
            "rename one of them",
        )
        for name in candidate.after:
            require(
                name in seen.values(),
                f"{candidate.name!r} after {name!r}",
                f"a candidate before it: {', '.join(seen) or 'none'}",
                "put that candidate into the suite, earlier",
            )
        seen[candidate.slug] = candidate.name


def select(suite: Sequence[Candidate], names: Sequence[str] | None) -> list[Candidate]:
    """The candidates of these names, in the suite's order, and those that they come after.

    Args:
        suite: all candidates.
        names: as reports or as the command has them; ``None`` for all.

    Raises:
        ValueError: an unknown name; the message suggests the nearest.
    """
    if not names:
        return list(suite)
    known = [candidate.slug for candidate in suite]
    wanted = {one_of(known, slug(name), "model") for name in names}
    for candidate in reversed(suite):
        if candidate.slug in wanted:
            wanted |= {slug(name) for name in candidate.after}
    return [candidate for candidate in suite if candidate.slug in wanted]


_SKIPPED, _TIMED = 3, 12
"""Steps that warm up, and steps that are timed: the first ones allocate memory and choose kernels."""

_MARGIN = 1.1
"""How much faster half precision has to be: the clock is not more precise than that."""


@dataclass(frozen=True)
class Plan:
    """How a model is trained: see :func:`genmod.training.fit`.

    Args:
        steps: how many.
        batch_size: rows in a batch.
        learning_rate: of the optimizer, at its peak.
        weight_decay: of the optimizer.
        warm: over how many of the steps the rates rise to their full weight; 0 for none.
        ema: the decay of the moving average of the weights.
        autocast: whether the networks compute in bfloat16; ``None`` where that is measured to be faster.
        validations: how often the run is validated, and saved, on its way.
        validation_rows: how many rows of the validation part are scored; ``None`` for all.
        validation_timesteps: how many levels of a diffusion each of them visits.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm: int = 0
    ema: float = 0.999
    autocast: bool | None = False
    validations: int = 20
    validation_rows: int | None = None
    validation_timesteps: int | None = None

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps={self.steps}", "steps >= 1", "ask for at least one")
        require(self.warm >= 0, f"warm={self.warm}", "warm >= 0", "0 is none")
        require(
            self.validations >= 1,
            f"validations={self.validations}",
            "validations >= 1",
            "leave it out for 20",
        )

    @property
    def every(self) -> int:
        """Steps between two validations, and between two checkpoints."""
        return max(1, self.steps // self.validations)

    @property
    def objective(self) -> Objective:
        """What is minimized: the bound, with a warm-up of the rates if the plan has one."""
        return WarmUp(self.warm) if self.warm else Bound()

    def times(self, factor: float) -> Plan:
        """The same with a multiple of the steps and of the warm-up.

        >>> Plan(1000, warm=100).times(0.5)  # doctest: +ELLIPSIS
        Plan(steps=500, batch_size=64, ..., warm=50, ...)
        """
        warm = max(1, round(self.warm * factor)) if self.warm else 0
        return replace(self, steps=max(1, round(self.steps * factor)), warm=warm)

    def within_budget(self, seconds: float, timing: Timing) -> Plan:
        """The number of steps that fit a time, at least one.

        >>> plan = Plan(1000, warm=100)
        >>> plan.within_budget(60, Timing(step=0.1, validation=0.5)).steps  # (60 - 20 * 0.5) / 0.1
        500
        """
        fits = int(max(0.0, seconds - self.validations * timing.validation) / timing.step)
        return self if fits >= self.steps else self.times(max(1, fits) / self.steps)

    def with_precision(self, model: LatentModel, data: Dataset, seed: int) -> tuple[Plan, Timing]:
        """The plan with its precision chosen, and its timing here: half precision has to be faster."""
        kinds = (False, True) if self.autocast is None else (self.autocast,)
        plans = [replace(self, autocast=kind) for kind in kinds]
        timings = [(plan, Timing.measure(model, plan, data, seed)) for plan in plans]
        return min(timings, key=lambda found: found[1].step * (_MARGIN if found[0].autocast else 1))

    def validated(self, data: Dataset) -> Dataset:
        """The data with only those validation rows that the plan scores."""
        if self.validation_rows is None or len(data.validation) <= self.validation_rows:
            return data
        return data.cut("validation", self.validation_rows)

    def fit(
        self,
        model: LatentModel,
        data: Dataset,
        seed: int,
        checkpoint: Path | None = None,
        on_progress: OnProgress | None = None,
    ) -> Iterator[Step]:
        """Train a model; a generator of steps that continues from the checkpoint, if there is one.

        Args:
            model: trained in place.
            data: all of it.
            seed: of batches and noise.
            checkpoint: a file to write to and to continue from.
            on_progress: called with the number of steps made, and a line of text.
        """
        # Few rows make one small batch: no batch is larger than the training part.
        return training_loop(
            model,
            self.validated(data),
            self.objective,
            steps=self.steps,
            batch_size=min(self.batch_size, len(data.train)),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            ema=self.ema,
            seed=seed,
            autocast=torch.bfloat16 if self.autocast else None,
            validate_every=self.every,
            validation_timesteps=self.validation_timesteps,
            checkpoint=checkpoint,
            checkpoint_every=self.every,
            progress=on_progress or False,
        )


@dataclass(frozen=True)
class Timing:
    """How long a run takes on this machine, as busy as it is now.

    Args:
        step: seconds of a training step.
        validation: seconds of a validation.
    """

    step: float
    validation: float

    @classmethod
    def measure(cls, model: LatentModel, plan: Plan, data: Dataset, seed: int) -> Timing:
        """Train a copy for some steps and discard it: the model and its noise stay as they are."""
        copied = copy.deepcopy(model)
        unseen = data.cut("validation", 0)
        marks = []
        for step in replace(plan, steps=_SKIPPED + _TIMED).fit(copied, unseen, seed):
            if step.number >= _SKIPPED:
                marks.append(time.perf_counter())
        lengths = [late - early for early, late in pairwise(marks)]
        scored = plan.validated(data)
        began = time.perf_counter()
        if len(scored.validation):
            context = scored.context("validation")
            validate(copied, scored.validation, context, 0, plan.validation_timesteps)
        return cls(statistics.median(lengths), time.perf_counter() - began)
