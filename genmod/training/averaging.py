"""The moving average of the weights of a model in training."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.model import LatentModel
from genmod.nn.modules import copy_weights


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
