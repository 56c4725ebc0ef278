"""The identity of a run: the values of all its settings, and a digest of its data.

A checkpoint holds the identity of its run. A run that continues it must have the same one; the message
of a refusal names each setting that changed.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.config import arguments
from genmod.config.names import name_of
from genmod.model import LatentModel
from genmod.objectives import Objective
from genmod.schedules import Schedule
from genmod.training.augment import Transform
from genmod.training.config import TrainingConfig
from genmod.training.parts import TrainingData, digest

_NOT_COMPARED = (
    "steps",
    "batch_size",
    "checkpoint_every",
    "patience",
    "log_every",
    "skip_nonfinite",
)
"""Settings that may differ when a run continues; the size of a batch is compared in another place."""
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, partial)

Identity = Mapping[str, Any]
"""The settings of a run, as plain data, by their dotted names."""


def identity(
    model: LatentModel,
    objective: Objective,
    optimizer: torch.optim.Optimizer | None,
    config: TrainingConfig,
    data: TrainingData,
    augment: Sequence[Transform] = (),
) -> Identity:
    """The identity of a run.

    Raises:
        ValueError: a setting is a function that was not registered, so that its value is unknown.
    """
    settings = {k: v for k, v in asdict(config).items() if k not in _NOT_COMPARED}
    found: dict[str, Any] = {
        **{name: _value(value) for name, value in settings.items()},
        "batch_size": data.size(config),
        "objective": _value(objective),
        "optimizer": None if optimizer is None else _optimizer(optimizer),
        "data": data.digest(),
        "augment": [_value(transform) for transform in augment],
    }
    for name, module in model.named_modules():
        found[f"model.{name}" if name else "model"] = _module(module)
    return dict(_flat(found))


def changes(saved: Identity, wanted: Identity) -> list[str]:
    """A phrase for each setting that differs, with both values."""
    names = [*wanted, *(name for name in saved if name not in wanted)]
    return [
        f"{name} ({_short(saved.get(name, '-'))} in the file, now {_short(wanted.get(name, '-'))})"
        for name in names
        if name not in saved or name not in wanted or saved[name] != wanted[name]
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 30 else f"{text[:27]}..."


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _module(module: nn.Module) -> dict[str, Any]:
    """The class of a module, its own settings, and the names, shapes and types of its own tensors."""
    found: dict[str, Any] = {"class": _class(type(module))}
    for name, parameter in module.named_parameters(recurse=False):
        found[name] = _shape(parameter)
        if not parameter.requires_grad:
            # A frozen tensor is a setting. With other values the run would continue without an error.
            found[f"{name}.frozen"] = digest(parameter)
    fixed = module._non_persistent_buffers_set
    for name, buffer in module.named_buffers(recurse=False):
        setting = _ours(module) and (isinstance(module, Schedule) or name in fixed)
        found[name] = digest(buffer) if setting else _shape(buffer)
    if _ours(module):
        found |= _attributes(module)
    elif arguments(module) is not None:
        found |= _arguments(module)
    elif _torchs(module):
        kept = {n: v for n, v in vars(module).items() if isinstance(v, bool | int | float | str)}
        found |= {name: value for name, value in kept.items() if _public(name)}
    return found


def _attributes(value: object) -> dict[str, Any]:
    """The public attributes of an object of the package that are settings."""
    named = {n: v for n, v in vars(value).items() if _public(n) and not isinstance(v, nn.Module)}
    return {**{name: _value(v) for name, v in named.items()}, **_arguments(value)}


def _arguments(value: object) -> dict[str, Any]:
    given = arguments(value) or {}
    # A network among the arguments of a module is itself a module of the model, compared on its own.
    kept = {n: v for n, v in given.items() if not isinstance(value, nn.Module) or _is_plain(v)}
    return {name: _value(v) for name, v in kept.items()}


def _is_plain(value: object) -> bool:
    return not isinstance(value, nn.Module) or isinstance(value, Objective)


def _value(value: object) -> Any:
    """A setting as plain data."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if isinstance(value, Tensor):
        return digest(value)
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _value(item) for key, item in value.items()}
    if isinstance(value, _FUNCTIONS):
        return _function(value)
    if isinstance(value, type):
        return _class(value)
    if isinstance(value, nn.Module) and not _ours(value):
        return {name or "self": _module(part) for name, part in value.named_modules()}
    if isinstance(value, Distribution):
        return {"class": _class(type(value)), **{n: _law(v) for n, v in vars(value).items()}}
    own = _attributes(value) if _ours(value) else _arguments(value)
    if isinstance(value, nn.Module):
        own |= {name: _value(part) for name, part in value.named_children()}
    return {"class": _class(type(value)), **own}


def _law(value: object) -> Any:
    """An attribute of a distribution: a learned tensor by its shape, everything else by its value."""
    if isinstance(value, Tensor) and value.requires_grad:
        return _shape(value)
    return _value(value) if isinstance(value, Tensor | Distribution) else _short(value)


def _function(function: Any) -> str:
    """The name of a function, if the name identifies it."""
    registered = name_of(function)
    if registered is not None:
        return registered
    bound = getattr(function, "__self__", None)
    if bound is not None and isinstance(function, types.MethodType):
        return f"{_class(type(bound))}.{function.__name__}"
    home = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", repr(function))
    known = home.split(".")[0] in {"torch", "genmod", "math", "builtins", ""} and "<" not in name
    if not known or isinstance(function, partial):
        raise ValueError(
            f"got the function {home}.{name} among the settings of a run with a checkpoint; expected one "
            "whose value a file can name; pass a function that is defined at the top of a module to "
            "genmod.register, or train without a checkpoint"
        )
    return f"{home}.{name}"


def _optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    groups = [
        {k: _value(v) for k, v in group.items() if k not in {"params", "initial_lr"}}
        for group in optimizer.param_groups
    ]
    return {"class": _class(type(optimizer)), **{str(i): group for i, group in enumerate(groups)}}


def _shape(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _class(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _ours(value: object) -> bool:
    return type(value).__module__.split(".")[0] == "genmod"


def _torchs(value: object) -> bool:
    return type(value).__module__.split(".")[0] == "torch"


def _public(name: str) -> bool:
    return not name.startswith("_") and name != "training"
