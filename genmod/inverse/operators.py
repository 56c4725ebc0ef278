r"""Linear operators ``A`` of a measurement :math:`y = A x + \text{noise}`, each with its adjoint.

The adjoint is the transpose: :math:`\langle A x, u\rangle = \langle x, A^T u\rangle`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genmod.arrays import Rows, as_tensor
from genmod.checks import check_positive, check_real, invalid
from genmod.chunks import own_rows
from genmod.signatures import checked
from genmod.tensors import Real, Shape, size


class Operator(nn.Module, ABC):
    """The base class of linear operators, from events to measurements; ``outer @ inner`` composes two.

    Args:
        inputs: the shape of one event.
        outputs: the shape of its measurement.
    """

    def __init__(self, inputs: Shape, outputs: Shape) -> None:
        super().__init__()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    if TYPE_CHECKING:  # torch's own call is untyped

        def __call__(self, x: Real) -> Tensor: ...

    @abstractmethod
    def forward(self, x: Real) -> Tensor:
        """``A x``: ``(B, *inputs)`` to ``(B, *outputs)``."""

    @abstractmethod
    def adjoint(self, y: Real) -> Tensor:
        """The transpose: ``(B, *outputs)`` to ``(B, *inputs)``."""

    def __matmul__(self, inner: Operator) -> Composition:
        return Composition(self, inner)

    def extra_repr(self) -> str:
        """The shapes."""
        return f"{self.inputs} -> {self.outputs}"


class Exact:
    """A constant tensor that keeps its type, and is cast to the type and device of the data.

    It is not a buffer: ``model.float()`` would round a buffer, and ``model.double()`` not undo that.
    """

    def __init__(self, value: Tensor) -> None:
        with torch.inference_mode(False):
            self.value = value.detach().clone()
        self._cast: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def __call__(self, like: Tensor) -> Tensor:
        key = like.dtype, like.device
        if key not in self._cast:
            with torch.inference_mode(False):
                self._cast[key] = self.value.to(like.dtype).to(like.device)
        return self._cast[key]


class Composition(Operator):
    """One operator after another: ``(outer @ inner)(x) = outer(inner(x))``.

    Raises:
        ValueError: the inner operator does not give what the outer one takes.
    """

    def __init__(self, outer: Operator, inner: Operator) -> None:
        if outer.inputs != inner.outputs:
            raise invalid(
                f"an operator on {outer.inputs} after one that gives {inner.outputs}",
                "equal shapes",
                "the right one is applied first: Blur(...) before AveragePool(...) is pool @ blur",
            )
        super().__init__(inner.inputs, outer.outputs)
        self.outer, self.inner = outer, inner

    def forward(self, x: Real) -> Tensor:
        return self.outer(self.inner(x))

    def adjoint(self, y: Real) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))


class Mask(Operator):
    """Inpainting: the observed entries, as a vector.

    Args:
        observed: boolean, of the event's shape; True where an entry is measured.

    Raises:
        ValueError: a mask that is not boolean, or without a True.

    >>> Mask(torch.tensor([True, False, True]))(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 3.]])
    """

    observed: Tensor

    def __init__(self, observed: Rows) -> None:
        observed = as_tensor(observed, "observed")
        if observed.dtype is not torch.bool or not observed.any():
            raise invalid(
                f"a mask of type {observed.dtype} with {int(observed.sum())} entries observed",
                "torch.bool, with at least one True",
                "pass True where an entry is measured",
            )
        super().__init__(tuple(observed.shape), (int(observed.sum()),))
        self.register_buffer("observed", observed)

    def forward(self, x: Real) -> Tensor:
        return x[:, self.observed]

    def adjoint(self, y: Real) -> Tensor:
        x = y.new_zeros(len(y), *self.inputs)
        x[:, self.observed] = y
        return x


class Matrix(Operator):
    """A matrix on flattened events.

    Args:
        matrix: ``(measurements, entries)``.
        shape: the event's shape; a vector's by default.

    Raises:
        ValueError: columns that are not as many as the event has entries.

    >>> import torch
    >>> Matrix(torch.tensor([[1.0, 1.0, 0.0]]))(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3.]])
    """

    def __init__(self, matrix: Rows, shape: Shape | None = None) -> None:
        matrix = as_tensor(matrix, "matrix")
        check_real(matrix, name="matrix")
        if not (matrix.ndim == 2 and (shape is None or matrix.shape[1] == size(shape))):
            raise invalid(
                f"a matrix of shape {tuple(matrix.shape)} on events of shape {shape}",
                "(measurements, entries of the event)",
                "transpose it, or pass the event's shape",
            )
        super().__init__((matrix.shape[1],) if shape is None else shape, (len(matrix),))
        self.matrix = Exact(matrix)

    def forward(self, x: Real) -> Tensor:
        return x.flatten(1) @ self.matrix(x).T

    def adjoint(self, y: Real) -> Tensor:
        return (y @ self.matrix(y)).reshape(len(y), *self.inputs)


class Separable(Operator):
    """A separable operator: one matrix for each side of an event ``(C, *space)``.

    Args:
        shape: the event's shape.
        matrices: ``(outputs, inputs)`` for each side of the space.

    Raises:
        ValueError: matrices that do not fit the sides.
    """

    def __init__(self, shape: Shape, matrices: Sequence[Tensor]) -> None:
        space = tuple(shape)[1:]
        if len(space) == 0 or [m.shape[-1] for m in matrices] != list(space):
            raise invalid(
                f"matrices of shapes {[tuple(m.shape) for m in matrices]} for the shape {shape}",
                "an event (C, *space) and one matrix (outputs, side) for each side",
                "for vectors, use Matrix",
            )
        super().__init__(shape, (shape[0], *(len(m) for m in matrices)))
        self.matrices = [Exact(matrix) for matrix in matrices]

    def forward(self, x: Real) -> Tensor:
        for side, matrix in enumerate(self.matrices):
            x = _along(side + 2, matrix(x), x)
        return x

    def adjoint(self, y: Real) -> Tensor:
        for side, matrix in enumerate(self.matrices):
            y = _along(side + 2, matrix(y).T, y)
        return y


class AveragePool(Separable):
    """Super-resolution: the mean of each block of ``factor`` entries along every side.

    Args:
        shape: the event's shape, ``(C, *space)``.
        factor: the side of a block; it must divide every side of the space.

    Raises:
        ValueError: a factor that does not divide a side.

    >>> AveragePool((1, 4), 2)(torch.tensor([[[1.0, 3.0, 5.0, 7.0]]]))
    tensor([[[2., 6.]]])
    """

    @checked
    def __init__(self, shape: Shape, factor: int) -> None:
        if factor < 1 or not all(side % factor == 0 for side in shape[1:]):
            raise invalid(
                f"factor={factor} for the shape {shape}",
                "a factor that divides every side",
                "pad the data, or choose another factor",
            )
        blocks = torch.full((1, factor), 1 / factor, dtype=torch.float64)
        eyes = [torch.eye(side // factor, dtype=torch.float64) for side in shape[1:]]
        super().__init__(shape, [torch.kron(eye, blocks) for eye in eyes])


class Blur(Separable):
    """Deblurring: a Gaussian blur, cut off at four standard deviations.

    Args:
        shape: the event's shape, ``(C, *space)``.
        std: the standard deviation of the Gaussian, in entries.
        circular: whether the space is periodic. Otherwise it is mirrored at its edges
            (``c b a | a b c``), which keeps the mean.

    Raises:
        ValueError: a std that is not positive.
    """

    def __init__(self, shape: Shape, std: float, circular: bool = False) -> None:
        check_positive(std, "std")
        super().__init__(shape, [_blurring(side, std, circular) for side in shape[1:]])


def _along(axis: int, matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix applied along one axis."""
    return (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)


