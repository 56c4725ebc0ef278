"""The stages of a run, and the loop over all their steps: an iterator and a context manager."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from genmod.checks import instance, invalid
from genmod.model import LatentModel
from genmod.models.latent_diffusion import (
    LatentDiffusion,
    check_two_stages,
    first_stage,
    freeze_first_stage,
)
from genmod.nn.modules import load_weights
from genmod.objectives import Bound, Objective
from genmod.objectives.pairs import ObjectivePairs, Objectives, Pairs
from genmod.training.checkpoint import Checkpoint
from genmod.training.history import History, Step
from genmod.training.run import Run
from genmod.training.setup import Setup


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of training.

    Args:
        name: the name of the stage, for the progress bar and the history.
        model: the model that is trained; its parts are those of the whole model.
        before: called with the training data, their context and mask before the stage begins.
    """

    name: str
    model: LatentModel
    before: Callable[[Tensor, Tensor | None, Tensor | None], object] | None = None


def stages_of(model: LatentModel, stages: str | None) -> Sequence[Stage]:
    """The stages of a run: the model's own recipe, or the whole model at once.

    Args:
        model: the model to train.
        stages: ``None``: the recipe; ``"joint"``: all parts together, on the plain bound;
            ``"two-stage"``: the encoder and decoder under N(0, I), then the prior on their latents.

    Raises:
        ValueError: another word; two stages of a model whose prior is not learned.

    Reference: Dai, Wipf, "Diagnosing and Enhancing VAE Models" (2019), section 5, for the two stages.
    """
    if stages not in (None, "joint", "two-stage"):
        raise invalid(
            f"stages={stages!r}",
            "None (the model's own recipe), 'joint' or 'two-stage'",
            "leave it out for the recipe",
        )
    whole = Stage(type(model).__name__, model)
    if stages == "two-stage":
        check_two_stages(model)
    if stages == "joint" or (stages is None and not isinstance(model, LatentDiffusion)):
        return [whole]
    first = (model.encoder, model.decoder)
    if not any(p.requires_grad for part in first for p in part.parameters()):
        return [whole]
    before = partial(freeze_first_stage, model)
    return [Stage("VAE", first_stage(model)), replace(whole, before=before)]


@contextmanager
def as_if_frozen(stages: Sequence[Stage]) -> Iterator[LatentModel]:
    """The model of the last stage, with the parts of earlier stages frozen, as when that stage begins."""
    earlier = [p for stage in stages[:-1] for p in stage.model.parameters() if p.requires_grad]
    for parameter in earlier:
        parameter.requires_grad_(False)
    try:
        yield stages[-1].model
    finally:
        for parameter in earlier:
            parameter.requires_grad_(True)


def objectives_of(
    given: Objective | Objectives | None, stages: Sequence[Stage]
) -> Sequence[Objective]:
    """The objective of each stage, checked: the bound in all stages before the last, unless it is given.

    Raises:
        ValueError: something else; another number of objectives than stages; an objective that does not
            suit the model of its stage.
    """
    advice = "pass for example IWAE(8), or a list of pairs (objective, parameters)"
    before: list[Objective] = [Bound() for _ in stages[:-1]]
    with as_if_frozen(stages) as last:
        if not isinstance(given, Sequence) or isinstance(given, str):
            found = [*before, instance(given or Bound(), Objective, "objective", advice)]
        else:
            found = [each for each in given if isinstance(each, Objective)]
            if not found or len(found) != len(given):
                found = [*before, ObjectivePairs(cast(Pairs, given), last)]
        if len(found) != len(stages):
            raise invalid(
                f"objectives for {len(found)} stages of a run with {len(stages)}",
                "one objective, or one for each stage",
                "pass pairs (objective, parameters) for several in one stage",
            )
        found[-1].check(last)
    for objective, stage in zip(found[:-1], stages, strict=False):
        objective.check(stage.model)
    return found


class TrainingLoop:
    """A run of :func:`training_loop`: an iterator of steps, and a context manager.

    When a ``for`` loop over it ends, also by ``break``, the model gets its best averaged weights and is
    in evaluation mode. Another ``for`` loop, or ``next``, continues the training.
    """

    def __init__(
        self, setup: Setup, stages: Sequence[Stage], objectives: Sequence[Objective]
    ) -> None:
        self._setup, self._stages, self._objectives = setup, stages, objectives
        saved = None if setup.checkpoints is None else setup.checkpoints.latest()
        if saved is not None:
            saved.check(setup.identity)
        # No process writes a checkpoint before all have read the last one.
        setup.devices.wait()
        stage, step = (0, 0) if saved is None else (saved.stage, saved.step)
        setup.metrics.restart(stage, step)
        self._run = self._begin(0 if saved is None else saved.stage, saved=saved)

    @property
    def history(self) -> History:
        """The history so far."""
        return self._run.history

    def __iter__(self) -> Iterator[Step]:
        # A generator, because CPython closes it as soon as the for loop is left.
        try:
            while (step := self._next()) is not None:
                yield step
        finally:
            self.close()

    def __next__(self) -> Step:
        step = self._next()
        if step is None:
            self.close()
            raise StopIteration
        return step

    def __enter__(self) -> TrainingLoop:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if "_run" in vars(self):
            self.close()

    def save(self) -> None:
        """Write the checkpoint now, between two steps: ``break`` after it loses nothing."""
        self._run.save()

    @torch.inference_mode(False)
    def close(self) -> None:
        """Give the model its best averaged weights, in evaluation mode; close files of metrics."""
        self._run.pause()
        self._setup.metrics.close()

    def _next(self) -> Step | None:
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            return self._advance()
        with torch.inference_mode(False), torch.enable_grad():
            return self._advance()

    def _advance(self) -> Step | None:
        step = self._run.next()
        while step is None and self._run.stage + 1 < len(self._stages):
            self._run.pause()
            done = self._run.history
            self._run = self._begin(self._run.stage + 1, done.stages)
            step = self._run.next()
        return step

    def _begin(
        self, number: int, earlier: Sequence[History] = (), saved: Checkpoint | None = None
    ) -> Run:
        """The run of a stage, from its start or from a checkpoint."""
        stage = self._stages[number]
        if saved is not None:
            earlier = saved.earlier
            load_weights(self._stages[-1].model, saved.whole())
        if stage.before is not None:
            rows = self._setup.data.all_rows()
            stage.before(rows.x, rows.context, rows.observed)
        state = self._setup.state(stage.model, self._objectives[number])
        return Run(self._setup, state, stage.name, number, earlier, saved)
