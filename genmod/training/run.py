"""One stage of a run, step by step."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from genmod.checks import trusted
from genmod.elbo import ELBO
from genmod.nn.mlp import check_context
from genmod.objectives import Batch
from genmod.objectives.base import check_loss
from genmod.objectives.requirements import refuse_weighted_levels
from genmod.random.streams import keyed_step
from genmod.training.augment import Augmentation, augmented
from genmod.training.batches import Batches, joined, split
from genmod.training.checkpoint import Checkpoint, Checkpoints, load_checkpoint, save_checkpoint
from genmod.training.compiled import compile_networks, explained, plain_networks, uncompiled
from genmod.training.devices import Place
from genmod.training.history import History, Step
from genmod.training.metrics import Bar
from genmod.training.setup import Setup
from genmod.training.state import SpoiledBatches, TrainingState
from genmod.training.validation import Validation, held_out_rows, validate

_one_run = threading.RLock()
"""Held during a step, so that runs in several threads take turns.

Layers draw from torch's global generator. Each run sets its state for a step, and restores it.
"""


class Run:
    """One stage of a run.

    Args:
        setup: what all stages share.
        state: the model and everything that training changes.
        name: the name of the stage.
        stage: the number of the stage.
        earlier: the histories of the stages before it.
        saved: the checkpoint to continue from, if it was written in this stage.
    """

    def __init__(
        self,
        setup: Setup,
        state: TrainingState,
        name: str,
        stage: int = 0,
        earlier: Sequence[History] = (),
        saved: Checkpoint | None = None,
    ) -> None:
        self.setup, self.state, self.name = setup, state, name
        self.stage, self.earlier = stage, tuple(earlier)
        if saved is not None:
            load_checkpoint(state, saved)
        self.validate_every = setup.config.between_validations(state.cycle)
        self.batches: Batches = setup.data.batches(setup.config, setup.device)
        own = all(isinstance(transform, Augmentation) for transform in setup.augment)
        self.checked = self.batches.checked and own
        self.held_out = held_out_rows(setup.data, setup.config, state.cycles[0], state.model)
        self.half = setup.half
        self.spoiled = SpoiledBatches(state, setup.config.skip_nonfinite)
        dims = state.model.spec.size
        self.bar = Bar(state.cycle.last, dims, name, setup.progress)
        self.running = False

    @property
    def history(self) -> History:
        """The history so far."""
        state = self.state
        return History(
            self.name,
            tuple(state.cycles),
            tuple(state.losses),
            tuple(state.validations),
            self.earlier,
            state.stopped,
            tuple(state.skipped),
        )

    def next(self) -> Step | None:
        """Make a step and return it; ``None`` after the last one."""
        if self.state.finished:
            return None
        if not self.running:
            self.state.resume()
            self.bar.start()
            self.running = True
            if self.setup.config.compile:
                compile_networks(self.state.model)
            if self.state.step == self.state.cycle.first and len(self.state.cycles) > 1:
                self.bar.note(self.state.step, self.state.cycle.describe(self.setup.config))
        with self.state.parallel if self.setup.devices.count > 1 else nullcontext():
            return self._step()

    def save(self, path: Path | None = None) -> None:
        """Write the checkpoint now, if the run has a place for it."""
        state, setup = self.state, self.setup
        if setup.checkpoints is not None:
            path = path or setup.checkpoints.file(state, self.stage)
            save_checkpoint(state, self.history, path, setup.identity, setup.model, self.stage)

    def pause(self) -> None:
        """Give the model its best averaged weights, in evaluation mode."""
        if self.running or not self.state.step or self.state.finished:
            self.bar.stop()
            self.state.pause()
            self.running = False
            self.state.parallel.finish()
            if self.setup.config.compile:
                plain_networks(self.state.model)

    def _step(self) -> Step:
        state = self.state
        if not state.model.training:
            state.resume()
        parts = self._parts()
        # The backward pass is inside the lock, too: layers that are recomputed there draw again.
        with _one_run, explained() if self.setup.config.compile else nullcontext():
            state.forget_gradients()
            self.spoiled.keep()
            if len(parts) == 1 and self.setup.devices.count == 1:
                loss, elbo = self._loss(parts[0])
                loss.backward()
                loss, elbo = loss.detach(), elbo.detach()
            else:
                loss, elbo, parts = self._shared_gradient(parts)
            made = state.apply(loss)
        if made:
            state.objective.update(elbo, joined(parts))
        else:
            self.bar.note(state.step + 1, self.spoiled.skip(float(loss), elbo))
        validation = self._validate()
        value = state.losses[-1]
        step = Step(
            state.step, value, elbo, validation, self.name, not made,
            _averaged=partial(state.parallel.averaged, state.average),
        )  # fmt: skip
        if self.setup.metrics.active:
            # Before the checkpoint: a run that is killed between the two makes the step again.
            self._log(step)
        if self.setup.checkpoints is not None:
            self._save(self.setup.checkpoints, validation)
        if self.bar.on_progress is not None:
            self.bar.show(step.number, step.loss, elbo, validation)
        return step

    def _parts(self) -> list[Batch]:
        """The batches of this step, whose gradients are added up. Most often it is one."""
        setup, step = self.setup, self.state.step
        parts = self.batches.parts(step, setup.config.accumulate)
        if not setup.augment:
            return parts
        whole = augmented(joined(parts), setup.augment, setup.config.seed, step)
        return split(whole, len(parts[0].x))

    def _loss(self, batch: Batch, place: Place | None = None) -> tuple[Tensor, ELBO]:
        """The loss and the bound of a batch, or of a part of one with its place in the whole."""
        state, setup = self.state, self.setup
        noise = keyed_step(setup.config.seed, state.step, setup.device, place)
        several = setup.devices.count > 1
        with self._values(batch), noise, self.half:
            loss, elbo = (
                state.parallel.loss(batch) if several else state.objective(state.model, batch)
            )
        check_loss(loss, state.objective)
        if state.step == state.cycle.first:
            refuse_weighted_levels(state.model, state.objective, loss, elbo)
        return loss, elbo

    def _shared_gradient(self, parts: Sequence[Batch]) -> tuple[Tensor, ELBO, list[Batch]]:
        """Add up the gradient of a step in several parts or processes.

        Returns:
            The loss of all rows; the bound of this process's rows; its batches.
        """
        parallel, devices = self.state.parallel, self.setup.devices
        mine, places = devices.share(parts)
        losses, elbos = [], []
        for number, (part, place) in enumerate(zip(mine, places, strict=True)):
            with parallel.part_of_step(last=number + 1 == len(mine)):
                loss, elbo = self._loss(part, place)
                loss = loss * (place[1] / place[2])
                # DDP and FSDP take the mean of the gradients over processes.
                (loss * devices.count).backward()
            losses.append(loss.detach())
            elbos.append(elbo.detach())
        parallel.take_gradients()
        return devices.sum(torch.stack(losses).sum()), ELBO.join(elbos), mine

    def _values(self, batch: Batch) -> AbstractContextManager[object]:
        """A block without checks of values, if all were checked before. Compiled networks check none."""
        if self.checked:
            return trusted()
        if batch.observed is not None:
            self.state.model.check_missing()
        if self.setup.config.compile:
            check_context(self.state.model, batch.context)
        return nullcontext()

    def _save(self, places: Checkpoints, validation: Validation | None) -> None:
        state = self.state
        paths = []
        if state.step % self.setup.config.checkpoint_every == 0 or state.finished:
            paths.append(places.file(state, self.stage))
        best = places.best()
        if best is not None and validation is not None and validation == self.history.best:
            paths.append(best)
        for path in paths:
            self.save(path)
        if paths and self.setup.devices.is_main:
            places.remove_old()

    def _log(self, step: Step) -> None:
        """Write the numbers of a step, if it is one of those that are written."""
        state, config, valid = self.state, self.setup.config, step.validation
        if step.number % config.log_every and valid is None and not state.finished:
            return
        rate = max(group["lr"] for group in state.optimizer.param_groups)
        values = {"loss": step.loss, "bound": step.bound, "learning_rate": float(rate)}
        if valid is not None:
            values |= {"validation": valid.nats, "validation_error": valid.error}
            if valid.weighted is not None:
                values["validation_weighted"] = valid.weighted
        before = sum(len(history.losses) for history in self.earlier)
        self.setup.metrics.log(self.stage, step.number, values, before)

    def _validate(self) -> Validation | None:
        state, config = self.state, self.setup.config
        due = state.step % self.validate_every == 0 or state.step == state.cycle.last
        if self.held_out is None or not due:
            return None
        eager = uncompiled() if config.compile else nullcontext()
        with _one_run, eager, state.average.inside(), state.parallel.scored() as model:
            validation = validate(
                model, self.held_out, state.step, config.validation_timesteps, self.setup.devices,
                state.objective.validation_samples,
            )  # fmt: skip
        state.record(validation)
        return validation
