"""Everything that training changes: weights, their average, the optimizer, the best so far."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genmod.checks import require
from genmod.model import LatentModel
from genmod.nn.weights import copy_weights, load_weights
from genmod.objectives import Objective
from genmod.training.average import Average
from genmod.training.config import Leg, TrainingConfig
from genmod.training.modes import training_mode
from genmod.training.validation import Validation


class TrainingState:
    """A model in training.

    Args:
        model: the model; its weights are changed in place.
        optimizer: what changes them. The learning rates that it comes with are the peaks; each step
            takes the fraction of them that the settings give. They are put back when the run stops.
        config: the settings.
        objective: what is minimized.
    """

    def __init__(
        self,
        model: LatentModel,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        objective: Objective,
    ) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.objective = objective
        self.step = 0
        self.legs = [Leg(0, config.steps)]
        self.learned: list[nn.Parameter] = [
            p for group in optimizer.param_groups for p in group["params"]
        ]
        _check_optimizer(model, objective, self.learned)
        self.peaks: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.average = Average(model, self.learned, config.ema)
        self.best: dict[str, Tensor] | None = None
        self.validations: list[Validation] = []
        self.losses: list[float] = []
        self._own: dict[str, Tensor] | None = None

    @property
    def leg(self) -> Leg:
        """The leg of the run that is made now."""
        return self.legs[-1]

    @property
    def finished(self) -> bool:
        """Whether all steps were made."""
        return self.step >= self.leg.last

    def update(self, loss: Tensor) -> bool:
        """One step down the gradient of a loss; ``False``, and nothing changed, if it is not finite."""
        fraction = self.config.fraction(self.leg, self.step)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * fraction
        self._forget_gradients()
        loss.backward()
        largest = math.inf if self.config.clip is None else self.config.clip
        norm = nn.utils.clip_grad_norm_(self.learned, largest, foreach=True)
        # Both are read at once, because each read makes a GPU wait.
        value, length = torch.stack([loss.detach(), norm.to(loss)]).tolist()
        if not math.isfinite(value + length):
            self._forget_gradients()
            return False
        self.optimizer.step()
        self.losses.append(value)
        self.step += 1
        self.average.update(self.step)
        return True

    def _forget_gradients(self) -> None:
        for parameter in self.learned:
            parameter.grad = None

    def record(self, validation: Validation) -> None:
        """Keep the averaged weights if no earlier ones did better on held-out data."""
        # A validation that is not a number was never the best, and must not hide later ones.
        earlier = [v.nats for v in self.validations if not math.isnan(v.nats)]
        if validation.nats >= max(earlier, default=-math.inf):
            self.best = self.average.weights()
        self.validations.append(validation)

    def pause(self) -> None:
        """Give the model the best averaged weights (the last ones, where nothing was held out)."""
        self._forget_gradients()
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak
        if self.step and self._own is None:
            self._own = {} if self.finished else copy_weights(self.model)
            load_weights(self.model, self.best or self.average.weights())
        self.model.eval()

    def go_on(self) -> None:
        """Training mode, with the weights that training had reached."""
        if self._own:
            load_weights(self.model, self._own)
        self._own = None
        training_mode(self.model)


def _check_optimizer(model: LatentModel, objective: Objective, learned: list[nn.Parameter]) -> None:
    own = {id(p) for part in (model, objective) for p in part.parameters()}
    foreign = sum(id(parameter) not in own for parameter in learned)
    require(
        foreign == 0,
        f"an optimizer with {foreign} of {len(learned)} parameters that are not the model's",
        "one over the parameters of the model that is trained",
        "build it with model.parameters(); one that was built before a copy or a load of the model "
        "changes the old one",
    )
    require(
        any(parameter.requires_grad for parameter in learned),
        "an optimizer whose parameters are all frozen",
        "some to learn",
        "unfreeze a part",
    )
