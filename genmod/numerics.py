r"""``expm1`` and ``log1p`` by vectorized operations, for the tensors of every training step.

On CPUs torch computes ``exp``, ``log`` and ``tanh`` with vector instructions, but ``expm1``, ``log1p``,
``logsigmoid`` and ``softplus`` number by number, about ten times as slowly. The functions here are made
of the fast ones, without branches, and lose at most a few units in the last place.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
