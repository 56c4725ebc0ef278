"""Settings to plain data, and back."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.config import (
    classes_in,
    dtype_named,
    item_of,
    law_class,
    law_parameters,
    members_of,
    name_of,
    named,
    torch_law,
)
from genmod.config.settings import arguments
from genmod.config.text import read_call

Plain: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None
"""What JSON can hold."""

_CLASS, _FUNCTION, _ENUM, _SAME = "class", "function", "enum", "same as"
_TENSOR, _DTYPE, _LAW = "tensor", "dtype", "law"
_SMALL = 16
"""Numbers of a tensor that is written beside its setting; larger ones go to ``tensors``, if given."""
_BROKEN = (
    TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError, RuntimeError,
    MemoryError,
)  # fmt: skip
"""What a constructor raises for arguments of a kind that it does not expect."""


def to_plain(value: object, tensors: dict[str, Tensor] | None = None) -> Plain:
    """Settings as plain data: a class by its name and arguments, a function by its name.

    Args:
        value: a number, a string, a tensor, an enum, a sequence or mapping of such; an object with
            settings (a dataclass, or a :class:`Settings`); a class or function that was registered.
        tensors: takes the larger tensors among the settings, by a name that stands in their place.

    Raises:
        ValueError: a class or function that may not be named: :func:`genmod.register` allows it.

    >>> from genmod.nn import MLPs
    >>> to_plain(MLPs(width=64))
    {'class': 'MLPs', 'width': 64, 'depth': None, 'dropout': 0.0}
    """
    return _Writer(tensors).plain(value, "")


def from_plain(
    data: Plain, tensors: Mapping[str, Tensor] | None = None, wanted: object = None
) -> object:
    """What :func:`to_plain` wrote, built again; lists come back as tuples.

    Settings may also be written by hand. Where a class is expected, its name is enough:
    ``schedule: cosine`` is ``schedule: {class: Cosine}``, and ``schedule: Cosine(0.008)`` sets an argument.

    Args:
        data: plain data.
        tensors: the larger tensors.
        wanted: the annotation of the argument that the value is for: classes that a name may stand for.

    Raises:
        ValueError: a name that is neither the package's nor registered; a setting that its class does not
            have, or cannot be built with.

    >>> from genmod.nn import MLPs
    >>> from_plain(to_plain(MLPs(width=64)))
    MLPs(width=64, depth=None, dropout=0.0)
    """
    return _Reader(tensors or {}).read(data, "", wanted)


def read_arguments(
    function: Callable[..., object], given: Mapping[str, Plain], leave_out: Iterable[str] = ()
) -> dict[str, object]:
    """The arguments of a function or class, from plain data by name: what is given, and nothing else.

    Args:
        function: what will be called.
        given: its arguments as plain data.
        leave_out: arguments that plain data cannot give.

    Raises:
        ValueError: an argument that the function does not have; it suggests the nearest.
    """
    return _Reader({}).arguments(function, given, "", leave_out)


class _Writer:
    """Writes settings. A module that stands in two places is written once."""

    def __init__(self, tensors: dict[str, Tensor] | None) -> None:
        self.tensors = tensors
        self.places: dict[int, str] = {}

    def plain(self, value: object, place: str) -> Plain:
        if isinstance(value, str):
            return str(value)  # a member of a StrEnum as the string that it is
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return {_ENUM: _name(type(value)), "value": self.plain(value.value, place)}
        if isinstance(value, int | float):
            return int(value) if isinstance(value, int) else float(value)
        if isinstance(value, torch.dtype):
            return {_DTYPE: str(value).removeprefix("torch.")}
        if isinstance(value, Tensor):
            return self._tensor(value, place)
        if isinstance(value, PurePath):
            return str(value)
        if isinstance(value, list | tuple) and type(value) in (list, tuple, torch.Size):
            return [self.plain(item, _join(place, i)) for i, item in enumerate(value)]
        if isinstance(value, dict):
            return self._all({str(key): item for key, item in value.items()}, place)
        if isinstance(value, Distribution) and torch_law(type(value).__name__) is type(value):
            return {_LAW: type(value).__name__, **self._all(law_parameters(value), place)}
        if isinstance(value, type) or arguments(value) is None:
            return {_FUNCTION: _name(value)}
        if isinstance(value, nn.Module):
            if id(value) in self.places:
                return {_SAME: self.places[id(value)]}
            self.places[id(value)] = place
        return {_CLASS: _name(type(value)), **self._all(arguments(value) or {}, place)}

    def _all(self, values: Mapping[str, object], place: str) -> dict[str, Plain]:
        return {name: self.plain(each, _join(place, name)) for name, each in values.items()}

    def _tensor(self, value: Tensor, place: str) -> Plain:
        if self.tensors is not None and value.numel() > _SMALL:
            self.tensors[place] = value.detach().cpu().clone()
            return {_TENSOR: place}
        dtype = str(value.dtype).removeprefix("torch.")
        return {_TENSOR: value.detach().cpu().tolist(), _DTYPE: dtype}


class _Reader:
    """Builds settings. It keeps what it has built at each place, for a module that stands in two."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.built: dict[str, object] = {}

    def read(self, data: Plain, place: str, wanted: object = None) -> object:
        if isinstance(data, list):
            inner = item_of(wanted)
            return tuple(self.read(item, _join(place, i), inner) for i, item in enumerate(data))
        if isinstance(data, str):
            return self._text(data, place, wanted)
        if not isinstance(data, dict):
            return data
        if _CLASS in data:  # First: an argument may have the name of another mark.
            built = named(str(data[_CLASS]), classes_in(wanted))
            given = {key: item for key, item in data.items() if key != _CLASS}
            return self._called(built, given, place)
        if _SAME in data:
            found = self.built.get(str(data[_SAME]))
            if found is None:
                raise invalid(
                    f"the same module at {place} as at {data[_SAME]!r}, where none was built",
                    "a place that comes earlier in the settings",
                    "the file is damaged: write it again",
                )
            return found
        if _TENSOR in data:
            return self._tensor(data)
        if _DTYPE in data:
            return dtype_named(data[_DTYPE])
        if _FUNCTION in data:
            return named(str(data[_FUNCTION]))
        if _ENUM in data:
            return self._called(named(str(data[_ENUM]), (Enum,)), {"value": data["value"]}, place)
        if _LAW in data:
            law = law_class(str(data[_LAW]))
            return self._called(law, {n: v for n, v in data.items() if n != _LAW}, place)
        return {key: self.read(item, _join(place, key)) for key, item in data.items()}

    def _text(self, text: str, place: str, wanted: object) -> object:
        """A string; the name of a class, where one is expected and no string is."""
        if wanted is torch.dtype or torch.dtype in typing.get_args(wanted):
            return dtype_named(text)
        kinds = classes_in(wanted)
        if not kinds or str in members_of(wanted):
            return text
        name, values, settings = read_call(text)
        built = named(name, kinds)
        order = list(_parameters(built))
        if len(values) > len(order):
            raise invalid(
                f"{text!r} with {len(values)} values",
                f"at most {len(order)}: {', '.join(order)}",
                "leave some out, or pass them by name",
            )
        return self._called(built, {**dict(zip(order, values, strict=False)), **settings}, place)

    def _called(self, built: object, given: Mapping[str, Plain], place: str) -> object:
        """An object of a class, from its arguments by name."""
        assert callable(built)
        name = getattr(built, "__name__", str(built))
        values = self.arguments(built, given, place)
        try:
            found: object = built(**values)
        except _BROKEN as error:
            reason = " ".join(str(error).split())
            if reason.startswith("got ") and "; expected " in reason:
                raise
            raise invalid(
                f"settings of {name} that it cannot be built with ({reason})",
                f"what genmod wrote, or what help(genmod.{name}) lists",
                "correct the settings",
            ) from error
        self.built[place] = found
        return found

    def arguments(
        self,
        built: Callable[..., object],
        given: Mapping[str, Plain],
        place: str,
        leave_out: Iterable[str] = (),
    ) -> dict[str, object]:
        """The arguments of a call by name."""
        known = {k: v for k, v in _parameters(built).items() if k not in set(leave_out)}
        for key in given:
            near = difflib.get_close_matches(key, known, 1)
            if key not in known:
                raise invalid(
                    f"the setting {key!r} of {getattr(built, '__name__', built)}",
                    f"one of {', '.join(known)}",
                    f"did you mean {near[0]!r}?" if near else "leave it out",
                )
        return {k: self.read(v, _join(place, k), known[k]) for k, v in given.items()}

    def _tensor(self, data: Mapping[str, Any]) -> Tensor:
        held = data[_TENSOR]
        try:
            if isinstance(held, str):
                return self.tensors[held]
            return torch.tensor(held, dtype=dtype_named(data.get(_DTYPE)))
        except (TypeError, ValueError, RuntimeError, LookupError) as error:
            raise invalid(
                f"settings with a tensor that cannot be read ({error!r})",
                "numbers and their type",
                "the file was written by something else, or is damaged",
            ) from error


def _parameters(built: object) -> dict[str, object]:
    """The names of a constructor's arguments, and their annotations as far as they are known."""
    assert callable(built)
    init = getattr(built, "__init__", built) if isinstance(built, type) else built
    try:
        hints = typing.get_type_hints(init)
    except (NameError, TypeError):
        hints = {}
    if isinstance(built, type) and issubclass(built, Enum):
        return {"value": None}
    return {name: hints.get(name) for name in inspect.signature(built).parameters}


def _join(place: str, name: object) -> str:
    return f"{place}.{name}" if place else str(name)


def _name(value: object) -> str:
    found = name_of(value)
    if found is None:
        what = getattr(value, "__qualname__", None) or repr(value)
        raise invalid(
            f"{what} among the settings, which no file can name",
            "a public class of genmod, or a class or function that was registered",
            "call genmod.register on it (a lambda needs to become a function with a name)",
        )
    return found
