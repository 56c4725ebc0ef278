"""Everything that training changes: weights, their average, the optimizer, the best so far.

A step whose loss or gradient is not finite changes none of it: the run stops, or skips the batch.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from genmod.checks import instance, invalid
from genmod.elbo import ELBO
from genmod.model import LatentModel
from genmod.nn.modules import copy_weights, load_weights
from genmod.objectives import Objective
from genmod.objectives.base import broken_terms
from genmod.training.config import Cycle, TrainingConfig
from genmod.training.optimizer import Average, FusedStep, adam, clip_gradients, learning_rate
from genmod.training.parallel import Parallelism
from genmod.training.validation import Validation


class TrainingState:
    """A model in training.

    Args:
        parallel: how the processes hold the model; the weights of this process are changed in place.
        optimizer: the user's own; ``None``: fused AdamW. Its learning rates are the peaks: each step uses
            the fraction of them that the settings give. They are restored when the run stops.
        config: the settings.
    """

    def __init__(
        self,
        parallel: Parallelism,
        optimizer: torch.optim.Optimizer | None,
        config: TrainingConfig,
    ) -> None:
        self.parallel, self.config = parallel, config
        self.model, self.objective = parallel.trained, parallel.objective
        self.optimizer: torch.optim.Optimizer
        self._make_step: Callable[[], object]
        if optimizer is None:
            own = adam(self.model, config)
            self.optimizer, self._make_step = own, FusedStep(own)
        else:
            _check_optimizer_kind(optimizer)
            # Looked up at each step: a scheduler replaces `optimizer.step` when it is made.
            self.optimizer, self._make_step = optimizer, partial(_users_step, optimizer)
        self.step = 0
        self.cycles = [Cycle(0, config.steps)]
        self.learned: list[nn.Parameter] = [
            p for group in self.optimizer.param_groups for p in group["params"]
        ]
        _check_optimizer(self.model, self.objective, self.learned)
        self.peaks: list[float] = [group["lr"] for group in self.optimizer.param_groups]
        self.average = Average(self.model, self.learned, config.ema)
        self.best: dict[str, Tensor] | None = None
        self.validations: list[Validation] = []
        self.losses: list[float] = []
        self.skipped: list[int] = []
        self._own: dict[str, Tensor] | None = None

    @property
    def cycle(self) -> Cycle:
        """The present cycle of the learning rate."""
        return self.cycles[-1]

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the run has stopped early."""
        return self.step >= self.cycle.last or self.stopped

    @property
    def stopped(self) -> bool:
        """Whether ``patience`` validations in a row were no better than one before them.

        Validations during the warm-up of the objective do not count: the bound often falls at its end,
        when the rates get their full weight.
        """
        if self.config.patience is None:
            return False
        start = max(self.cycle.first, self.objective.warmup_steps)
        scores = [v.score for v in self.validations if v.step > start and not math.isnan(v.score)]
        best = max(range(len(scores)), key=lambda i: (scores[i], i), default=0)
        return len(scores) - 1 - best >= self.config.patience

    @torch.no_grad()
    def apply(self, loss: Tensor) -> bool:
        """Make an optimizer step with the gradients that backward passes have added up.

        ``False``, and nothing is changed, if loss or gradient is not finite.
        """
        fraction = learning_rate(self.config, self.cycle, self.step)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * fraction
        largest = math.inf if self.config.clip is None else self.config.clip
        norm = clip_gradients(self.learned, largest, self.parallel.norm)
        # Both numbers are read at once, because each read makes a GPU wait.
        value, length = torch.stack([loss, norm.to(loss)]).tolist()
        if not math.isfinite(value + length):
            self.forget_gradients()
            return False
        self._make_step()
        self.losses.append(value)
        self.step += 1
        self.average.update(self.step)
        return True

    def forget_gradients(self) -> None:
        """Set all gradients to none."""
        for parameter in self.learned:
            parameter.grad = None

    def record(self, validation: Validation) -> None:
        """Record a validation, and keep the averaged weights if none before was better."""
        # NaN is left out: as a maximum it would hide all later validations.
        earlier = [v.score for v in self.validations if not math.isnan(v.score)]
        if validation.score >= max(earlier, default=-math.inf):
            self.best = self.average.weights()
        self.validations.append(validation)

    def pause(self) -> None:
        """Give the model the best averaged weights (the last ones, without validation data)."""
        self.forget_gradients()
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak
        if self.step and self._own is None:
            self._own = {} if self.finished else copy_weights(self.model)
            load_weights(self.model, self.best or self.average.weights())
        self.model.eval()

    def resume(self) -> None:
        """Set training mode, with the weights that training had reached."""
        if self._own:
            load_weights(self.model, self._own)
        self._own = None
        self.parallel.train()


