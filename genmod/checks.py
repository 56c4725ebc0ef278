"""Checks of public arguments: a ``ValueError`` states what was got, what was expected, what to do.

Checks of shape and type take no time and are always made. Checks of values read the whole tensor (and wait
for a GPU). So a caller that has checked a data set once may run inside :func:`trusted`.
"""

from __future__ import annotations

import difflib
import inspect
import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import Tensor

from genmod.tensors import Shape

E = TypeVar("E", bound=Enum)
T = TypeVar("T")

_NARROWLY_SUPPORTED = (torch.uint16, torch.uint32, torch.uint64)
"""Types that torch can store, but not compare."""

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)


@contextmanager
def trusted() -> Iterator[None]:
    """Skip checks of values inside this block: the caller has made them for the whole data set."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def is_trusted() -> bool:
    """Whether the code runs inside :func:`trusted`: values were checked before."""
    return _trusted.get()


def can_read(x: Tensor) -> bool:
    """Whether a check may read the values of ``x``: not inside :func:`trusted`, nor while x is traced.

    Inside ``torch.compile`` and ``torch.func.vmap`` a tensor has no values of its own, and reading them is
    an error: checks of values are skipped there.
    """
    # is_compiling() comes first: torch.compile(fullgraph=True) fails on a context variable.
    return not torch.compiler.is_compiling() and not is_trusted() and not _is_batched(x)


def _is_batched(x: Tensor) -> bool:
    """Whether ``vmap`` is somewhere among the transforms that wrap ``x``."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(x):
        if functorch.is_batchedtensor(x):
            return True
        x = functorch.get_unwrapped(x)
    return False


def invalid(got: str, expected: str, advice: str) -> ValueError:
    """The error for a refused argument: what was got, what was expected, what to do.

    Test first, then raise it: the words are built only on failure, and a type checker follows the test.

    >>> raise invalid("steps=0", "at least 1", "pass a positive number")
    Traceback (most recent call last):
    ...
    ValueError: got steps=0; expected at least 1; pass a positive number
    """
    return ValueError(f"got {got}; expected {expected}; {advice}")


def whole_number(value: Any, name: str) -> int:
    """A Python int from a whole number of any library. Fractions, 2.0, strings and flags are refused.

    >>> whole_number(torch.tensor(3), "steps")
    3
    """
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    advice = (
        "pass a number" if value is None or isinstance(value, bool) else "convert it with int()"
    )
    raise invalid(f"{name}={value!r}", "a whole number", advice)


def event_shape(shape: object) -> Shape:
    """A shape as a tuple; one number is the length of a vector."""
    if isinstance(shape, Integral) and not isinstance(shape, bool):
        shape = (int(shape),)
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes):
        what = repr(shape) if isinstance(shape, str | type) else f"a {type(shape).__name__}"
        raise invalid(
            f"{what} for the shape of the data",
            "a data set, a DataSpec, a shape such as (1, 28, 28), or the length of a vector",
            "pass genmod.data.load(x) for data, or tuple(x.shape[1:]) for their shape alone",
        )
    found = tuple(whole_number(side, "side") for side in shape)
    if len(found) == 0 or min(found) < 1:
        raise invalid(
            f"shape={shape}",
            "an event shape of positive sides",
            "leave the batch axis out: (1, 28, 28) for gray images, (d,) for vectors",
        )
    return found


def check_shape(x: Tensor, shape: Shape, name: str = "x") -> None:
    """Require ``x`` to be a batch ``(B, *shape)``."""
    if x.ndim != len(shape) + 1 or tuple(x.shape[1:]) != tuple(shape):
        raise invalid(
            f"{name} of shape {tuple(x.shape)}",
            f"a batch of shape (B, {', '.join(map(str, shape))})",
            "reshape the data, or build the model with the data's own event shape",
        )


def check_real(x: Tensor, observed: Tensor | None = None, name: str = "x") -> None:
    """Require every (observed) value of ``x`` to be finite."""
    if x.dtype.is_complex or x.dtype is torch.bool:
        raise invalid(f"{name} of type {x.dtype}", "real numbers", "convert it first")
    if not x.is_floating_point() or not can_read(x):
        return
    if observed is None and all_finite(x):
        return
    broken = ~torch.isfinite(x)
    if observed is not None:
        broken = broken & observed
    count = int(broken.sum())
    if count > 0:
        raise invalid(
            f"{count} values of {name} that are NaN or infinite",
            "finite numbers",
            "clean the data, or pass observed=... to leave entries out of the bound",
        )


