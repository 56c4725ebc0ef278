"""The identity of a run: the values of all its settings, and a digest of its data.

A checkpoint and the folder of a comparison hold it. A refusal names each setting that changed.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from functools import cached_property, partial
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.config import name_of
from genmod.config.settings import arguments
from genmod.model import LatentModel
from genmod.objectives import Objective
from genmod.schedules import Schedule
from genmod.training.augment import Transform
from genmod.training.config import TrainingConfig
from genmod.training.data import TrainingData, digest

_NOT_COMPARED = (
    "steps", "batch_size", "checkpoint_every", "patience", "log_every", "skip_nonfinite", "shard",
)  # fmt: skip
"""Settings that may differ when a run continues; the size of a batch is compared in another place."""
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, partial)
_WRITTEN = (torch.dtype, torch.device, PurePath, bytes, complex, range)
"""Types whose text is their value."""
_PLAIN = (bool, int, float, str, Tensor)
_SHOWN = 6
"""Changed settings that a message lists."""

Identity = Mapping[str, Any]
"""The settings of a run, as plain data, by their dotted names."""


def identity(
    model: LatentModel,
    objectives: Objective | Sequence[Objective],
    optimizer: torch.optim.Optimizer | None,
    config: TrainingConfig,
    data: TrainingData,
    augment: Sequence[Transform] = (),
) -> Identity:
    """The identity of a run; ``objectives`` are those of its stages.

    Raises:
        ValueError: a setting is a function that was not registered, so that its value is unknown.
    """
    objective = objectives[-1] if isinstance(objectives, Sequence) else objectives
    before = objectives[:-1] if isinstance(objectives, Sequence) else ()
    settings = {k: v for k, v in asdict(config).items() if k not in _NOT_COMPARED}
    found: dict[str, Any] = {
        **{name: setting(value) for name, value in settings.items()},
        "batch_size": data.size(config),
        "objective": setting(objective),
        **{f"objective of stage {i}": setting(each) for i, each in enumerate(before)},
        "optimizer": None if optimizer is None else _optimizer(optimizer),
        "data": data.digest(),
        "augment": [setting(transform) for transform in augment],
        **module_settings(model),
    }
    return dict(_flat(found))


def module_settings(model: nn.Module) -> dict[str, Any]:
    """The class, settings and tensors of each module in a model, by its dotted name.

    Of a tensor that learns, the shape and type count. Of a frozen one, and of a buffer of the package that
    holds a setting, the values count too.
    """
    return {
        f"model.{name}" if name else "model": _module(module)
        for name, module in model.named_modules()
    }


def changes(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """A phrase for each setting that differs, with both values.

    >>> changes({"steps": 10, "schedule": {"clean": 2.0}}, {"steps": 10, "schedule": {"clean": 3.0}})
    ['schedule.clean (2.0 in the file, now 3.0)']
    """
    there, here = dict(_flat(saved)), dict(_flat(wanted))
    return [
        f"{name} ({_short(there.get(name, '-'))} in the file, now {_short(here.get(name, '-'))})"
        for name in dict.fromkeys([*here, *there])
        if name not in there or name not in here or not _equal(there[name], here[name])
    ]


def refuse_changes(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], what: str, advice: str
) -> None:
    """Require the settings of a run to be those that a file holds.

    Args:
        saved: the settings in the file.
        wanted: the settings of the run that continues.
        what: what messages call the file.
        advice: what to do.

    Raises:
        ValueError: the message names each setting that changed, with both values.
    """
    # Through JSON, as the file was: tuples are lists there.
    changed = changes(saved, json.loads(json.dumps(wanted)))
    more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    if changed:
        raise invalid(
            f"{what} made with other settings: {', '.join(changed[:_SHOWN])}{more}",
            "the settings and data that it was made with",
            advice,
        )


def _equal(one: object, other: object) -> bool:
    """Whether two settings are equal: NaN equals NaN, and 1 is not ``True``."""
    both_nan = isinstance(one, float) and isinstance(other, float) and one != one and other != other
    return both_nan or (one == other and isinstance(one, bool) == isinstance(other, bool))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 30 else f"{text[:27]}..."


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name; a list of mappings by the places in it."""
    for name, value in found.items():
        if isinstance(value, list) and any(isinstance(each, dict) for each in value):
            value = {str(place): each for place, each in enumerate(value)}
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# ---------------------------------------------------------------------- modules


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
        is_setting = _from(module, "genmod") and (isinstance(module, Schedule) or name in fixed)
        found[name] = digest(buffer) if is_setting else _shape(buffer)
    if _from(module, "genmod"):
        found |= _attributes(module)
    elif arguments(module) is not None:
        found |= _arguments(module)
    elif _from(module, "torch"):
        found |= _plain_attributes(module)
    return found


