"""The run-time checks of shapes: jaxtyping with beartype, for the first calls of each function in a test.

Functions without a shape among their types are left to mypy. A function that is called in a loop sees the
same shapes again, so that the first calls show what the others would. When every call of every function was
checked, that took half of the suite's time.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CALLS = 8
"""Calls that are checked: of each function, in each test."""

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int is accepted where a float is asked for."""
_SHAPES = re.compile(r"\b(PerSample|PerLevel|Batch|Real|Mask|Float|Shaped|Bool)\b")
"""The types of ``genmod.tensors``, by name."""
_always = jaxtyping.jaxtyped
_left: dict[object, int] = {}
"""Calls of a function, by its code, that are still checked in this test."""


def install() -> None:
    """Check the functions of ``genmod`` that are imported from now on."""
    jaxtyping.jaxtyped = _decorator  # type: ignore[assignment]
    jaxtyping.install_import_hook("genmod", "tests.typechecker.check")


def next_test() -> None:
    """Check the first calls anew."""
    _left.clear()


def _decorator(typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """What the import hook puts on each function and class."""
    return functools.partial(_sampled, typechecker)


def _sampled(typechecker: Callable[..., Any], found: Any) -> Any:
    """A function, or a class whose constructor ``dataclass`` made: the first calls are checked."""
    if inspect.isclass(found):
        own = vars(found).get("__init__")
        if dataclasses.is_dataclass(found) and own and not hasattr(own, "__wrapped__"):
            setattr(found, "__init__", _sampled(typechecker, own))  # noqa: B010
        return found
    if not any(_SHAPES.search(str(each)) for each in found.__annotations__.values()):
        return found  # mypy has checked its types, and it has no shapes
    checked: list[Callable[..., Any]] = []  # made at the first call: most functions are not called
    code = found.__code__

    @functools.wraps(found)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable or not (left := _left.get(code, CALLS)):
            return found(*args, **kwargs)
        _left[code] = left - 1
        if not checked:
            checked.append(_always(found, typechecker=typechecker))
        return checked[0](*args, **kwargs)

    return wrapped
