"""Checks at the border of the Gaussian closed forms, and the precision they are computed in.

Shapes and types cost nothing to check and are always checked. Values (is a std positive?) are read
from the device, which makes a GPU wait; they are not read inside :func:`genmod.checks.trusted`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.checks import can_read, require
from genmod.shapes import Shape

_HALF = (torch.float16, torch.bfloat16)


def in_float32(values: Tensor) -> Tensor:
    """``values`` in float32 if they came in half precision (under autocast, say), else as is."""
    return values.float() if values.dtype in _HALF else values


def same_shape(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors expanded to one shape, as torch broadcasts; else a ``ValueError``."""
    first = tensors[0].shape
    if all(tensor.shape == first for tensor in tensors[1:]):
        return tensors
    common_shape(*(tuple(tensor.shape) for tensor in tensors))
    expanded: tuple[Tensor, ...] = torch.broadcast_tensors(*tensors)
    return expanded


def common_shape(*shapes: Shape) -> Shape:
    """The shape that all ``shapes`` broadcast to; a ``ValueError`` if there is none."""
    try:
        return tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError as error:
        raise ValueError(
            f"got shapes {', '.join(map(str, shapes))}; expected shapes that broadcast to one; "
            "give the means and the stds the same shape, or size 1 where they are shared"
        ) from error


def check_std(std: Tensor, name: str) -> None:
    """Require every standard deviation to be positive and finite."""
    if not can_read(std):
        return
    broken = int((~((std > 0) & (std < torch.inf))).sum())
    require(
        broken == 0,
        f"{broken} values of {name} that are not positive and finite",
        "standard deviations above 0",
        "let the network give log_std and call the *_log_std form, which needs no check",
    )


def check_vector(mean: Tensor, dims: int, name: str) -> None:
    """Require ``mean`` to be ``(*batch, dims)``."""
    require(
        mean.ndim >= 1 and mean.shape[-1] == dims,
        f"{name} of shape {tuple(mean.shape)}",
        f"(*batch, {dims})",
        f"the last dimension of {name} must be the size of the matrix that goes with it",
    )


def check_matrix(matrix: Tensor, rows: int, columns: int, name: str) -> None:
    """Require ``matrix`` to be ``(*batch, rows, columns)``."""
    require(
        matrix.ndim >= 2 and tuple(matrix.shape[-2:]) == (rows, columns),
        f"{name} of shape {tuple(matrix.shape)}",
        f"(*batch, {rows}, {columns})",
        f"pass {name} with one row per output and one column per input",
    )


def check_tril(tril: Tensor, name: str) -> None:
    """Require a Cholesky factor: square, lower-triangular, with a positive finite diagonal."""
    require(
        tril.ndim >= 2 and tril.shape[-1] == tril.shape[-2] and tril.shape[-1] > 0,
        f"{name} of shape {tuple(tril.shape)}",
        "square matrices (*batch, D, D)",
        "pass the Cholesky factor: torch.linalg.cholesky(covariance)",
    )
    if not can_read(tril):
        return
    require(
        not bool(tril.triu(1).any()),
        f"{name} with entries above its diagonal",
        "a lower-triangular Cholesky factor of the covariance",
        "pass torch.linalg.cholesky(covariance), not the covariance itself",
    )
    check_std(tril.diagonal(dim1=-2, dim2=-1), f"the diagonal of {name}")


def no_autocast(like: Tensor) -> torch.autocast:
    """A block in which products of matrices keep their precision, also inside autocast."""
    return torch.autocast(like.device.type, enabled=False)