def _attributes(value: object) -> dict[str, Any]:
    """The public attributes of an object of the package that are settings."""
    named = {n: v for n, v in vars(value).items() if _public(n) and not isinstance(v, nn.Module)}
    # A cached property is an attribute only after its first use.
    for name in [n for n in named if isinstance(getattr(type(value), n, None), cached_property)]:
        del named[name]
    return {**{name: setting(v) for name, v in named.items()}, **_arguments(value)}


def _plain_attributes(value: object) -> dict[str, Any]:
    """The numbers, words and tensors among the public attributes of any object."""
    named = vars(value).items() if getattr(value, "__dict__", None) is not None else ()
    return {n: _held(v) for n, v in named if _public(n) and isinstance(v, _PLAIN)}


def _arguments(value: object) -> dict[str, Any]:
    given = arguments(value) or {}
    if isinstance(value, nn.Module):
        given = {name: each for name, each in given.items() if not _is_part(each, value)}
    return {name: setting(each) for name, each in given.items()}


def _is_part(value: object, module: nn.Module) -> bool:
    """Whether an argument of a module is a network, or a tensor that it trains: both are compared apart."""
    if isinstance(value, Tensor):
        return any(value.data_ptr() == own.data_ptr() for own in module.parameters(recurse=False))
    return isinstance(value, nn.Module) and not isinstance(value, Objective)


# ---------------------------------------------------------------------- values


def setting(value: object) -> Any:
    """The value of a setting as plain data, which a file can hold and compare.

    Tensors go by a digest of their values, functions by their names, objects by their class and settings.

    Raises:
        ValueError: a function whose name does not identify it.

    >>> from genmod.schedules import LinearLogSNR
    >>> setting(LinearLogSNR(2.0, -6.0)) == setting(LinearLogSNR(2.0, -5.0))
    False
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, _WRITTEN):
        return str(value)
    if isinstance(value, Tensor):
        return digest(value)
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, set | frozenset):
        return sorted((setting(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [setting(item) for item in value]
    if isinstance(value, dict):
        return {str(key): setting(item) for key, item in value.items()}
    if isinstance(value, _FUNCTIONS):
        return _function(value)
    if isinstance(value, type):
        return _class(value)
    if isinstance(value, nn.Module) and not _from(value, "genmod"):
        return {name or "self": _module(part) for name, part in value.named_modules()}
    if isinstance(value, Distribution):
        return {"class": _class(type(value)), **{n: _held(v) for n, v in vars(value).items()}}
    if _from(value, "genmod"):
        own = _attributes(value)
    else:
        own = {**_plain_attributes(value), **_arguments(value)}
    if isinstance(value, nn.Module):
        own |= {name: setting(part) for name, part in value.named_children()}
    return {"class": _class(type(value)), **own}


def _held(value: object) -> Any:
    """An attribute of a foreign object: a learned tensor by its shape, others by value or by text."""
    if isinstance(value, Tensor) and value.requires_grad:
        return _shape(value)
    known = isinstance(value, (*_PLAIN, Distribution, list))
    return setting(value) if known else _short(value)


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
        raise invalid(
            f"the function {home}.{name} among the settings of a run with a checkpoint",
            "one whose value a file can name",
            "pass a function that is defined at the top of a module to genmod.register, or train "
            "without a checkpoint",
        )
    return f"{home}.{name}"


def _optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    groups = [
        {k: setting(v) for k, v in group.items() if k not in {"params", "initial_lr"}}
        for group in optimizer.param_groups
    ]
    return {"class": _class(type(optimizer)), **{str(i): group for i, group in enumerate(groups)}}


def _shape(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _class(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _from(value: object, package: str) -> bool:
    """Whether the class of an object is a package's."""
    return type(value).__module__.split(".")[0] == package


def _public(name: str) -> bool:
    return not name.startswith("_") and name != "training"
