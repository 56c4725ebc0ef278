"""One stage of a run, step by step."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genmod.checks import require, trusted
from genmod.diffusion import DiffusionPrior
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.objectives import Batch, Objective
from genmod.objectives.base import (
    broken_terms,
    encoder_learns,
    require_fixed_encoder,
    weights_levels,
)
from genmod.random.streams import keyed_step
from genmod.training.batches import Batches
from genmod.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from genmod.training.config import TrainingConfig
from genmod.training.history import Bar, History, OnProgress, Step
from genmod.training.identity import Identity
from genmod.training.parts import TrainingData
from genmod.training.state import TrainingState
from genmod.training.validation import Validation, validate

_one_run = threading.RLock()
"""Held during a step, so that runs in several threads take turns.

Layers draw from torch's global generator. Each run sets its state for a step, and restores it.
"""


class NonFiniteLoss(ArithmeticError):
    """A loss or gradient that is NaN or infinite: the run stops before this step."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What all stages of a run share.

    Args:
        model: the whole model.
        config: the settings.
        data: the training and validation rows.
        device: the device to train on.
        optimizer: the user's own, or ``None``.
        checkpoint: the file, or ``None``.
        identity: the identity of the run; empty without a file.
        progress: whether a bar is shown, or the function that is called instead.
    """

    model: LatentModel
    config: TrainingConfig
    data: TrainingData
    device: torch.device
    optimizer: torch.optim.Optimizer | None
    checkpoint: Path | None
    identity: Identity
    progress: bool | OnProgress

    def state(self, model: LatentModel, objective: Objective) -> TrainingState:
        """A model at the start of its training."""
        model.to(self.device)
        require(
            not any(parameter.is_inference() for parameter in model.parameters()),
            f"a {type(model).__name__} whose parameters were made in torch.inference_mode()",
            "parameters that can learn",
            "build or copy the model outside of inference mode",
        )
        objective.to(self.device).train()
        objective.begin()
        optimizer = self.optimizer or _adam(model, self.config)
        return TrainingState(model, optimizer, self.config, objective)

    @property
    def half(self) -> AbstractContextManager[object]:
        """A block in which networks run in half precision, if the settings say so."""
        kind = self.config.autocast
        return nullcontext() if kind is None else torch.autocast(self.device.type, kind)


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
        self.batches: Batches = setup.data.batches(setup.config, setup.device)
        self.half = setup.half
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
        )

    def next(self) -> Step | None:
        """Make a step and return it; ``None`` after the last one."""
        if self.state.finished:
            return None
        if not self.running:
            self.state.resume()
            self.bar.start()
            self.running = True
            if self.state.step == self.state.cycle.first and len(self.state.cycles) > 1:
                self.bar.note(self.state.step, self.state.cycle.describe(self.setup.config))
        return self._step()

    def pause(self) -> None:
        """Give the model its best averaged weights, in evaluation mode."""
        if self.running or not self.state.step or self.state.finished:
            self.bar.stop()
            self.state.pause()
            self.running = False

    def _step(self) -> Step:
        state = self.state
        if not state.model.training:
            state.resume()
        batch = self.batches(state.step)
        loss, elbo, made = self._gradient_step(batch)
        if not made:
            broken = broken_terms(elbo)
            raise NonFiniteLoss(
                f"got a loss of {float(loss):g} at step {state.step + 1} "
                f"({'in ' + ', '.join(broken) if broken else 'its gradient is not finite'}); expected "
                "a finite one; the model holds the last good weights: lower the learning rate, clip "
                "gradients harder, or look at the data of that batch"
            )
        state.objective.update(elbo, batch)
        validation = self._validate()
        if self.setup.checkpoint is not None and self._saves():
            save_checkpoint(
                state,
                self.setup.checkpoint,
                self.setup.identity,
                self.setup.model,
                self.stage,
                self.earlier,
            )
        if self.bar.on_progress is not None:
            self.bar.show(state.step, state.losses[-1], elbo, validation)
        return Step(
            state.step, state.losses[-1], elbo, validation, self.name, _average=state.average
        )

    def _gradient_step(self, batch: Batch) -> tuple[Tensor, ELBO, bool]:
        """The loss and the bound of a batch, and whether they were finite, so that the step was made."""
        state, seed = self.state, self.setup.config.seed
        values = trusted() if self.batches.checked else nullcontext()
        # The backward pass is inside the lock, too: layers that are recomputed there draw again.
        with _one_run:
            with (
                values,
                keyed_step(seed, state.step, self.setup.device),
                self.half,
            ):
                loss, elbo = state.objective(state.model, batch)
            _check_loss(loss, state.objective)
            if state.step == state.cycle.first:
                self._check_weights(loss, elbo)
            elbo = elbo.detach()
            return loss.detach(), elbo, state.update(loss)

    def _check_weights(self, loss: Tensor, elbo: ELBO) -> None:
        """Refuse an objective of the user's own that would train an encoder by weighted timesteps."""
        model, objective = self.state.model, self.state.objective
        priors = [part for part in model.modules() if isinstance(part, DiffusionPrior)]
        schedules = [parameter for prior in priors for parameter in prior.schedule.parameters()]
        if objective.needs_path or not encoder_learns(model, schedules):
            return
        if weights_levels(loss, elbo):
            require_fixed_encoder(model, type(objective).__name__, schedules)

    def _saves(self) -> bool:
        state = self.state
        return state.step % self.setup.config.checkpoint_every == 0 or state.finished

    def _validate(self) -> Validation | None:
        state, data, config = self.state, self.setup.data, self.setup.config
        if data.held_out is None or not config.validates(state.cycle, state.step):
            return None
        with _one_run, state.average.inside() as model:
            validation = validate(
                model,
                data.held_out,
                data.held_out_context,
                state.step,
                config.validation_timesteps,
            )
        state.record(validation)
        return validation


def _check_loss(loss: Tensor, objective: Objective) -> None:
    require(
        loss.ndim == 0,
        f"a loss of shape {tuple(loss.shape)} from {type(objective).__name__}",
        "a scalar",
        "return the mean over the batch",
    )
    require(
        loss.requires_grad,
        f"a loss of {type(objective).__name__} that depends on no parameter",
        "a loss with a gradient",
        "unfreeze a part, or look for a detach() in the objective",
    )


def _adam(model: LatentModel, config: TrainingConfig) -> torch.optim.Optimizer:
    learned = [p for p in model.parameters() if p.requires_grad]
    require(
        len(learned) > 0,
        "a model without parameters that learn",
        "at least one",
        "unfreeze a part: parameter.requires_grad_(True)",
    )
    return torch.optim.AdamW(
        learned, config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
