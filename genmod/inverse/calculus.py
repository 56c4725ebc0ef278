"""Linear equations, which posterior denoisers solve."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genmod.nn.jacobian import Linear
from genmod.shapes import event_sum, expand_like

_TINY = 1e-30
"""A length that no residual has: rows that are solved have one of zero."""


def conjugate_gradients(matrix: Linear, b: Tensor, iterations: int, least: float = 0.0) -> Tensor:
    """The solution of ``matrix(v) = b``, row by row, for a symmetric positive definite matrix.

    Each residual is made orthogonal to all earlier ones. In exact arithmetic it is so by itself, and as
    many iterations as ``b`` has entries solve exactly; in floating point it is not, and without this step
    ill-conditioned equations need several times as many.

    A row stops at its type's precision, and takes no step along a direction whose curvature is less than
    half of what the matrix is known to have. A network's Jacobian is neither symmetric nor positive, and
    one such direction makes a step that no later one takes back.

    Args:
        matrix: the product with a batch of vectors.
        b: ``(B, *event)``.
        iterations: at most so many products; as many as ``b`` has entries solve up to rounding.
        least: a bound from below on the matrix's eigenvalues.

    Returns:
        The solution, ``(B, *event)``.

    Reference: Hestenes, Stiefel, "Methods of conjugate gradients for solving linear systems" (1952).

    >>> conjugate_gradients(lambda v: 2 * v, torch.tensor([[1.0, 4.0]]), iterations=1)
    tensor([[0.5000, 2.0000]])
    """
    v, rest, direction = torch.zeros_like(b), b, b
    square = event_sum(b * b)
    enough = (10 * torch.finfo(b.dtype).eps) ** 2 * square
    earlier: list[Tensor] = []
    for _ in range(iterations):
        active = square > enough
        if not bool(active.any()):
            break
        image = matrix(direction)
        curvature = event_sum(direction * image)
        # Half: where the noise of y is all there is, curvature is its bound up to rounding.
        active = active & (curvature > 0.5 * least * event_sum(direction * direction))
        step = expand_like(torch.where(active, square / curvature, 0.0), b)
        earlier.append(rest / expand_like(square.sqrt().clamp(min=_TINY), b))
        v, rest = v + step * direction, _orthogonal(rest - step * image, earlier)
        before, square = square, event_sum(rest * rest)
        direction = rest + expand_like(torch.where(active, square / before, 0.0), b) * direction
    return v


def _orthogonal(rest: Tensor, earlier: Sequence[Tensor]) -> Tensor:
    """What is left of a residual without its components along earlier ones, each of length one."""
    for unit in earlier:
        rest = rest - expand_like(event_sum(rest * unit), rest) * unit
    return rest
