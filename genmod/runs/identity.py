"""The identity of a run: the value of every setting, as plain data that files can hold and compare.

Two objects of one kind with equal settings have one description; any other value gives another one.
No ``repr`` is used, because a ``repr`` rounds and leaves things out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from genmod.data.datasets import digest

Plain: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None
"""What JSON can hold."""

_OF_TORCH = frozenset(vars(nn.Module()))
"""What every module holds; parameters, buffers and submodules are described by their own names."""
_KEPT_ARGUMENTS = "_arguments"
"""What an object was built with: its attributes say the same."""


def describe(value: object) -> Plain:
    """The value of every setting of an object, however deep, as plain data.

    Modules, dataclasses and other objects are described by their class and attributes, tensors by a digest
    of their values, functions by their name (those without one, by their code and what they enclose).
    A thing that occurs twice is described once; its second place names the first.

    >>> from genmod.schedules import LinearLogSNR
    >>> describe(LinearLogSNR(2.0, -6.0)) == describe(LinearLogSNR(2.0, -5.0))
    False
    """
    return _Description().of(value, "")


def changes(saved: object, wanted: object) -> list[str]:
    """What differs between two descriptions: one line for each value, with both of them.

    >>> changes({"steps": 10, "schedule": {"clean": 2.0}}, {"steps": 10, "schedule": {"clean": 3.0}})
    ['schedule.clean 3.0 (there 2.0)']
    """
    there, here = dict(_flat(saved, "")), dict(_flat(wanted, ""))
    names = dict.fromkeys([*here, *there])
    return [
        f"{name} {_said(here, name)} (there {_said(there, name)})"
        for name in names
        if name not in here or name not in there or not _equal(here[name], there[name])
    ]


def _equal(one: object, other: object) -> bool:
    both_nan = isinstance(one, float) and isinstance(other, float) and one != one and other != other
    return both_nan or (one == other and isinstance(one, bool) == isinstance(other, bool))


def _said(found: Mapping[str, object], name: str) -> str:
    return repr(found[name]) if name in found else "absent"


def _flat(value: object, name: str) -> Iterator[tuple[str, object]]:
    """Every number and text in a description, by its place."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(
        isinstance(each, Mapping | list) for each in value
    ):
        for place, each in enumerate(value):
            yield from _flat(each, f"{name}[{place}]")
    else:
        yield name, list(value) if isinstance(value, tuple) else value


def _digested(value: Tensor) -> str:
    return f"{tuple(value.shape)} {digest(value)}"


_SMALL = 8
"""Numbers of a tensor that are described by themselves: a message can then show them."""


def _is_value(value: object) -> bool:
    """Whether an object is a frozen record: two equal ones are the same setting, in one place or in two."""
    record = getattr(type(value), "__dataclass_params__", None)
    return record is not None and bool(record.frozen and record.eq)


class _Description:
    """Describes objects; knows where each has been described, so that circles end."""

    def __init__(self) -> None:
        self.places: dict[int, str] = {}
        self.kept: list[object] = []

    def of(self, value: object, place: str) -> Plain:
        if isinstance(value, Enum):
            return self.of(value.value, place)
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, torch.dtype | torch.device | PurePath | bytes | complex | range):
            return str(value)
        if id(value) in self.places:
            return {"same as": self.places[id(value)]}
        if isinstance(value, tuple):
            return [self.of(each, f"{place}[{i}]") for i, each in enumerate(value)]
        if not _is_value(value):
            # Kept, because the id of an object that is gone may be given to another one.
            self.places[id(value)] = place
            self.kept.append(value)
        if isinstance(value, Tensor):
            small = value.numel() <= _SMALL and not value.is_complex()
            kind = str(value.dtype).removeprefix("torch.")
            return {kind: self.of(value.tolist(), place)} if small else _digested(value)
        if isinstance(value, Mapping):
            return {str(key): self.of(each, f"{place}.{key}") for key, each in value.items()}
        if isinstance(value, list):
            return [self.of(each, f"{place}[{i}]") for i, each in enumerate(value)]
        if isinstance(value, set | frozenset):
            return sorted(str(self.of(each, place)) for each in value)
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, FunctionType | MethodType | partial):
            return self._function(value, place)
        return self._object(value, place)

    def _object(self, value: object, place: str) -> Plain:
        found: dict[str, Plain] = {"class": self.of(type(value), place)}
        for name, each in sorted(self._attributes(value).items()):
            found[name] = self.of(each, f"{place}.{name}" if place else name)
        return found

    def _attributes(self, value: object) -> dict[str, object]:
        if not is_dataclass(value) and getattr(value, "__dict__", None) is None:
            return {}
        found = {
            name: each
            for name, each in getattr(value, "__dict__", {}).items()
            if name != _KEPT_ARGUMENTS and not (isinstance(value, nn.Module) and name in _OF_TORCH)
        }
        if isinstance(value, nn.Module):
            found |= dict(value.named_children())
            found |= dict(value.named_parameters(recurse=False))
            found |= dict(value.named_buffers(recurse=False))
        return found

    def _function(self, value: Callable[..., object], place: str) -> Plain:
        if isinstance(value, partial):
            return {
                "partial of": self.of(value.func, place),
                "arguments": self.of([*value.args], place),
                "named arguments": self.of(value.keywords, place),
            }
        if isinstance(value, MethodType):
            return {"method": value.__name__, "of": self.of(value.__self__, place)}
        assert isinstance(value, FunctionType)
        name = f"{value.__module__}.{value.__qualname__}"
        if "<" not in value.__qualname__:
            return name
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        enclosed = dict(zip(value.__code__.co_freevars, cells, strict=True))
        return {"function": name, "code": _code(value.__code__), **_named(self, enclosed, place)}


def _named(
    description: _Description, enclosed: Mapping[str, object], place: str
) -> dict[str, Plain]:
    return {name: description.of(each, f"{place}.{name}") for name, each in enclosed.items()}


def _code(code: CodeType) -> str:
    """A digest of what a function does: its instructions, names and constants."""
    constants = [
        _code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts
    ]
    text = repr((code.co_code.hex(), code.co_names, constants))
    return digest(torch.tensor(list(text.encode()), dtype=torch.uint8))
