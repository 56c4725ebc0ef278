"""Checks of arguments by the annotations of a signature: whole numbers, and objects in place of classes.

Two mistakes are the same everywhere, so they are found in one place. A count of 2.5, "3" or ``True`` where
the annotation is ``int``; and a class where one of its objects is meant, as in ``scale=PredictedScale``.
"""

from __future__ import annotations

import builtins
import inspect
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from torch import Tensor, nn
from torch.distributions import Distribution

from genmod.checks import called, invalid, whole_number

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_NONE = type(None)
_WHOLE = (int, typing.SupportsIndex)
_OTHER_NUMBERS = (float, bool, complex, object, Any, Tensor)


@dataclass(frozen=True)
class _Rule:
    """What the annotation of one argument allows.

    Args:
        whole: whether a number must be a whole one.
        alone: whether nothing but a whole number is accepted.
        optional: whether ``None`` is accepted.
        kinds: the names of our classes of which objects are accepted.
        bases: these classes, where the annotation also accepts functions: no others are refused then.
    """

    whole: bool
    alone: bool
    optional: bool
    kinds: str
    bases: tuple[type, ...] = ()

    def check(self, name: str, value: object) -> object:
        """The value, a whole number as an ``int``; refuses other numbers, and classes for objects."""
        if value is None and self.optional:
            return value
        if self.whole and (self.alone or _is_other_number(value)):
            return whole_number(value, name)
        if self.kinds and isinstance(value, type) and not issubclass(value, Enum):
            if self.bases and not issubclass(value, self.bases):
                return value
            raise invalid(
                f"{name}={value.__name__}, a class",
                f"an instance of {self.kinds}",
                f"call it: {called(value)}",
            )
        return value


def _is_other_number(value: object) -> bool:
    """Whether a value is a number, but no whole one: 2.5, 2.0, ``True``."""
    if isinstance(value, bool | float):
        return True
    try:
        operator.index(typing.cast(typing.SupportsIndex, value))
    except TypeError:
        return isinstance(value, typing.SupportsFloat) and not isinstance(value, Sized)
    return False


def is_of_package(thing: type | Callable[..., object]) -> bool:
    """Whether a class or function is genmod's own. Others may use annotations in another sense."""
    return thing.__module__.partition(".")[0] == "genmod"


def rules_of(function: Callable[..., object]) -> dict[str, _Rule]:
    """The rule of each argument of a function whose annotations allow one."""
    owner: type | Callable[..., object] = function
    if isinstance(function, type):
        owner = next(each for each in function.__mro__ if "__init__" in vars(each))
    names = vars(sys.modules[owner.__module__])
    found = {
        name: _rule(parameter.annotation, names)
        for name, parameter in inspect.signature(function).parameters.items()
    }
    return {name: rule for name, rule in found.items() if rule is not None}


def _rule(annotation: object, names: Mapping[str, object]) -> _Rule | None:
    """The rule of an annotation, which is text (``from __future__ import annotations``)."""
    members = list(_members(annotation, names)) if isinstance(annotation, str) else []
    whole = any(each in _WHOLE for each in members)
    whole = whole and not any(each in _OTHER_NUMBERS for each in members)
    anything = any(each in (object, Any) or "type[" in str(each) for each in members)
    ours = [] if anything else [each for each in members if _is_ours(each)]
    functions = any("Callable" in str(each) for each in members)
    bases = tuple(each for each in ours if functions and isinstance(each, type))
    kinds = sorted(map(_word, ours)) if bases or not functions else []
    if not whole and not kinds:
        return None
    alone = all(each in (*_WHOLE, _NONE) for each in members)
    return _Rule(whole, alone, _NONE in members, " or ".join(kinds), bases)


def _is_ours(member: object) -> bool:
    """Whether a member of a union is a class of this package, of networks or of distributions."""
    if isinstance(member, str):  # imported for the type checker alone
        return member.isidentifier() and member[0].isupper()
    if not isinstance(member, type) or issubclass(member, Enum):
        return False
    return member.__module__.startswith("genmod") or member in (nn.Module, Distribution)


def _word(member: object) -> str:
    return member.__name__ if isinstance(member, type) else str(member)


def _members(annotation: str, names: Mapping[str, object]) -> Iterator[object]:
    """The members of a union, those of aliases included; text for those that are no plain names."""
    depth, start = 0, 0
    for place, character in enumerate(f"{annotation}|"):
        depth += (character == "[") - (character == "]")
        if character == "|" and depth == 0:
            part = annotation[start:place].strip()
            start = place + 1
            meaning = _meaning(part, names)
            union = isinstance(meaning, types.UnionType)
            union = union or typing.get_origin(meaning) is typing.Union
            yield from typing.get_args(meaning) if union else (meaning,)


def _meaning(part: str, names: Mapping[str, object]) -> object:
    """What a name stands for in a module; the text itself if that is not known."""
    first, *rest = part.split(".")
    if part == "None":
        return _NONE
    found = names.get(first, vars(builtins).get(first, part))
    for word in rest if found is not part else ():
        found = getattr(found, word)
    return found


def check_given(rules: Mapping[str, _Rule], given: Mapping[str, object]) -> dict[str, object]:
    """The arguments, checked by their rules.

    Raises:
        ValueError: a number that is not whole where an int is meant; a class where an object is meant.
    """
    return {
        name: rules[name].check(name, value) if name in rules else value
        for name, value in given.items()
    }


def checked(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function that checks its arguments by their annotations, before it runs.

    >>> @checked
    ... def draw(count: int) -> list[int]:
    ...     return list(range(count))
    >>> draw(2.5)
    Traceback (most recent call last):
    ...
    ValueError: got count=2.5; expected a whole number; convert it with int()
    """
    signature, rules = inspect.signature(function), rules_of(function)

    @wraps(function)
    def call(*values: Arguments.args, **named: Arguments.kwargs) -> Result:
        try:
            bound = signature.bind(*values, **named)
        except TypeError:  # Python's own message names the function.
            return function(*values, **named)
        bound.arguments.update(check_given(rules, bound.arguments))
        return function(*bound.args, **bound.kwargs)

    return call


def check_fields(settings: Any) -> None:
    """Check the fields of a dataclass by their annotations: call it in ``__post_init__``."""
    rules = _rules_of_fields(type(settings))
    check_given(rules, {name: getattr(settings, name) for name in rules})


_FIELDS: dict[type, dict[str, _Rule]] = {}


def _rules_of_fields(kind: type) -> dict[str, _Rule]:
    """The rules of the fields of a dataclass, those of its base classes in this package included."""
    if kind in _FIELDS:
        return _FIELDS[kind]
    found = _FIELDS[kind] = {}
    for each in reversed(kind.__mro__):
        if not is_of_package(each):
            continue
        names = vars(sys.modules[each.__module__])
        for name, annotation in vars(each).get("__annotations__", {}).items():
            rule = _rule(annotation, names) if "ClassVar" not in str(annotation) else None
            if rule is not None:
                found[name] = rule
    return found
