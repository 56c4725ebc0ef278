"""Everything that training changes: weights, their average, the optimizer, the best so far."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import require
from genmod.model import LatentModel
from genmod.nn.modules import copy_weights, load_weights
from genmod.objectives import Objective
from genmod.training.config import Leg, TrainingConfig
from genmod.training.validation import Validation


class Average:
    r"""An exponential moving average of the weights that an optimizer changes.

    .. math:: \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n) \theta_n, \qquad
        d_n = \min(\text{ema}, (n - 1) / (n + 8))

    The decay is low at first, so that the initial weights do not count (:math:`d_1 = 0`).
    Running statistics of layers are averages already: the model's own are used.

    Only the averaged tensors are kept, not a second model. :meth:`inside` puts them into the model
    temporarily; :attr:`model` is a copy of the model that holds them, made when it is first asked for.

    Args:
        model: the model in training.
        learned: the parameters to average.
        ema: the largest decay.
    """

    def __init__(self, model: LatentModel, learned: Sequence[nn.Parameter], ema: float) -> None:
        self._model, self._ema = model, ema
        own = {id(parameter) for parameter in model.parameters()}
        self._current: list[Tensor] = [parameter for parameter in learned if id(parameter) in own]
        self._mean: list[Tensor] = [parameter.detach().clone() for parameter in self._current]
        self._copy: LatentModel | None = None

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        decay = min(self._ema, (step - 1) / (step + 8))
        torch._foreach_lerp_(self._mean, self._current, 1 - decay)
        if self._copy is not None:
            self._refresh(self._copy)

    @contextmanager
    def inside(self) -> Iterator[LatentModel]:
        """The model itself with the averaged weights; its own are put back afterwards."""
        self._swap()
        try:
            yield self._model
        finally:
            self._swap()

    def _swap(self) -> None:
        for parameter, mean in zip(self._current, self._mean, strict=True):
            parameter.data, mean.data = mean.data, parameter.data

    def weights(self) -> dict[str, Tensor]:
        """A copy of the model's weights by name, with the averaged ones among them."""
        with self.inside() as model:
            return copy_weights(model)

    def tensors(self) -> dict[str, Tensor]:
        """The averaged tensors by number, for a checkpoint."""
        return {str(index): mean for index, mean in enumerate(self._mean)}

    @torch.no_grad()
    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from a checkpoint's tensors."""
        for index, mean in enumerate(self._mean):
            mean.copy_(saved[str(index)])

    @property
    def model(self) -> LatentModel:
        """A model of the same parts that holds the averaged weights, now and after later steps."""
        if self._copy is None:
            memo: dict[int, object] = {}
            for parameter, mean in zip(self._current, self._mean, strict=True):
                held = nn.Parameter(mean, requires_grad=False)
                memo[id(parameter)] = held
            self._copy = copied(self._model, memo).requires_grad_(False).eval()
        self._refresh(self._copy)
        return self._copy

    @torch.no_grad()
    def _refresh(self, copy: LatentModel) -> None:
        for kept, buffer in zip(copy.buffers(), self._model.buffers(), strict=True):
            kept.copy_(buffer)


def copied(model: LatentModel, memo: dict[int, object]) -> LatentModel:
    """A deep copy of a model, also where ``copy.deepcopy`` fails.

    Module by module, the innermost first, because Python's recursion ends at about 100 nested models.
    Tensors that were computed from others (the weight of a layer with the older norms, the parameter of
    a distribution) are copied by value.

    Args:
        model: the model.
        memo: what objects become in the copy, by the ``id`` of the original.
    """
    modules = list(model.modules())
    for module in modules:
        # What a module was built from is a record: it is shared, not copied.
        memo.setdefault(id(kept := vars(module).get("_arguments")), kept)
    for module in reversed(modules):
        for value in vars(module).values():
            for tensor in _computed(value):
                memo.setdefault(id(tensor), tensor.detach().clone())
        memo[id(module)] = copy.deepcopy(module, memo)
    found = memo[id(model)]
    assert isinstance(found, LatentModel)
    return found


def _computed(value: object) -> Iterator[Tensor]:
    """The tensors in a module's attribute that are no leaves of the graph of gradients."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _computed(item)
    elif isinstance(value, Distribution | dict):
        for item in (value if isinstance(value, dict) else vars(value)).values():
            yield from _computed(item)


def training_mode(model: nn.Module) -> None:
    """Training mode for all that learns; a frozen part (no parameter of it learns) stays as it is used.

    Frozen layers in training mode would still drop out and move their running statistics.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


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
