"""One stage of a run, step by step."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from genmod.checks import require, trusted
from genmod.diffusion import DiffusionPrior
from genmod.elbo import ELBO, Measure
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
from genmod.training.history import Bar, History, OnProgress
from genmod.training.identity import Identity
from genmod.training.parts import TrainingData
from genmod.training.state import Average, TrainingState
from genmod.training.validation import Validation, held_out_rows, validate

_one_run = threading.RLock()
"""Held by the run that makes a step, so that runs in several threads take turns.

Layers draw from torch's one generator. Each run sets its state for a step, and puts it back.
"""


class NonFiniteLoss(ArithmeticError):
    """A loss or gradient that is NaN or infinite: the run stops before this step."""


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """What one step of training did.

    Args:
        number: how many steps were made, this one included.
        loss: the loss that was minimized.
        elbo: the bound of each sample of the batch, before the step, detached.
        validation: the bound on the validation data, at the steps that measure it.
        stage: what is being trained, for a model that is trained in stages.
    """

    number: int
    loss: float
    elbo: ELBO
    validation: Validation | None
    stage: str
    _average: Average = field(kw_only=True)

    @property
    def bound(self) -> float:
        """The batch's mean bound, in nats (reading it makes a GPU wait)."""
        return float(self.elbo.value.mean())

    @property
    def averaged(self) -> LatentModel:
        """A model with the averaged weights, in evaluation mode.

        Raises:
            ValueError: parts that cannot be copied.
        """
        try:
            return self._average.model
        except RuntimeError as error:
            raise ValueError(
                f"got a model that cannot be copied ({error}); expected parts that copy.deepcopy copies; "
                "look at the model after the loop, which leaves it with the averaged weights"
            ) from error

    def __repr__(self) -> str:
        name = "log p(x|z)" if self.elbo.measure is Measure.NONE else "bound"
        scores = f"loss {self.loss:.5g}, {name} {self.bound:.5g} nats"
        valid = "" if self.validation is None else f", validation {self.validation}"
        return f"Step({self.stage} {self.number}: {scores}{valid})"


@dataclass(frozen=True, eq=False)
class Setup:
    """What the stages of a run share.

    Args:
        model: the whole model.
        config: the settings.
        data: what is trained and validated on.
        device: where.
        optimizer: the user's, or ``None``.
        checkpoint: the file, or ``None``.
        identity: of the run; empty without a file.
        progress: whether a bar is shown, or what is called instead.
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
        """Half precision for the networks, if it is asked for."""
        kind = self.config.autocast
        return nullcontext() if kind is None else torch.autocast(self.device.type, kind)


class Run:
    """One stage of a run.

    Args:
        setup: what it shares with the other stages.
        state: the model and all that training changes.
        name: what is trained.
        stage: the number of the stage.
        earlier: the records of the stages before.
        saved: the checkpoint to continue from, if it is of this stage.
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
        self.held_out = held_out_rows(setup.data, setup.config, state.legs[0], state.model)
        self.half = setup.half
        dims = state.model.spec.size
        self.bar = Bar(state.leg.last, dims, name, setup.progress)
        self.running = False

    @property
    def history(self) -> History:
        """The record so far."""
        state = self.state
        return History(
            self.name,
            tuple(state.legs),
            tuple(state.losses),
            tuple(state.validations),
            self.earlier,
        )

    def next(self) -> Step | None:
        """Make a step; ``None`` when all are made."""
        if self.state.finished:
            return None
        if not self.running:
            self.state.go_on()
            self.bar.start()
            self.running = True
            if self.state.step == self.state.leg.first and len(self.state.legs) > 1:
                self.bar.note(self.state.step, self.state.leg.describe(self.setup.config))
        return self._step()

    def save(self) -> None:
        """Write the checkpoint, where the run has a file for it."""
        setup = self.setup
        if setup.checkpoint is not None:
            save_checkpoint(
                self.state, setup.checkpoint, setup.identity, setup.model, self.stage, self.earlier
            )

    def pause(self) -> None:
        """Leave the model with its best averaged weights, in evaluation mode."""
        if self.running or not self.state.step or self.state.finished:
            self.bar.stop()
            self.state.pause()
            self.running = False

    def _step(self) -> Step:
        state = self.state
        if not state.model.training:
            state.go_on()
        batch = self.batches(state.step)
        loss, elbo, made = self._descend(batch)
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
        if self._saves():
            self.save()
        if self.bar.on_progress is not None:
            self.bar.show(state.step, state.losses[-1], elbo, validation)
        return Step(
            state.step, state.losses[-1], elbo, validation, self.name, _average=state.average
        )

    def _descend(self, batch: Batch) -> tuple[Tensor, ELBO, bool]:
        """The loss and the bound of a batch, and whether a step down its gradient was made."""
        state, seed = self.state, self.setup.config.seed
        values = trusted() if self.batches.checked else nullcontext()
        # The backward pass inside, too: layers that are recomputed there draw again.
        with _one_run:
            with (
                values,
                keyed_step(seed, state.step, self.setup.device),
                self.half,
            ):
                loss, elbo = state.objective(state.model, batch)
            _check_loss(loss, state.objective)
            if state.step == state.leg.first:
                self._check_weights(loss, elbo)
            elbo = elbo.detach()
            return loss.detach(), elbo, state.update(loss)

    def _check_weights(self, loss: Tensor, elbo: ELBO) -> None:
        """Refuse an objective of the user's that would train an encoder by weighted levels."""
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
        state, config = self.state, self.setup.config
        if self.held_out is None or not config.validates(state.leg, state.step):
            return None
        with _one_run, state.average.inside() as model:
            validation = validate(model, self.held_out, state.step, config.validation_timesteps)
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
        "one with a gradient",
        "unfreeze a part, or look for a detach() in the objective",
    )


def _adam(model: LatentModel, config: TrainingConfig) -> torch.optim.Optimizer:
    learned = [p for p in model.parameters() if p.requires_grad]
    require(len(learned) > 0, "a model without parameters to learn", "some", "unfreeze a part")
    return torch.optim.AdamW(
        learned, config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
