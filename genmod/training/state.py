"""All that training changes: weights, their average, the optimizer, the best so far."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from genmod.model import LatentModel
from genmod.training.recipe import Recipe
from genmod.training.validation import Validation
from genmod.training.weights import copy_weights, load_weights


class State:
    """A model in training.

    Args:
        model: the model; its weights are changed in place.
        optimizer: what changes them.
        recipe: the settings. The decay of the moving average of the weights starts low and rises
            to the recipe's, so that the average forgets where training began.
    """

    def __init__(
        self,
        model: LatentModel,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
    ) -> None:
        self.model, self.optimizer, self.recipe = model, optimizer, recipe
        self.step = 0
        self.average = AveragedModel(model, multi_avg_fn=self._move, use_buffers=False)
        self.average.requires_grad_(False)
        self.learned = [p for group in optimizer.param_groups for p in group["params"]]
        self.best: dict[str, Tensor] | None = None
        self.validations: list[Validation] = []

    def _move(self, averaged: Sequence[Tensor], current: Sequence[Tensor], _: Tensor | int) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(averaged), list(current), 1 - decay)

    @property
    def averaged(self) -> LatentModel:
        """The model with averaged weights."""
        module = self.average.module
        assert isinstance(module, LatentModel)
        return module

    def update(self, loss: Tensor) -> bool:
        """One step down the gradient of a loss; ``False``, and nothing changed, if it is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        largest = float("inf") if self.recipe.clip is None else self.recipe.clip
        norm = nn.utils.clip_grad_norm_(self.learned, largest, foreach=True)
        if not bool(torch.isfinite(loss.detach() + norm)):
            return False
        self.optimizer.step()
        self.step += 1
        self.average.update_parameters(self.model)
        return True

    def record(self, validation: Validation) -> None:
        """Keep the averaged weights if no earlier ones did better on held-out data."""
        if validation.nats >= max((v.nats for v in self.validations), default=-float("inf")):
            self.best = copy_weights(self.averaged)
        self.validations.append(validation)

    def finish(self) -> None:
        """Give the model the best averaged weights (the last ones, where nothing was held out)."""
        if self.step:
            load_weights(self.model, self.best or copy_weights(self.averaged))