@torch.enable_grad()
def _users_step(optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()


def _check_optimizer_kind(optimizer: object) -> None:
    """Require an optimizer that makes a step from one gradient."""
    advice = "build it over the parameters: torch.optim.SGD(model.parameters(), lr=0.01)"
    kind = type(instance(optimizer, torch.optim.Optimizer, "optimizer", advice))
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise invalid(
            f"an optimizer {kind.__name__}, which computes the loss several times a step",
            "one that makes a step from one gradient",
            "pass for example torch.optim.SGD(model.parameters(), lr=0.01)",
        )


def _check_optimizer(model: LatentModel, objective: Objective, learned: list[nn.Parameter]) -> None:
    own = {id(p) for part in (model, objective) for p in part.parameters()}
    foreign = sum(id(parameter) not in own for parameter in learned)
    if foreign != 0:
        raise invalid(
            f"an optimizer with {foreign} of {len(learned)} parameters that are not the model's",
            "an optimizer over the parameters of the model that is trained",
            "build it for this model, after the model was copied or loaded",
        )
    if not any(parameter.requires_grad for parameter in learned):
        raise invalid(
            "an optimizer whose parameters are all frozen",
            "at least one that learns",
            "unfreeze a part: parameter.requires_grad_(True)",
        )
    changed = {id(parameter) for parameter in learned}
    left = [p for p in objective.parameters() if p.requires_grad and id(p) not in changed]
    if left:
        raise invalid(
            f"{len(left)} parameters of {type(objective).__name__} that the optimizer leaves out",
            "an optimizer that changes the parameters of the objective, too",
            "pass torch.optim.AdamW([*model.parameters(), *objective.parameters()]) or Muon(model, "
            "objective); a state that is not learned by gradients goes into buffers",
        )


# ---------------------------------------------------------------------- losses that are not finite


class NonFiniteLoss(ArithmeticError):
    """A loss or gradient that is NaN or infinite: the run stops before this step."""


class SpoiledBatches:
    """What a run does about a batch whose loss or gradient is not finite.

    A skipped batch changes nothing: not the weights, their average, the optimizer, the objective, nor the
    running statistics of layers. The step counts, so that the next one takes other rows and other noise.

    Args:
        state: the model in training.
        most: the most batches in a row that are skipped; 0: none.
    """

    def __init__(self, state: TrainingState, most: int) -> None:
        self.state, self.most = state, most
        self._kept: list[tuple[Tensor, Tensor]] = []

    def keep(self) -> None:
        """Before a forward pass: keep the buffers, which layers with running statistics change in it."""
        if self.most:
            parts = (self.state.model, self.state.objective)
            self._kept = [(b, b.detach().clone()) for part in parts for b in part.buffers()]

    @torch.no_grad()
    def skip(self, loss: float, elbo: ELBO) -> str:
        """Skip a batch, and return a line about it.

        Args:
            loss: the loss of the batch.
            elbo: its bound, for the names of the terms that broke.

        Raises:
            NonFiniteLoss: batches in a row that are more than the run may skip.
        """
        state, step = self.state, self.state.step + 1
        for buffer, value in self._kept:
            buffer.copy_(value)
        row = self._in_a_row() + 1
        broken = broken_terms(elbo)
        where = f"in {', '.join(broken)}" if broken else "its gradient is not finite"
        if row > self.most:
            skipped = f", after {self.most} skipped in a row" if self.most else ""
            raise NonFiniteLoss(
                f"got a loss of {loss:g} at step {step} ({where}){skipped}; expected a finite one; the "
                "model holds the last good weights: lower the learning rate, clip gradients harder, look "
                "at the data of that batch, or pass skip_nonfinite=n to skip up to n such batches in a row"
            )
        state.losses.append(loss)
        state.step = step
        state.skipped.append(step)
        return f"step {step}: skipped a batch with a loss of {loss:g} ({where}), {row} in a row"

    def _in_a_row(self) -> int:
        """How many of the last batches were skipped."""
        row, step = 0, self.state.step
        for number in reversed(self.state.skipped):
            if number != step - row:
                break
            row += 1
        return row
