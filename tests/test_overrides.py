"""Inheritance: a method is abstract, a hook, or final, so what it does stands in one place.

A **hook** has a default of at most two plain statements, such as ``return self`` or one call. The class
that introduces the hook gives the default. Below it, one class on each line of inheritance may have its
own. A longer method is never overridden, and neither is one that implements an abstract method or a hook.

Wrap, do not override. What two classes share is a function, or an abstract base of both.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cache
from types import FunctionType

import genmod

EXCEPTIONS = {
    "Normal.elementwise": "N(0, I) has the same density in fewer operations, and a calibrated decoder "
    "measures its variance where a batch is scored; both stay Normal for everything else",
}
"""Methods that are overridden and neither abstract nor hooks, each with the reason."""

PLAIN = (ast.Assign, ast.AnnAssign, ast.Expr, ast.Pass, ast.Return)
"""The statements of a hook's default: without a branch, a loop or an inner function."""


@cache
def classes() -> list[type]:
    """Every class of the package, private ones included."""
    names = [module.name for module in pkgutil.walk_packages(genmod.__path__, "genmod.")]
    modules = [importlib.import_module(name) for name in names if name != "genmod.__main__"]
    found = {value for module in modules for value in vars(module).values() if is_own(value)}
    return sorted(found, key=lambda each: f"{each.__module__}.{each.__qualname__}")


def is_own(value: object) -> bool:
    """Whether a value is a class of the package."""
    return inspect.isclass(value) and value.__module__.startswith("genmod")


def methods(kind: type) -> dict[str, FunctionType]:
    """The methods and properties of a class itself, without its constructor.

    Those that ``dataclass`` writes have no source and are left out.
    """
    found = {}
    for name, value in vars(kind).items():
        inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        function = inspect.unwrap(inner) if inspect.isfunction(inner) else None
        written = function is not None and not function.__code__.co_filename.startswith("<")
        if isinstance(function, FunctionType) and written and name != "__init__":
            found[name] = function
    return found


def bases(kind: type, name: str) -> list[type]:
    """The classes above ``kind`` that define a method, the nearest first; those of libraries left out."""
    known = [base for base in kind.__mro__[1:] if base.__module__.startswith(("genmod", "tests"))]
    return [base for base in known if name in methods(base)]


def is_hook(function: FunctionType) -> bool:
    """Whether a method is a default to be overridden: at most two plain statements."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(node, ast.FunctionDef)
    body = node.body[ast.get_docstring(node) is not None :]
    return len(body) <= 2 and all(isinstance(each, PLAIN) for each in body)


def overridden(kinds: Iterable[type]) -> Iterator[tuple[str, str]]:
    """What is overridden and should not be, as ``Base.method``, and the class that does it."""
    for kind in kinds:
        for name in methods(kind):
            above = bases(kind, name)
            if not above or getattr(vars(above[0])[name], "__isabstractmethod__", False):
                continue
            introduces = len(above) == 1
            if not (introduces and is_hook(methods(above[0])[name])):
                yield f"{above[0].__name__}.{name}", kind.__name__


def test_concrete_methods_are_not_overridden() -> None:
    """To fix one: make the base's method abstract or a hook, or share a function instead."""
    found = [f"{base} by {kind}" for base, kind in overridden(classes()) if base not in EXCEPTIONS]
    assert found == []


def test_every_exception_is_needed() -> None:
    assert {base for base, _ in overridden(classes())} == set(EXCEPTIONS)


class Base(ABC):
    @abstractmethod
    def needed(self) -> int:
        """Abstract."""

    def hook(self) -> int:
        """A default."""
        return 0

    def work(self) -> int:
        """More than a default."""
        total = 0
        for number in range(3):
            total += number
        return total


class Middle(Base):
    def needed(self) -> int:
        return 1

    def hook(self) -> int:
        return 2


class Leaf(Middle):
    def needed(self) -> int:
        return 3

    def hook(self) -> int:
        return 4

    def work(self) -> int:
        return 5


def test_the_rule_finds_overrides_of_work_and_of_implementations() -> None:
    assert list(overridden([Base, Middle])) == []
    found = {base for base, _ in overridden([Leaf])}
    assert found == {"Middle.needed", "Middle.hook", "Base.work"}
