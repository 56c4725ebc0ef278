"""Arguments: objects that know those they were built with, and functions that share theirs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from genmod.signatures import check_given, is_of_package, rules_of
from genmod.spec import HasSpec

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_KEY = "_arguments"


class Settings:
    """A base class whose objects keep the arguments of their constructor, for :func:`arguments`.

    A subclass only writes its ``__init__``, whose arguments are, in this package, checked by their
    annotations (:mod:`genmod.signatures`). A frozen dataclass does not need this base: its fields are
    its settings.

    >>> class Noise(Settings):
    ...     def __init__(self, scale: float, steps: int = 10) -> None:
    ...         self.table = [scale] * steps
    >>> arguments(Noise(0.5))
    {'scale': 0.5, 'steps': 10}
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls):
            setattr(cls, "__init__", _keeping(vars(cls)["__init__"]))  # noqa: B010  mypy


def _keeping(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that writes down its arguments, unless a subclass's constructor already has."""
    signature = inspect.signature(init)
    rules = rules_of(init) if is_of_package(init) else {}

    @wraps(init)
    def keep(self: object, *values: object, **named: object) -> None:
        if _KEY not in vars(self):
            try:
                bound = signature.bind(self, *values, **named)
            except TypeError:  # Python's own message names the constructor.
                init(self, *values, **named)
                raise
            check_given(rules, bound.arguments)
            bound.apply_defaults()
            kept = {name: _light(v) for name, v in list(bound.arguments.items())[1:]}
            # A plain attribute: a module among the arguments must not become a submodule twice.
            record_arguments(self, kept)
        init(self, *values, **named)

    return keep


def _light(value: object) -> object:
    """A setting without the data: of a data set its description alone is kept."""
    if isinstance(value, Settings) or not isinstance(value, HasSpec):
        return value
    return value.spec


def record_arguments(value: object, given: dict[str, object]) -> None:
    """Record the arguments that would build an object as it is now."""
    object.__setattr__(value, _KEY, given)


def forget_arguments(value: object) -> None:
    """Mark an object as one that its constructor's arguments no longer describe."""
    object.__setattr__(value, _KEY, None)


def arguments(value: object) -> dict[str, object] | None:
    """The settings of an object: a dataclass's fields, or the arguments of its constructor.

    ``None`` for an object that keeps neither.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    kept = vars(value).get(_KEY) if getattr(value, "__dict__", None) is not None else None
    if kept is None and isinstance(value, Settings) and _KEY not in vars(value):
        return {}
    return kept


def with_arguments_of(
    other: Callable[Arguments, object],
) -> Callable[[Callable[..., Result]], Callable[Arguments, Result]]:
    """Give a function the arguments and defaults of another one; it is called with all of them by name."""
    signature = inspect.signature(other)

    def decorate(function: Callable[..., Result]) -> Callable[Arguments, Result]:
        @wraps(function)
        def call(*values: Arguments.args, **named: Arguments.kwargs) -> Result:
            bound = signature.bind(*values, **named)
            bound.apply_defaults()
            return function(**bound.arguments)

        returned = inspect.signature(function).return_annotation
        vars(call)["__signature__"] = signature.replace(return_annotation=returned)
        return call

    return decorate
