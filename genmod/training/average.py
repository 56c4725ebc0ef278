"""The moving average of a model's weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.model import LatentModel
from genmod.nn.weights import copy_weights


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
