"""Rows of numbers at the public border: tensors, arrays and lists, without rounding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from genmod.checks import invalid

Rows: TypeAlias = Tensor | np.ndarray | Sequence[object]
"""A batch as a caller may hold it."""
Context: TypeAlias = Tensor | np.ndarray | Sequence[object] | int | np.integer | None
"""What a model is conditioned on, one row a sample, or one label for all."""


def as_tensor(x: object, name: str = "x") -> Tensor:
    """Rows from a tensor, an array, or a list of numbers, arrays or tensors, in the type given.

    Nothing is rounded: a float64 array becomes a float64 tensor, so that checks see its own values.
    Unsigned integers wider than a byte become ``torch.int64``, because torch cannot compute with them.

    Args:
        x: the rows.
        name: what messages call them.

    Raises:
        ValueError: what holds no real numbers, rows of different shapes, a data frame.

    >>> as_tensor([[1, 2], [3, 4]]).dtype
    torch.int64
    """
    if isinstance(x, list | tuple) and x and all(isinstance(row, Tensor) for row in x):
        found = {tuple(row.shape) for row in x}
        if len(found) != 1:
            raise invalid(f"rows of {name} of shapes {sorted(found)}", *_ONE_SHAPE)
        x = torch.stack([row for row in x if isinstance(row, Tensor)])
    if isinstance(x, list | tuple):
        x = _array(x, name)
    if isinstance(x, np.ndarray):
        x = _from_array(x, name)
    if not isinstance(x, Tensor):
        raise invalid(
            f"{name} of type {type(x).__name__}",
            "a tensor, an array or a list of rows",
            "convert it first (a data frame of numbers with .to_numpy())",
        )
    if x.layout is not torch.strided:
        raise invalid(f"{name} of layout {x.layout}", "a dense tensor", "use x.to_dense()")
    if x.is_complex():
        raise invalid(f"complex {name}", "real numbers", "use torch.view_as_real first")
    return for_autograd(_wide(x, name))


def for_autograd(x: Tensor) -> Tensor:
    """The tensor, or a copy of one that was made in ``torch.inference_mode()`` and is used outside of it.

    Autograd keeps the inputs of what it will differentiate, and refuses to keep tensors made there.
    """
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def as_context(context: object, rows: int) -> Tensor | None:
    """What a model is conditioned on, one row a sample: a tensor, an array, a list, or one label for all.

    Raises:
        ValueError: what holds no numbers.

    >>> as_context(3, rows=2)
    tensor([3, 3])
    """
    if context is None:
        return None
    if isinstance(context, int | np.integer) and not isinstance(context, bool):
        return torch.full((rows,), int(context))
    return as_tensor(context, "context")


def as_mask(observed: Rows | None) -> Tensor | None:
    """Which entries were observed, as a tensor of booleans; other types are refused where it is checked.

    >>> as_mask([[True, False]])
    tensor([[ True, False]])
    """
    return None if observed is None else as_tensor(observed, "observed")


def ranks(values: object, count: int, name: str) -> Tensor:
    """Values of any kind that can be put in order, as whole numbers in that order, ``(count,)``.

    >>> ranks(["b", "a", "b"], 3, "groups")
    tensor([1, 0, 1])
    """
    found = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if found.shape != (count,):
        raise invalid(
            f"{name} of shape {found.shape}",
            f"one value for each of the {count} rows",
            "pass them in the order of the rows",
        )
    holes = int((found != found).sum()) if found.dtype.kind in "fmM" else 0
    if holes != 0:
        raise invalid(f"{name} with {holes} missing values", "a value a row", "fill them")
    try:
        inverse = np.unique(found, return_inverse=True)[1]
    except TypeError:
        raise invalid(
            f"{name} of several types", "numbers, text or dates alone", "convert them"
        ) from None
    return torch.from_numpy(inverse.reshape(-1).astype(np.int64))


def check_times(time: object) -> None:
    """Refuse times of text whose alphabetical order is not that in time: 28.2.2020, Monday, 9:30.

    Dates that begin with the year, all in one notation, are in order: 2020-02-28, 2020-02-28 12:00.
    """
    found = np.asarray(time.cpu() if isinstance(time, Tensor) else time)
    if found.dtype.kind not in "OUS":
        return
    texts = [each for each in found.ravel().tolist() if isinstance(each, str)]
    kinds = {re.sub(r"[0-9]", "0", each[:10]) for each in texts}
    wrong = [each for each in texts if not re.match(r"[0-9]{4}(?![0-9])", each)]
    if wrong or len(kinds) > 1:
        raise invalid(
            f"times of text such as {(wrong or texts)[0]!r}",
            "numbers, dates, or text of one form that begins with the year, such as 2020-02-28",
            "convert them, with pandas.to_datetime for example",
        )


def as_device(device: torch.device | str) -> torch.device:
    """A device on which this machine can compute.

    Raises:
        ValueError: a name that no device has, a device that is not here.

    >>> as_device("cpu")
    device(type='cpu')
    """
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).partition("\n")[0].split(". ")[0]
        here = "cpu or cuda" if torch.cuda.is_available() else "cpu, the only device here"
        advice = "leave it out for the default"
        raise invalid(f"device={str(device)!r} ({reason})", here, advice) from None
    return found


_ONE_SHAPE = ("rows of one shape", "pad or cut them, or model each shape apart")
_WRAPPING = (torch.uint16, torch.uint32, torch.uint64)
"""Types that torch stores but hardly computes with."""


def _array(rows: Sequence[object], name: str) -> np.ndarray:
    try:
        return np.asarray(rows)
    except ValueError:
        raise invalid(
            f"{name} with rows of different shapes", _ONE_SHAPE[0], _ONE_SHAPE[1]
        ) from None


def _from_array(x: np.ndarray, name: str) -> Tensor:
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise invalid(
            f"a masked array {name} with {int(np.ma.getmaskarray(x).sum())} masked entries",
            "an array without a mask of its own",
            "pass x.filled(0), and observed=~numpy.ma.getmaskarray(x) where entries can be missing",
        )
    native = x.astype(x.dtype.newbyteorder("="), copy=False)
    if x.dtype.kind not in "biu" and native.dtype not in (np.float16, np.float32, np.float64):
        raise invalid(
            f"an array {name} of type {x.dtype}",
            "real numbers of at most 64 bits",
            "select and encode the columns you mean to model, and convert with .astype(float)",
        )
    # Negative strides do not exist in torch, and it warns about memory that must not be written.
    safe = native.flags.writeable and all(step >= 0 for step in native.strides)
    return torch.from_numpy(native if safe else native.copy())


def _wide(x: Tensor, name: str) -> Tensor:
    if x.dtype not in _WRAPPING:
        return x
    wide = x.to(torch.int64)
    if x.dtype is torch.uint64 and bool((wide < 0).any()):
        raise invalid(
            f"{name} of type {x.dtype} with values of 2**63 or more",
            "integers below 2**63",
            "shift or rescale them",
        )
    return wide