def all_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite, without a mask: that of a large file would fill the memory."""
    if not x.numel():
        return True
    low, high = torch.aminmax(x.detach())
    return bool(torch.isfinite(low) & torch.isfinite(high))


def check_integers(x: Tensor, bins: int, observed: Tensor | None = None, name: str = "x") -> None:
    """Require ``x`` to hold whole numbers in ``0 .. bins - 1`` where observed."""
    check_real(x, observed, name)
    if not can_read(x):
        return
    wide = x.to(torch.int64) if x.dtype in _NARROWLY_SUPPORTED else x
    values = wide if observed is None else wide[observed]
    if values.is_floating_point():
        fractions = int((values != values.round()).sum())
        if fractions > 0:
            raise invalid(
                f"{fractions} values of {name} that are not whole numbers",
                f"integers in 0..{bins - 1}, because this decoder gives a probability mass",
                "keep integer data integer (do not scale to [0, 1]), or use a decoder with a "
                "density",
            )
    if values.numel():
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= bins:
            raise invalid(
                f"{name} from {low} to {high}",
                f"integers in 0..{bins - 1}",
                f"set bins={high + 1} or more, or shift the data so that it begins at 0",
            )


def check_mask(observed: Tensor, x: Tensor) -> None:
    """Require a mask of the entries that count to be boolean and of the data's own shape."""
    if observed.dtype is not torch.bool or observed.shape != x.shape:
        raise invalid(
            f"observed of type {observed.dtype} and shape {tuple(observed.shape)}",
            f"torch.bool of shape {tuple(x.shape)}",
            "pass True where an entry of x was observed",
        )


def check_positive(value: float, name: str) -> None:
    """Require a setting to be a positive, finite number."""
    if isinstance(value, str | None) or not 0 < value < float("inf"):
        raise invalid(f"{name}={value!r}", "a positive finite number", f"change {name}")


def check_at_least(value: float, least: int, name: str, advice: str) -> None:
    """Require a setting to be at least ``least``. A NaN is refused too."""
    if isinstance(value, str | None) or not value >= least:
        raise invalid(f"{name}={value!r}", f"at least {least}", advice)


def choice(kind: type[E], value: object, name: str | None = None) -> E:
    """A member of an enumeration, from itself or from its name.

    Args:
        kind: an enumeration whose values are strings.
        value: a member, or its value.
        name: what messages call the setting; the enumeration's name by default.

    Raises:
        ValueError: anything else; the message suggests the nearest value.
    """
    if isinstance(value, kind):
        return value
    names = [str(member.value) for member in kind]
    if isinstance(value, str) and value in names:
        return kind(value)
    label = kind.__name__.lower() if name is None else name
    raise invalid(
        f"{label}={value!r}", f"one of {', '.join(map(repr, names))}", _suggestion(value, names)
    )


def one_of(names: Iterable[str], value: str, name: str) -> str:
    """A string from a list of names. Any other is refused, and the message suggests the nearest name."""
    known = list(names)
    if value in known:
        return value
    raise invalid(
        f"{name}={value!r}", f"one of {', '.join(map(repr, known))}", _suggestion(value, known)
    )


def instance(value: object, kind: type[T], name: str, advice: str = "") -> T:
    """An instance of a class. The class itself, its name, and anything else are refused.

    Args:
        value: what was given.
        kind: the class.
        name: what messages call the setting.
        advice: what to do with an object of another class; by default, to pass an instance.

    Raises:
        ValueError: anything else. For a class or its name, the message shows how to build an instance.
    """
    if isinstance(value, kind):
        return value
    expected = f"an instance of {kind.__name__}"
    advice = advice or f"pass {expected}"
    if isinstance(value, type):
        advice = f"call it: {called(value)}" if issubclass(value, kind) else advice
        raise invalid(f"{name}={value.__name__}, a class", expected, advice)
    what = f"={value!r}" if isinstance(value, str) else f" of type {type(value).__name__}"
    if isinstance(value, str):
        names = {each.__name__.lower(): each.__name__ for each in _subclasses(kind)}
        near = difflib.get_close_matches(value.lower(), names, 1)
        advice = f"did you mean {names[near[0]]}()?" if near else advice
    raise invalid(f"{name}{what}", expected, advice)


def called(kind: type) -> str:
    """The call that makes an object of a class; dots stand for arguments that it needs."""
    try:
        needed = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return f"{kind.__name__}(...)"
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    some = any(each.default is each.empty and each.kind not in variadic for each in needed)
    return f"{kind.__name__}({'...' if some else ''})"


def _suggestion(value: object, names: list[str]) -> str:
    """An advice: the nearest of some names, if one is near."""
    text = str(value).lower().replace("_", "-").replace(" ", "-")
    near = difflib.get_close_matches(text, names, 1)
    return f"did you mean {near[0]!r}?" if near else "choose one of these"


def _subclasses(kind: type[object]) -> Iterator[type[object]]:
    for each in kind.__subclasses__():
        if not each.__name__.startswith("_"):
            yield each
        yield from _subclasses(each)
