"""What posterior denoisers compute with: products with a denoiser's Jacobian, and linear equations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genmod.denoisers import Denoised, Denoiser
from genmod.shapes import event_sum, expand_like

Linear = Callable[[Tensor], Tensor]


def pullback(
    denoiser: Denoiser, z: Tensor, log_snr: Tensor, context: Tensor | None = None
) -> tuple[Denoised, Linear]:
    r"""What is said of ``z``, and the map from ``u`` to :math:`J^T u` with :math:`J = d\hat x / dz`.

    Gradients are taken whatever mode the caller is in (``no_grad``, ``inference_mode``), and none flow
    out: the network runs once, and each product costs one backward pass through it.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # Clones: tensors made in inference mode cannot be saved for a backward pass.
        leaf = z.detach().clone().requires_grad_()
        told = None if context is None else context.clone()
        said = denoiser(leaf, log_snr.detach().clone(), told)

    def pull(u: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(said.x_hat, leaf, u, retain_graph=True)
        return product

    variance, place = (
        None if p is None else p.detach() for p in (said.variance, said.interpolation)
    )
    return Denoised(said.x_hat.detach(), variance, place), pull


def conjugate_gradients(matrix: Linear, b: Tensor, iterations: int, least: float = 0.0) -> Tensor:
    """The solution of ``matrix(v) = b``, row by row, for a symmetric positive definite matrix.

    A row stops at its type's precision, and takes no step along a direction whose curvature is less than
    half of what the matrix is known to have. A network's Jacobian is neither symmetric nor positive, and
    one such direction makes a step that no later one takes back.

    Args:
        matrix: the product with a batch of vectors.
        b: ``(B, *event)``.
        iterations: at most so many products; as many as ``b`` has entries solve exactly.
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
    for _ in range(iterations):
        active = square > enough
        if not bool(active.any()):
            break
        image = matrix(direction)
        curvature = event_sum(direction * image)
        # Half: where the noise of y is all there is, curvature is its bound up to rounding.
        active = active & (curvature > 0.5 * least * event_sum(direction * direction))
        step = expand_like(torch.where(active, square / curvature, 0.0), b)
        v, rest = v + step * direction, rest - step * image
        before, square = square, event_sum(rest * rest)
        direction = rest + expand_like(torch.where(active, square / before, 0.0), b) * direction
    return v
