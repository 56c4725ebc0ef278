"""Settings as plain data: written to a file, read back, and compared by value.

Only classes of the package and what :func:`register` allows can be named in a file: reading one never
runs code that the file brings.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import is_dataclass
from enum import Enum
from importlib import import_module
from types import UnionType
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import invalid
from genmod.config.settings import Settings as Settings

__all__ = ["Settings", "register"]

Named = TypeVar("Named", bound="type | Callable[..., object]")

ROOMS = (
    "spec",
    "nn",
    "nn.mlp",
    "nn.networks",
    "nn.cells",
    "nn.residual",
    "schedules",
    "schedules.wrappers",
    "denoisers",
    "denoisers.calibrated",
    "encoders",
    "encoders.topdown",
    "decoders",
    "decoders.codes",
    "decoders.likelihoods",
    "priors",
    "priors.deep",
    "priors.given",
    "priors.simple",
    "diffusion",
    "diffusion.depth",
    "diffusion.probability_flow",
    "prior",
    "samplers",
    "models",
    "models.build",
    "objectives",
    "training",
    "training.config",
)
"""Where the classes that may be named are: packages, and modules whose classes a method builds."""

_LISTED = 24
"""Names that a message lists."""
_named: dict[str, object] = {}
_names: dict[int, str] = {}


def register(value: Named, name: str | None = None) -> Named:
    """Allow a class or a function of your own to be written to files by its name, and read back.

    Call it in every program that reads the file, before it is read. It can be used as a decorator.

    Args:
        value: a class whose settings are its dataclass fields or constructor arguments; or a function.
        name: its name in files; the qualified name by default.

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
    if other is not value and getattr(other, "__code__", 0) != getattr(value, "__code__", 1):
        raise invalid(
            f"two things to register as {called!r}", "one name for each", "pass another name="
        )
    if "<locals>" in called or "<lambda>" in called:
        raise invalid(
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


def named(name: str, wanted: Iterable[type] = ()) -> object:
    """What a name in a file stands for.

    Args:
        name: a class as it is written in code, or in lower case with hyphens: ``"LatentDiffusion"``,
            ``"latent-diffusion"``. What was registered goes by the name that it was given.
        wanted: base classes, one of which the class must have; none: any.

    Raises:
        ValueError: a name that is neither the package's nor registered; it suggests the nearest.

    >>> named("latent-diffusion").__name__
    'LatentDiffusion'
    """
    kinds = tuple(wanted)
    found = _named.get(name) or _public(name) or _named.get(name)
    if found is None:
        spelled = {_spelling(each): each for each in public_names(kinds)}
        found = _public(spelled.get(_spelling(name), ""))
    if found is not None and (not kinds or not isinstance(found, type) or issubclass(found, kinds)):
        return found
    known, near = public_names(kinds), _nearest(name, kinds)
    listed = f"one of {', '.join(known)}" if len(known) <= _LISTED else "a public class of genmod"
    raise invalid(
        f"settings that name {name!r}",
        f"{listed}, or one that was registered",
        f"{f'did you mean {near!r}? ' if near else ''}call genmod.register on a class of your own "
        "before you read the file",
    )


def public_names(wanted: Iterable[type] = ()) -> list[str]:
    """The names of the package's classes that a file may name: those with one of some bases."""
    kinds = tuple(wanted) or (object,)
    found = {}
    for room in ROOMS:
        for name in _members(room):
            kind = _public(name)
            if kind is not None and issubclass(kind, kinds):
                found[name] = kind
    return sorted(found)


def dtype_named(name: object) -> torch.dtype:
    """The type of torch's of a name.

    Raises:
        ValueError: no type of torch's.
    """
    found = vars(torch).get(str(name))
    if not isinstance(found, torch.dtype):
        raise invalid(
            f"settings with dtype {name!r}",
            "a type of torch",
            "the file was written by something else, or is damaged",
        )
    return found


def _spelling(name: str) -> str:
    return name.replace("-", "").replace("_", "").replace(" ", "").lower()


def _nearest(name: str, kinds: tuple[type, ...]) -> str | None:
    spelled = {_spelling(each): each for each in public_names(kinds)}
    near = difflib.get_close_matches(_spelling(name), spelled, 1, 0.5)
    return spelled[near[0]] if near else None


def _members(room: str) -> dict[str, object]:
    try:
        return vars(import_module(f"genmod.{room}"))
    except ModuleNotFoundError:
        return {}


def _public(name: str) -> type | None:
    """A public class of settings of the package."""
    for room in ROOMS:
        found = _members(room).get(name)
        if isinstance(found, type) and found.__module__.startswith("genmod."):
            return found if issubclass(found, Settings | Enum) or is_dataclass(found) else None
    return None


# ---------------------------------------------------------------------- annotations


def classes_in(annotation: object) -> tuple[type, ...]:
    """The classes of settings that an annotation accepts: none for plain data.

    >>> from genmod.nn import Networks
    >>> classes_in(Networks | None), classes_in(int | None)
    ((<class 'genmod.nn.networks.Networks'>,), ())
    """
    plain = (type(None), bool, int, float, str, Enum, torch.dtype, Tensor)
    found = [each for each in members_of(annotation) if isinstance(each, type)]
    # A protocol is no base class: what follows it may have any.
    kinds = [k for k in found if k is not object and not vars(k).get("_is_protocol")]
    return tuple(k for k in kinds if not issubclass(k, plain))


def item_of(annotation: object) -> object:
    """The annotation of the items of a sequence."""
    for member in members_of(annotation):
        if typing.get_origin(member) in (Sequence, Iterable, list, tuple):
            return typing.get_args(member)[0]
    return None


def members_of(annotation: object) -> tuple[object, ...]:
    """The members of a union; an annotation that is none alone."""
    union = isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if union else (annotation,)


# ---------------------------------------------------------------------- distributions of torch's


def law_class(name: str) -> type[Distribution]:
    """The distribution of torch's of a name.

    Raises:
        ValueError: no distribution of torch's.
    """
    found = torch_law(name)
    if found is None:
        raise invalid(
            f"settings that name the law {name!r}",
            "a class of torch.distributions",
            "the file was written by something else, or is damaged",
        )
    return found


def torch_law(name: str) -> type[Distribution] | None:
    """The class of :mod:`torch.distributions` of a name, or ``None``."""
    found = vars(torch.distributions).get(name)
    law = isinstance(found, type) and issubclass(found, Distribution) and found is not Distribution
    return found if law else None


_KEPT_AS = {"base_distribution": "base_dist"}
"""Parameters that torch keeps under another name."""
_ONE_OF = (("logits", "probs"), ("scale_tril", "covariance_matrix", "precision_matrix"))
"""Parameters of which a constructor takes one; the others may be cached beside it."""


def law_parameters(law: Distribution) -> dict[str, object]:
    """The arguments that build a distribution of torch's again."""
    names = [name for name in inspect.signature(type(law).__init__).parameters if name != "self"]
    held = {name: getattr(law, _KEPT_AS.get(name, name)) for name in names if _is_held(law, name)}
    for group in _ONE_OF:
        for extra in [name for name in group if name in held][1:]:
            del held[extra]
    return held


def _is_held(law: Distribution, name: str) -> bool:
    """Whether a parameter is an attribute, or a plain property of one; lazy properties are computed."""
    name = _KEPT_AS.get(name, name)
    return name in vars(law) or isinstance(inspect.getattr_static(law, name, None), property)
