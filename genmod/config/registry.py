"""Which names a file of settings may hold: the package's public classes, and what a user registers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

from genmod.checks import require

Named = TypeVar("Named", bound="type | Callable[..., object]")

ROOMS = (
    "spec",
    "nn",
    "schedules",
    "schedules.wrappers",
    "denoisers",
    "encoders",
    "decoders",
    "priors",
    "diffusion",
    "diffusion.probability_flow",
    "prior",
    "samplers",
    "models",
    "objectives",
    "training",
)
"""Where the classes that may be named are: packages, and modules whose classes a method builds."""

_named: dict[str, object] = {}
_names: dict[int, str] = {}


def register(value: Named, name: str | None = None) -> Named:
    """Allow a class or a function of your own to be written to files by its name, and read back.

    Call it in every program that reads the file, before it is read. It can be used as a decorator.

    Args:
        value: a class whose settings are its dataclass fields or constructor arguments; or a function.
        name: what it is called in files; its qualified name by default.

    Returns:
        ``value`` itself.

    Raises:
        ValueError: a name that something else has.

    >>> @register
    ... def halved(log_snr):
    ...     return 0.5 * log_snr.sigmoid()
    """
    called = name or f"{value.__module__}.{value.__qualname__}"
    other = _named.get(called, value)
    require(
        other is value or getattr(other, "__code__", 0) == getattr(value, "__code__", 1),
        f"two things to register as {called!r}",
        "one name for each",
        "pass another name=",
    )
    require(
        "<locals>" not in called and "<lambda>" not in called,
        f"{called!r} to register",
        "a name that the next program can give it, too",
        "define it at the top of a module, or pass name=",
    )
    _named[called] = value
    _names[id(value)] = called
    return value


def name_of(value: object) -> str | None:
    """The name under which a class or function may be written; ``None`` if it may not."""
    if id(value) in _names:
        return _names[id(value)]
    home = getattr(value, "__module__", None) or ""
    if isinstance(value, type) and home.startswith("genmod."):
        return value.__name__ if _public(value.__name__) is value else None
    return None


def named(name: str) -> object:
    """What a name in a file stands for.

    Raises:
        ValueError: a name that is neither the package's nor registered.
    """
    found = _named.get(name) or _public(name)
    if found is None:
        raise ValueError(
            f"got settings that name {name!r}; expected a public class of genmod, or one that was "
            "registered; call genmod.register on it before you read the file"
        )
    return found


def _public(name: str) -> object | None:
    """A public class of the package."""
    for room in ROOMS:
        try:
            home = import_module(f"genmod.{room}")
        except ModuleNotFoundError:
            continue
        found = vars(home).get(name)
        if isinstance(found, type) and found.__module__.startswith("genmod."):
            return found
    return None
