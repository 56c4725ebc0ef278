"""Tensors: their shapes, written once, and small operations on them.

A batch has its rows first, the rest is one event: ``B`` rows, ``L`` visited levels, ``*event`` whatever
shape one sample has. The names are checked at run time by the tests (jaxtyping with beartype).

On CPUs torch computes ``exp``, ``log`` and ``tanh`` with vector instructions, but ``expm1``, ``log1p``,
``logsigmoid`` and ``softplus`` number by number, about ten times as slowly. :func:`expm1` and
:func:`log1p_` are made of the fast ones, without branches, and lose at most a few units in the last place.

:func:`bound_in_order` saves what ``torch.autograd.Function.apply`` spends on small batches.
"""

from __future__ import annotations

import inspect
import math
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Size, Tensor

Shape: TypeAlias = tuple[int, ...]
Sizes: TypeAlias = Size | list[int] | tuple[int, ...]
"""What torch's distributions take for a sample shape."""
PerSample: TypeAlias = Float[Tensor, "B"]
PerLevel: TypeAlias = Float[Tensor, "B L"]
Batch: TypeAlias = Shaped[Tensor, "B *event"]
Real: TypeAlias = Float[Tensor, "B *event"]
Mask: TypeAlias = Bool[Tensor, "B *event"]
LatentTensors: TypeAlias = Tensor | tuple[Tensor, ...]
"""One latent, or the latents of a hierarchy in the order in which its prior draws them."""

HALF = (torch.bfloat16, torch.float16)
"""The half-precision types."""

Function = TypeVar("Function", bound=type[torch.autograd.Function])


def size(shape: Shape) -> int:
    """The number of dimensions of one event: the product of its shape.

    >>> size((1, 28, 28))
    784
    """
    return math.prod(shape)


def event_sum(values: Tensor) -> Tensor:
    """The sum over each row's event: ``(B, *event)`` to ``(B,)``."""
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def expand_like(scale: Tensor, batch: Tensor) -> Tensor:
    """One number a row, ``(B,)``, shaped and typed to broadcast against ``(B, *event)``."""
    return scale.to(batch.dtype).reshape(-1, *[1] * (batch.ndim - 1))


def copies(batch: Tensor, count: int) -> Tensor:
    """``count`` copies of all rows, one after another: ``(B, *event)`` to ``(count * B, *event)``."""
    return batch.repeat(count, *[1] * (batch.ndim - 1))


def repeat(batch: Tensor, times: int) -> Tensor:
    """Each row ``times`` times in a row: ``(B, *event)`` to ``(B * times, *event)``."""
    return batch if times == 1 else batch.repeat_interleave(times, 0)


def is_image(shape: Shape) -> bool:
    """Whether events are drawn as pictures: one or three channels of at least 4 x 4 pixels.

    >>> is_image((1, 28, 28)), is_image((64, 7, 7)), is_image((3,))
    (True, False, False)
    """
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= 4


def unexpanded(x: Tensor) -> Tensor:
    """A view of a tensor with size one along each dimension along which it was expanded.

    What depends on a scale alone is then computed once where all entries share the scale.

    >>> unexpanded(torch.zeros(3, 1).expand(3, 5)).shape
    torch.Size([3, 1])
    """
    for dim, stride in enumerate(x.stride()):
        if stride == 0 and x.shape[dim] > 1:
            x = x.narrow(dim, 0, 1)
    return x


def constant(x: Tensor) -> Tensor:
    """The tensor without its gradient: itself, if it has none."""
    return x.detach() if x.requires_grad else x


def expm1(x: Tensor) -> Tensor:
    r"""``exp(x) - 1``, accurate near zero: :math:`\tanh(x / 2)\,(e^x + 1)`.

    >>> expm1(torch.tensor([1e-9, 1.0]))
    tensor([1.0000e-09, 1.7183e+00])
    """
    return torch.mul(x, 0.5).tanh_().mul_(torch.exp(x).add_(1))


def log1p_(c: Tensor) -> Tensor:
    r"""``log(1 + c)`` for ``c`` of 0 or more, accurate near zero; overwrites its argument.

    With :math:`u = 1 + c` as it is rounded, it is :math:`\log u + (c - (u - 1)) / u`. The second term is
    what the rounding lost.

    Reference: Goldberg, "What Every Computer Scientist Should Know About Floating-Point Arithmetic"
    (1991), theorem 4, gives the same correction as a factor, which needs a branch at ``u = 1``.

    >>> log1p_(torch.tensor([1e-9, 1.0]))
    tensor([1.0000e-09, 6.9315e-01])
    """
    u = torch.add(c, 1)
    lost = c.sub_(torch.sub(u, 1)).div_(u)
    return u.log_().add_(lost)


class _Inputs(NamedTuple):
    """What :func:`inspect.Signature.bind` returns, as far as ``Function.apply`` reads it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def apply_defaults(self) -> None:
        """Nothing: every input was given."""


def _in_order(signature: inspect.Signature, *args: Any) -> _Inputs:
    """In place of :meth:`inspect.Signature.bind`, where all inputs are given in order."""
    return _Inputs(args, {})


_InOrder = type("_InOrder", (inspect.Signature,), {"bind": _in_order})


def bound_in_order(function: Function) -> Function:
    """A class decorator for a ``torch.autograd.Function`` that is called with all its inputs, in order.

    ``Function.apply`` inspects the signature of ``forward`` and binds the inputs to it in every call,
    which takes longer than the KL of a small batch.
    """
    forward = function.forward
    signature = _InOrder(list(inspect.signature(forward).parameters.values()))
    setattr(forward, "__signature__", signature)  # noqa: B010 - a plain assignment fails the type check
    return function
