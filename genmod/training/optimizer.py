"""How a step changes the weights: learning rate, clipping, AdamW, and the moving average of the weights.

Clipping and AdamW give the same numbers as torch's, sooner. On a small network, torch's optimizer spends
most of a step on gathering its tensors and on hooks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.model import LatentModel
from genmod.nn.modules import copy_weights
from genmod.training.config import Cycle, TrainingConfig


def adam(model: LatentModel, config: TrainingConfig) -> torch.optim.AdamW:
    """Fused AdamW over the parameters of a model that learn."""
    learned = [p for p in model.parameters() if p.requires_grad]
    if len(learned) == 0:
        raise invalid(
            "a model without parameters that learn",
            "at least one",
            "unfreeze a part: parameter.requires_grad_(True)",
        )
    return torch.optim.AdamW(
        learned, config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


def learning_rate(config: TrainingConfig, cycle: Cycle, step: int) -> float:
    """The learning rate of a step, divided by its peak: a linear warm-up times a cosine to 0.

    Args:
        config: its settings; see :class:`~genmod.training.config.TrainingConfig` for the formula.
        cycle: the cycle of the run that the step belongs to.
        step: the number of steps before it.

    >>> learning_rate(TrainingConfig(steps=100, warmup=0), Cycle(0, 100), 50)  # half-way down the cosine
    0.5
    """
    made = step - cycle.first
    ramp = min(1.0, (made + 1) / (config.warmup + 1))
    if not config.decay:
        return ramp
    return ramp * 0.5 * (1 + math.cos(math.pi * made / (cycle.last - cycle.first)))


class FusedStep:
    """``optimizer.step()`` of :func:`adam`, which gathers the tensors of the optimizer only once.

    A step in which a parameter has no gradient is torch's own, and so is the first one, which makes the
    moments. The step counts of all parameters become views of one tensor, so that adding one to them is one
    operation. In torch's step it takes as long as the rest of the update of a small network.

    Args:
        optimizer: from :func:`adam`: one group of parameters of one type, without hooks.
    """

    def __init__(self, optimizer: torch.optim.AdamW) -> None:
        self.optimizer = optimizer
        (group,) = optimizer.param_groups
        self._one_type = len({(p.dtype, p.device) for p in group["params"]}) == 1
        self._first: dict[str, Tensor] | None = None
        self._means: list[Tensor] = []
        self._squares: list[Tensor] = []
        self._counts = torch.empty(0)
        self._steps: list[Tensor] = []

    def __call__(self) -> None:
        """Make a step; inside ``torch.no_grad()``."""
        # Not kept: loading a state makes new groups.
        group = self.optimizer.param_groups[0]
        gradients = [parameter.grad for parameter in group["params"]]
        known = self._one_type and all(each is not None for each in gradients)
        if not known or not self._gather(group["params"]):
            self.optimizer.step()
            return
        self._counts.add_(1)
        torch._fused_adamw_(
            group["params"],
            gradients,
            self._means,
            self._squares,
            [],
            self._steps,
            amsgrad=False,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _gather(self, parameters: Sequence[Tensor]) -> bool:
        """Gather the moments, also anew after a checkpoint was loaded; whether all parameters have them."""
        state = self.optimizer.state
        first = state.get(parameters[0])
        if first is None or first is not self._first:
            every = [state.get(parameter, {}) for parameter in parameters]
            if not all(every):
                return False
            self._means = [each["exp_avg"] for each in every]
            self._squares = [each["exp_avg_sq"] for each in every]
            self._counts = torch.stack([each["step"] for each in every])
            self._steps = list(self._counts)
            for each, count in zip(every, self._steps, strict=True):
                each["step"] = count
            self._first = first
        return True


def norm_of_all(parameters: Sequence[Tensor], norms: Tensor) -> Tensor:
    """The norm of the gradients of all parameters, from the norm of each."""
    norm: Tensor = torch.linalg.vector_norm(norms)
    return norm


def clip_gradients(
    parameters: Sequence[nn.Parameter],
    largest: float,
    total: Callable[[Sequence[Tensor], Tensor], Tensor] = norm_of_all,
) -> Tensor:
    """Scale all gradients together to a norm of at most ``largest``; their norm before that.

    As ``torch.nn.utils.clip_grad_norm_``, in half its time, because all are on one device.

    Args:
        parameters: those without a gradient are left out.
        largest: the largest norm.
        total: the norm of all gradients, from the parameters that have one and the norm of each.
    """
    given = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [own for parameter in given if (own := parameter.grad) is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch.stack(torch._foreach_norm(gradients))
    norm = total(given, norms)
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


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

    def update(self, step: int) -> None:
        """Update the average with the weights after a step, counted from 1; inside ``torch.no_grad()``."""
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
        """Continue from a checkpoint's tensors.

        Raises:
            ValueError: averages of other parameters.
        """
        shapes = {str(index): mean.shape for index, mean in enumerate(self._mean)}
        if {name: tensor.shape for name, tensor in saved.items()} != shapes:
            raise invalid(
                f"a checkpoint with the averages of {len(saved)} tensors",
                f"those of {len(shapes)}, in the shapes of the model's",
                "the file is damaged: move it away to begin anew",
            )
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
