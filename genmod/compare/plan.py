"""How a member is trained: settings, and how many of its steps a time budget pays for."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from genmod.checks import require
from genmod.data import Dataset
from genmod.model import LatentModel
from genmod.objectives import Bound, Objective, WarmUp
from genmod.training import Step, training_loop
from genmod.training.progress import OnProgress
from genmod.training.validation import validate

_SKIPPED, _TIMED = 3, 12
"""Steps that warm up, and steps that are timed: the first ones allocate memory and choose kernels."""

_WORTH = 1.1
"""How much faster half precision has to be: a busy second is no reason to choose it."""


@dataclass(frozen=True)
class Plan:
    """How a model is trained: see :func:`genmod.training.fit`.

    Args:
        steps: how many.
        batch_size: rows in a batch.
        learning_rate: of the optimizer, at its peak.
        weight_decay: of the optimizer.
        warm: over how many of the steps the rates rise to their full price; 0 for none.
        ema: the decay of the moving average of the weights.
        autocast: whether the networks compute in bfloat16; ``None`` where that is found to pay.
        looks: how often the run is validated, and saved, on its way.
        validated: how many rows of the validation part are looked at; ``None`` for all.
        validation_timesteps: how many levels of a diffusion each of them visits.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm: int = 0
    ema: float = 0.999
    autocast: bool | None = False
    looks: int = 20
    validated: int | None = None
    validation_timesteps: int | None = None

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps={self.steps}", "steps >= 1", "ask for at least one")
        require(self.warm >= 0, f"warm={self.warm}", "warm >= 0", "0 is none")
        require(self.looks >= 1, f"looks={self.looks}", "looks >= 1", "20 are customary")

    @property
    def every(self) -> int:
        """Steps between two looks at the validation data, and between two checkpoints."""
        return max(1, self.steps // self.looks)

    @property
    def objective(self) -> Objective:
        """What is minimized: the bound, with rates that rise first if the plan says so."""
        return WarmUp(self.warm) if self.warm else Bound()

    def times(self, factor: float) -> Plan:
        """The same with a multiple of the steps, and of those over which the rates rise.

        >>> Plan(1000, warm=100).times(0.5)  # doctest: +ELLIPSIS
        Plan(steps=500, batch_size=64, ..., warm=50, ...)
        """
        warm = max(1, round(self.warm * factor)) if self.warm else 0
        return replace(self, steps=max(1, round(self.steps * factor)), warm=warm)

    def within(self, seconds: float, pace: Pace) -> Plan:
        """As many of the steps as a time pays for, at least one, and at most what they are.

        >>> Plan(1000, warm=100).within(60, Pace(step=0.1, look=0.5)).steps  # (60 - 20 * 0.5) / 0.1
        500
        """
        fits = int(max(0.0, seconds - self.looks * pace.look) / pace.step)
        return self if fits >= self.steps else self.times(max(1, fits) / self.steps)

    def settled(self, model: LatentModel, data: Dataset, seed: int) -> tuple[Plan, Pace]:
        """The plan with its type chosen, and the pace it has here: half precision has to be faster."""
        kinds = (False, True) if self.autocast is None else (self.autocast,)
        plans = [replace(self, autocast=kind) for kind in kinds]
        paces = [(plan, Pace.measure(model, plan, data, seed)) for plan in plans]
        return min(paces, key=lambda found: found[1].step * (_WORTH if found[0].autocast else 1))

    def looked_at(self, data: Dataset) -> Dataset:
        """The data with the part of the validation rows that the plan looks at."""
        if self.validated is None or len(data.validation) <= self.validated:
            return data
        return data.cut("validation", self.validated)

    def fit(
        self,
        model: LatentModel,
        data: Dataset,
        seed: int,
        checkpoint: Path | None = None,
        told: OnProgress | None = None,
    ) -> Iterator[Step]:
        """Train a model; a generator of steps that continues from the checkpoint, if there is one.

        Args:
            model: trained in place.
            data: all of it.
            seed: of batches and noise.
            checkpoint: a file to write to and to continue from.
            told: is told how far it is.
        """
        return training_loop(
            model,
            self.looked_at(data),
            self.objective,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            ema=self.ema,
            seed=seed,
            autocast=torch.bfloat16 if self.autocast else None,
            validate_every=self.every,
            validation_timesteps=self.validation_timesteps,
            checkpoint=checkpoint,
            checkpoint_every=self.every,
            progress=told or False,
        )


@dataclass(frozen=True)
class Pace:
    """How long a run takes on this machine, as busy as it is now.

    Args:
        step: seconds of a step of training.
        look: seconds of a look at the validation data.
    """

    step: float
    look: float

    @classmethod
    def measure(cls, model: LatentModel, plan: Plan, data: Dataset, seed: int) -> Pace:
        """Train a copy for some steps and forget it: the model and its noise stay as they are."""
        copied = copy.deepcopy(model)
        unseen = data.cut("validation", 0)
        marks = []
        for step in replace(plan, steps=_SKIPPED + _TIMED).fit(copied, unseen, seed):
            if step.number >= _SKIPPED:
                marks.append(time.perf_counter())
        lengths = [late - early for early, late in pairwise(marks)]
        seen = plan.looked_at(data)
        began = time.perf_counter()
        if len(seen.validation):
            validate(
                copied, seen.validation, seen.context("validation"), 0, plan.validation_timesteps
            )
        return cls(statistics.median(lengths), time.perf_counter() - began)
