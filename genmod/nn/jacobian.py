"""Products with the Jacobian of a network, in any mode: a vector at its output, pulled to the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Linear: TypeAlias = Callable[[Tensor], Tensor]
"""A linear function of a batch of vectors."""
Outputs: TypeAlias = Sequence[Tensor | None]

_DONATED = "donated buffer"
"""In torch's message about a compiled network whose backward pass frees what it has used."""


def pullback(
    function: Callable[[Tensor], Outputs], x: Tensor
) -> tuple[Tensor, list[Tensor | None], Linear]:
    r"""A function's first output, its others, and :math:`u \mapsto J^T u` for the first one's Jacobian.

    Gradients are taken whatever mode the caller is in (``no_grad``, ``inference_mode``), and none flow
    out. The function runs once, and each product costs one backward pass through it. A network compiled
    by ``torch.compile`` may allow one backward pass only: then each product runs it again.

    Args:
        function: of ``x`` alone, without tensors made in inference mode. It may give more than one output;
            the first is differentiated.
        x: ``(B, *event)``.

    >>> y, _, pull = pullback(lambda x: (3 * x.square(),), torch.tensor([[1.0, 2.0]]))
    >>> y, pull(torch.tensor([[1.0, 1.0]]))
    (tensor([[ 3., 12.]]), tensor([[ 6., 12.]]))
    """
    # A clone: a tensor made in inference mode cannot be saved for a backward pass.
    with torch.inference_mode(False):
        leaf = x.detach().clone().requires_grad_()
    outputs = _recorded(function, leaf)
    first, *others = (None if each is None else each.detach() for each in outputs)
    assert first is not None
    return first, others, _Pull(function, leaf, _first(outputs))


class _Pull:
    """The products of one Jacobian."""

    def __init__(self, function: Callable[[Tensor], Outputs], leaf: Tensor, output: Tensor) -> None:
        self.function, self.leaf, self.output, self.again = function, leaf, output, False

    def __call__(self, u: Tensor) -> Tensor:
        """Zero where the output does not depend on the input."""
        if not self.output.requires_grad:
            return torch.zeros_like(self.leaf)
        if not self.again:
            try:
                return self._product(self.output, u, retain=True)
            except RuntimeError as error:
                if _DONATED not in str(error):
                    raise
                self.again = True
        return self._product(_first(_recorded(self.function, self.leaf)), u, retain=False)

    def _product(self, output: Tensor, u: Tensor, retain: bool) -> Tensor:
        (found,) = torch.autograd.grad(
            output, self.leaf, u, retain_graph=retain, materialize_grads=True
        )
        return found


def _recorded(function: Callable[[Tensor], Outputs], leaf: Tensor) -> Outputs:
    with torch.inference_mode(False), torch.enable_grad():
        return function(leaf)


def _first(outputs: Outputs) -> Tensor:
    assert outputs[0] is not None
    return outputs[0]
