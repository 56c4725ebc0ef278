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

from genmod.checks import check_at_least, invalid, one_of
from genmod.data import Dataset
from genmod.diffusion.timesteps import LossAwareTimesteps
from genmod.model import LatentModel
from genmod.objectives import Bound, Objective, WarmUp
from genmod.signatures import check_fields
from genmod.training import Muon, Step, training_loop
from genmod.training.metrics import OnProgress
from genmod.training.validation import HeldOut, validate

LATENTS = 1000
"""The number of latents of a diffusion at full effort."""


@dataclass(frozen=True, eq=False)
class BuildInputs:
    """The input of a candidate's ``build`` function.

    Args:
        data: the data set.
        effort: the fraction of the full number of training steps.
        trained: the trained models of the candidates in ``after``, by name.
    """

    data: Dataset
    effort: float
    trained: Mapping[str, LatentModel]

    @property
    def latents(self) -> int:
        """The number of latents of a diffusion: 1000 at full effort, fewer in a quick trial."""
        return max(10, min(LATENTS, round(LATENTS * self.effort)))


@dataclass(frozen=True)
class Candidate:
    """A model of a comparison: how it is built, trained and evaluated.

    Args:
        name: the name in reports.
        build: builds the untrained model. It must be a function at the top level of a module, so that
            another process can import it.
        plan: how the model is trained at full effort.
        after: the names of candidates that must be trained before this one; they come earlier in the suite.
        importance_samples: the number of importance samples per test sample; 0: none.
        refine_steps: steps that refine the posterior of each test sample for a second bound; 0: none.
        timesteps: the number of noise levels of a diffusion that each test sample visits; ``None``: the
            default of :func:`~genmod.evaluation.evaluate`.
        cost: the rough time of training and evaluation, relative to the other candidates. It decides the
            order of the training runs and the displayed time left. No result depends on it.
    """

    name: str
    build: Callable[[BuildInputs], LatentModel]
    plan: Plan
    after: tuple[str, ...] = ()
    importance_samples: int = 0
    refine_steps: int = 0
    timesteps: int | None = None
    cost: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def slug(self) -> str:
        """The name in the command line and in file names.

        >>> from genmod.models import VAE
        >>> Candidate("VAE, wide", lambda inputs: VAE(inputs.data.shape), Plan(10)).slug
        'vae-wide'
        """
        return slug(self.name)


def slug(name: str) -> str:
    """A name in lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def check_suite(suite: Sequence[Candidate]) -> None:
    """Require different names, and an order in which each candidate follows those in its ``after``.

    Raises:
        ValueError: two candidates with one name; a candidate before one of its ``after``.
    """
    if len(suite) == 0:
        raise invalid("a suite without candidates", "at least one", "pass suite=None")
    seen: dict[str, str] = {}
    for candidate in suite:
        if candidate.slug == "" or candidate.slug in seen:
            raise invalid(
                f"a candidate named {candidate.name!r} beside "
                f"{seen.get(candidate.slug, 'others')!r}",
                "names that differ in letters or digits, because they are used as file names",
                "rename one of them",
            )
        for name in candidate.after:
            if name not in seen.values():
                raise invalid(
                    f"{candidate.name!r} with after={name!r}",
                    f"the name of a candidate before it: {', '.join(seen) or 'none'}",
                    "put that candidate earlier into the suite",
                )
        seen[candidate.slug] = candidate.name


def select(suite: Sequence[Candidate], names: Sequence[str] | None) -> list[Candidate]:
    """The candidates with these names, and those in their ``after``, in the order of the suite.

    Args:
        suite: all candidates.
        names: names as in reports or as in the command line; ``None``: all.

    Raises:
        ValueError: an unknown name; the message suggests the most similar one.
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
"""Steps that are skipped, and steps that are timed: the first ones allocate memory and choose kernels."""

_MARGIN = 1.1
"""How many times faster bfloat16 must be: smaller differences are within the noise of the clock."""


