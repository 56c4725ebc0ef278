"""Settings to plain data, and back."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.config.laws import is_torch_law, law_class, law_parameters
from genmod.config.registry import name_of, named
from genmod.config.settings import arguments

Plain: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None
"""What JSON can hold."""

_CLASS, _FUNCTION, _ENUM = "class", "function", "enum"
_TENSOR, _DTYPE, _LAW = "tensor", "dtype", "law"


def to_plain(value: object) -> Plain:
    """Settings as plain data: a class by its name and arguments, a function by its name.

    Args:
        value: a number, a string, a tensor, an enum, a sequence or mapping of such; an object with
            settings (a dataclass, or a :class:`Settings`); a class or function that was registered.

    Raises:
        ValueError: a class or function that may not be named: :func:`genmod.register` allows it.

    >>> from genmod.nn import MLPs
    >>> to_plain(MLPs(width=64))
    {'class': 'MLPs', 'width': 64, 'depth': None, 'dropout': 0.0}
    """
    if isinstance(value, str):
        return str(value)  # a member of a StrEnum as the string that it is
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return {_ENUM: _name(type(value)), "value": to_plain(value.value)}
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, torch.dtype):
        return {_DTYPE: str(value).removeprefix("torch.")}
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return {_TENSOR: value.detach().cpu().tolist(), _DTYPE: dtype}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple) and type(value) in (list, tuple, torch.Size):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, Distribution) and is_torch_law(value):
        held = {name: to_plain(each) for name, each in law_parameters(value).items()}
        return {_LAW: type(value).__name__, **held}
    if isinstance(value, type) or arguments(value) is None:
        return {_FUNCTION: _name(value)}
    settings = arguments(value) or {}
    return {_CLASS: _name(type(value)), **{k: to_plain(v) for k, v in settings.items()}}


def from_plain(data: Plain) -> object:
    """What :func:`to_plain` wrote, built again; lists come back as tuples.

    Raises:
        ValueError: a name that is neither the package's nor registered.

    >>> from genmod.nn import MLPs
    >>> from_plain(to_plain(MLPs(width=64)))
    MLPs(width=64, depth=None, dropout=0.0)
    """
    if isinstance(data, list):
        return tuple(from_plain(item) for item in data)
    if not isinstance(data, dict):
        return data
    if _TENSOR in data:
        return torch.tensor(data[_TENSOR], dtype=_dtype(data[_DTYPE]))
    if _DTYPE in data:
        return _dtype(data[_DTYPE])
    if _FUNCTION in data:
        return named(str(data[_FUNCTION]))
    if _LAW in data:
        held = {name: from_plain(each) for name, each in data.items() if name != _LAW}
        build: Callable[..., Distribution] = law_class(str(data[_LAW]))
        return build(**held)
    kind = data.get(_ENUM) or data.get(_CLASS)
    if kind is None:
        return {key: from_plain(item) for key, item in data.items()}
    built = named(str(kind))
    assert callable(built)
    if _ENUM in data:
        return built(data["value"])
    return built(**{key: from_plain(item) for key, item in data.items() if key != _CLASS})


def _dtype(name: Plain) -> torch.dtype:
    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(
            f"got settings with dtype {name!r}; expected a type of torch; the file was written by "
            "something else, or is damaged"
        )
    return found


def _name(value: object) -> str:
    found = name_of(value)
    if found is None:
        what = getattr(value, "__qualname__", None) or repr(value)
        raise ValueError(
            f"got {what} among the settings, which no file can name; expected a public class of "
            "genmod, or a class or function that was registered; call genmod.register on it (a "
            "lambda needs to become a function with a name)"
        )
    return found
