"""All that training changes: weights, their average, the optimizer, the best so far."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from genmod.model import LatentModel
from genmod.objectives import Objective
from genmod.training.recipe import Recipe
from genmod.training.validation import Validation
from genmod.training.weights import copy_weights, load_weights, weights


class TrainingState:
    r"""A model in training.

    The average of the weights moves as :math:`\bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n) \theta_n`
    with :math:`d_n = \min(\text{ema}, (n - 1) / (n + 8))`: low at first, so that it forgets where
    training began (:math:`d_1 = 0`).

    Args:
        model: the model; its weights are changed in place.
        optimizer: what changes them. The learning rates it comes with are peaks: the recipe says
            what fraction of them each step takes.
        recipe: the settings.
        objective: what is minimized; some count the batches they have seen.
    """

    def __init__(
        self,
        model: LatentModel,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        objective: Objective,
    ) -> None:
        self.model, self.optimizer, self.recipe = model, optimizer, recipe
        self.objective = objective
        self.step = 0
        self.averaged = copy.deepcopy(model).requires_grad_(False).eval()
        self.learned = [p for group in optimizer.param_groups for p in group["params"]]
        self.best: dict[str, Tensor] | None = None
        self.validations: list[Validation] = []
        for group in optimizer.param_groups:
            # Torch's own schedulers keep the peak under this name: an optimizer that served an
            # earlier run still knows it.
            group.setdefault("initial_lr", group["lr"])
        moving = {id(parameter) for parameter in self.learned}
        pairs = list(zip(model.parameters(), self.averaged.parameters(), strict=True))
        self._current: list[Tensor] = [own for own, _ in pairs if id(own) in moving]
        self._average: list[Tensor] = [mean for own, mean in pairs if id(own) in moving]
        modules = zip(self.averaged.modules(), model.modules(), strict=True)
        self._buffered = [pair for pair in modules if any(True for _ in pair[0].buffers(False))]

    def update(self, loss: Tensor) -> bool:
        """One step down the gradient of a loss; ``False``, and nothing changed, if it is not finite."""
        fraction = self.recipe.fraction(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * fraction
        self._forget_gradients()
        loss.backward()
        largest = math.inf if self.recipe.clip is None else self.recipe.clip
        norm = nn.utils.clip_grad_norm_(self.learned, largest, foreach=True)
        # One look at both, because a look makes a GPU wait.
        if not math.isfinite(float(loss.detach() + norm)):
            self._forget_gradients()
            return False
        self.optimizer.step()
        self.step += 1
        self._move()
        return True

    def _forget_gradients(self) -> None:
        for parameter in self.learned:
            parameter.grad = None

    @torch.no_grad()
    def _move(self) -> None:
        decay = min(self.recipe.ema, (self.step - 1) / (self.step + 8))
        torch._foreach_lerp_(self._average, self._current, 1 - decay)
        for mean, own in self._buffered:
            for kept, buffer in zip(mean.buffers(False), own.buffers(False), strict=True):
                kept.copy_(buffer)

    def record(self, validation: Validation) -> None:
        """Keep the averaged weights if no earlier ones did better on held-out data."""
        # A validation that is not a number was never the best, and must not hide later ones.
        earlier = [v.nats for v in self.validations if not math.isnan(v.nats)]
        if validation.nats >= max(earlier, default=-math.inf):
            self.best = copy_weights(self.averaged)
        self.validations.append(validation)

    def finish(self) -> None:
        """Give the model the best averaged weights (the last ones, where nothing was held out)."""
        if self.step:
            load_weights(self.model, self.best or weights(self.averaged))