@dataclass(frozen=True)
class Plan:
    """The training settings of a candidate; see :func:`genmod.training.fit`.

    Args:
        steps: the number of training steps.
        batch_size: rows in a batch.
        learning_rate: the peak learning rate.
        weight_decay: the weight decay of the optimizer.
        warm: KL warm-up: the number of steps in which the weight of the rates rises from 0 to 1; 0: none.
        ema: the decay of the moving average of the weights.
        autocast: whether the networks compute in bfloat16; ``None``: if a measurement shows it is faster.
        muon: whether :class:`~genmod.training.Muon` takes the place of AdamW.
        loss_aware: whether noise levels with a larger loss are visited more often; not with ``warm``.
        validations: how many times the model is validated, and a checkpoint saved, during training.
        validation_rows: the number of validation rows that are scored; ``None``: all.
        validation_timesteps: the number of noise levels of a diffusion that each of these rows visits.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm: int = 0
    ema: float = 0.999
    autocast: bool | None = False
    muon: bool = False
    loss_aware: bool = False
    validations: int = 20
    validation_rows: int | None = None
    validation_timesteps: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_at_least(self.steps, 1, "steps", "pass at least one step")
        check_at_least(self.warm, 0, "warm", "pass 0 for no warm-up")
        check_at_least(self.validations, 1, "validations", "leave it out for 20")
        if self.loss_aware and self.warm:
            raise invalid("loss_aware beside warm", "one of them", "leave one out")

    @property
    def every(self) -> int:
        """Steps between two validations, and between two checkpoints."""
        return max(1, self.steps // self.validations)

    @property
    def objective(self) -> Objective:
        """The training objective: the bound, with a KL warm-up if ``warm`` is positive."""
        bound = Bound(LossAwareTimesteps()) if self.loss_aware else Bound()
        return WarmUp(self.warm) if self.warm else bound

    def times(self, factor: float) -> Plan:
        """The plan with the number of steps, and the warm-up, multiplied by a factor.

        >>> Plan(1000, warm=100).times(0.5)  # doctest: +ELLIPSIS
        Plan(steps=500, batch_size=64, ..., warm=50, ...)
        """
        warm = max(1, round(self.warm * factor)) if self.warm else 0
        return replace(self, steps=max(1, round(self.steps * factor)), warm=warm)

    def within_budget(self, seconds: float, timing: Timing) -> Plan:
        """The plan with as many of its steps as fit a time budget, at least one.

        >>> plan = Plan(1000, warm=100)
        >>> plan.within_budget(60, Timing(step=0.1, validation=0.5)).steps  # (60 - 20 * 0.5) / 0.1
        500
        """
        fits = int(max(0.0, seconds - self.validations * timing.validation) / timing.step)
        return self if fits >= self.steps else self.times(max(1, fits) / self.steps)

    def with_precision(self, model: LatentModel, data: Dataset, seed: int) -> tuple[Plan, Timing]:
        """The plan with its precision chosen by measurement, and the measured timing."""
        kinds = (False, True) if self.autocast is None else (self.autocast,)
        plans = [replace(self, autocast=kind) for kind in kinds]
        timings = [(plan, Timing.measure(model, plan, data, seed)) for plan in plans]
        return min(timings, key=lambda found: found[1].step * (_MARGIN if found[0].autocast else 1))

    def validated(self, data: Dataset) -> Dataset:
        """The data with only as many validation rows as the plan scores."""
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
        """Train a model, as a generator of steps. It continues from the checkpoint, if the file exists.

        Args:
            model: the model, which is changed in place.
            data: the data set.
            seed: the seed of batches and noise.
            checkpoint: the file to write to, and to continue from.
            on_progress: called with the number of steps so far, and a line of text.
        """
        scored = self.validated(data)
        rate, decay = self.learning_rate, self.weight_decay
        return training_loop(
            model,
            scored,
            self.objective,
            steps=self.steps,
            batch_size=min(self.batch_size, len(data.train)),
            learning_rate=rate,
            weight_decay=decay,
            ema=self.ema,
            seed=seed,
            autocast=torch.bfloat16 if self.autocast else None,
            optimizer=Muon(model, learning_rate=rate, weight_decay=decay) if self.muon else None,
            validate_every=self.every,
            validation_timesteps=self.validation_timesteps,
            validation_rows=max(1, len(scored.validation)),
            checkpoint=checkpoint,
            checkpoint_every=self.every,
            progress=on_progress or False,
        )


@dataclass(frozen=True)
class Timing:
    """The measured speed of training on this machine.

    Args:
        step: seconds per training step.
        validation: seconds per validation.
    """

    step: float
    validation: float

    @classmethod
    def measure(cls, model: LatentModel, plan: Plan, data: Dataset, seed: int) -> Timing:
        """Train a copy of the model for some steps. The model and its random state do not change."""
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
            x, context = scored.validation, scored.context("validation")
            validate(copied, HeldOut.sample(x, context, len(x)), 0, plan.validation_timesteps)
        return cls(statistics.median(lengths), time.perf_counter() - began)
