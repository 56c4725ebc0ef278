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
from genmod.training.config import Cycle, TrainingConfig
from genmod.training.validation import Validation


class Average:
    r"""The exponential moving average (EMA) of the weights that an optimizer changes.

    .. math:: \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n) \theta_n, \qquad
        d_n = \min(\text{ema}, (n - 1) / (n + 8))

    The decay is low at first, so that the initial weights have no influence (:math:`d_1 = 0`).
    Running statistics of layers are already averages, so the model's own are used.

    Only the averaged tensors are kept, not a second model. :meth:`inside` puts them into the model
    for a while. :attr:`model` is a copy of the model that holds them, made at the first access.

    Args:
        model: the model in training.
        learned: the parameters to average.
        ema: the largest decay, in [0, 1).
    """

    def __init__(self, model: LatentModel, learned: Sequence[nn.Parameter], ema: float) -> None:
        self._model, self._ema = model, ema
        own = {id(parameter) for parameter in model.parameters()}
        self._current: list[Tensor] = [parameter for parameter in learned if id(parameter) in own]
        self._mean: list[Tensor] = [parameter.detach().clone() for parameter in self._current]
        self._copy: LatentModel | None = None

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after a step, counted from 1."""
        decay = min(self._ema, (step - 1) / (step + 8))
        torch._foreach_lerp_(self._mean, self._current, 1 - decay)
        if self._copy is not None:
            self._refresh(self._copy)

    @contextmanager
    def inside(self) -> Iterator[LatentModel]:
        """A block in which the model holds the averaged weights. Its own are restored afterwards."""
        self._swap()
        try:
            yield self._model
        finally:
            self._swap()

    def _swap(self) -> None:
        for parameter, mean in zip(self._current, self._mean, strict=True):
            parameter.data, mean.data = mean.data, parameter.data

    def weights(self) -> dict[str, Tensor]:
        """A copy of all weights of the model by name: averaged ones where there are, else its own."""
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
        """A copy of the model that holds the averaged weights, also after later steps."""
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

    Modules are copied one by one, the innermost first, because ``deepcopy`` exceeds Python's recursion
    limit at about 100 nested models. Tensors that were computed from others (such as the weight of a
    layer under ``torch.nn.utils.weight_norm``) are copied by value.

    Args:
        model: the model.
        memo: the replacements of objects in the copy, by the ``id`` of the original.
    """
    modules = list(model.modules())
    for module in modules:
        # The recorded constructor arguments never change: they are shared, not copied.
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
    """The tensors in a module's attribute that were computed from others (no leaves for autograd)."""
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
    """Set training mode for modules with parameters that learn, and evaluation mode for frozen ones.

    In training mode, frozen layers would still apply dropout and update their running statistics.
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
        optimizer: the optimizer. Its learning rates are the peaks: each step uses the fraction of
            them that the settings give. They are restored when the run stops.
        config: the settings.
        objective: the objective that is minimized.
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
        self.cycles = [Cycle(0, config.steps)]
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
        nats = [v.nats for v in self.validations if v.step > start and not math.isnan(v.nats)]
        best = max(range(len(nats)), key=lambda i: (nats[i], i), default=0)
        return len(nats) - 1 - best >= self.config.patience

    def update(self, loss: Tensor) -> bool:
        """Make an optimizer step; ``False``, and nothing is changed, if loss or gradient is not finite."""
        self.forget_gradients()
        loss.backward()
        return self.apply(loss.detach())

    def apply(self, loss: Tensor) -> bool:
        """As :meth:`update`, with the gradients that backward passes have added up."""
        fraction = self.config.fraction(self.cycle, self.step)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * fraction
        largest = math.inf if self.config.clip is None else self.config.clip
        norm = clip_gradients(self.learned, largest)
        # Both numbers are read at once, because each read makes a GPU wait.
        value, length = torch.stack([loss, norm.to(loss)]).tolist()
        if not math.isfinite(value + length):
            self.forget_gradients()
            return False
        self.optimizer.step()
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
        earlier = [v.nats for v in self.validations if not math.isnan(v.nats)]
        if validation.nats >= max(earlier, default=-math.inf):
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
        training_mode(self.model)


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> Tensor:
    """Scale all gradients together to a norm of at most ``largest``; their norm before that.

    As ``torch.nn.utils.clip_grad_norm_``, in half its time, because all are on one device.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


def _check_optimizer(model: LatentModel, objective: Objective, learned: list[nn.Parameter]) -> None:
    own = {id(p) for part in (model, objective) for p in part.parameters()}
    foreign = sum(id(parameter) not in own for parameter in learned)
    require(
        foreign == 0,
        f"an optimizer with {foreign} of {len(learned)} parameters that are not the model's",
        "an optimizer over the parameters of the model that is trained",
        "build it with model.parameters(), after the model was copied or loaded",
    )
    require(
        any(parameter.requires_grad for parameter in learned),
        "an optimizer whose parameters are all frozen",
        "at least one that learns",
        "unfreeze a part: parameter.requires_grad_(True)",
    )


def adam(model: LatentModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """Fused AdamW over the parameters of a model that learn."""
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