def _blurring(side: int, std: float, circular: bool) -> Tensor:
    """The matrix that blurs one side."""
    reach = max(1, math.ceil(4 * std))
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets.double() / std).square())
    places = torch.arange(side)[:, None] + offsets
    if circular:
        places = places.remainder(side)
    else:
        # A mirror repeats after two sides, so a kernel wider than the event is reflected several times.
        places = places.remainder(2 * side)
        places = torch.minimum(places, 2 * side - 1 - places)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    matrix.scatter_add_(1, places, (weights / weights.sum()).expand(side, -1))
    return matrix


def as_measurement(operator: Operator, y: Rows) -> Tensor:
    """A measurement as a tensor; refused unless it is what an operator gives, in real numbers."""
    y = as_tensor(y, "y")
    if not y.is_floating_point() or len(y) == 0 or tuple(y.shape[1:]) != operator.outputs:
        raise invalid(
            f"y of type {y.dtype} and shape {tuple(y.shape)}",
            f"real numbers, (B, {', '.join(map(str, operator.outputs))})",
            "measure data on the diffusion's own real scale: operator(model.encoder.real(x))",
        )
    check_real(y, name="y")
    return y


def measurements_of(operator: Operator, y: Tensor, z: Tensor, repeated: bool = False) -> Tensor:
    """The measurements of the states in a chunk: one for each, or for several, or one for all."""
    y = own_rows(y)
    if len(z) == 0 or tuple(z.shape[1:]) != operator.inputs:
        raise invalid(
            f"{len(z)} states of shape {tuple(z.shape[1:])} for {operator}",
            f"at least one row of the operator's inputs, {operator.inputs}",
            "build the operator for the shape of the diffusion's data",
        )
    if len(y) not in (1, len(z)) and (not repeated or len(z) % len(y) != 0):
        raise invalid(
            f"{len(y)} measurements for {len(z)} rows",
            "one for each row, or one for all",
            "repeat each measurement as often as it is sampled: y.repeat_interleave(n, 0)",
        )
    return y
