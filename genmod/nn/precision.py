"""Half precision: networks compute in the type of their weights, and all laws in float32.

``model.bfloat16()`` halves the memory of the weights. Layers then get inputs of their own type (autocast).
Their outputs become float32 (:func:`genmod.nn.modules.outputs`), because rates in half precision would be
wrong. A noised state enters its first layer in float32 (:func:`genmod.nn.modules.in_full`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import torch
from torch import nn

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

HALF = (torch.bfloat16, torch.float16)
"""The half-precision types."""


@contextmanager
def half_precision(kind: torch.dtype | None, device: torch.device | None = None) -> Iterator[None]:
    """A block in which networks with weights of a half-precision type compute in that type.

    Layers get inputs of their own type (autocast). Outputs become float32 (:func:`outputs`), and so do the
    laws. Weights of another type, or ``None``: the block changes nothing.
    """
    if kind not in HALF:
        yield
        return
    with torch.autocast("cpu" if device is None else device.type, kind):
        yield


Method: TypeAlias = Callable[Concatenate[Any, Arguments], Result]


def _running(
    method: Method[Arguments, Result], type_of: Callable[[Any], torch.dtype | None]
) -> Method[Arguments, Result]:
    @wraps(method)
    def call(self: Any, /, *given: Arguments.args, **named: Arguments.kwargs) -> Result:
        kind = type_of(self)
        if kind not in HALF:
            return method(self, *given, **named)
        with half_precision(kind, next(chain(self.parameters(), self.buffers())).device):
            return method(self, *given, **named)

    return call


def in_own_precision(method: Method[Arguments, Result]) -> Method[Arguments, Result]:
    """A method of a model that runs in :func:`half_precision`, if its parameters are in it."""
    return _running(method, lambda model: model.parameter_dtype)


def in_first_precision(method: Method[Arguments, Result]) -> Method[Arguments, Result]:
    """The same for a part of a model, by its first parameter."""
    return _running(method, _first_type)


def _first_type(part: nn.Module) -> torch.dtype | None:
    return next((each.dtype for each in part.parameters() if each.is_floating_point()), None)
