"""The linear-Gaussian model: joint, marginal and posterior are Gaussian, in closed form.

Symbols: z ~ N(mean, L L^T) and x | z ~ N(A z + b, R R^T), with A the ``weight``, b the ``bias``, L
the ``tril`` and R the ``noise_tril``. Marginal and posterior come from one orthogonal matrix
Q applied to the square roots,

    [ A L  R ]       [ S    0 ]
    [ L    0 ]  Q  = [ G S  P ]

with S S^T = A L L^T A^T + R R^T the covariance of x, G the gain, and P P^T the covariance of z
given x. (To check it, multiply each side by its own transpose.) Nothing is subtracted and no
covariance is formed. So P stays a Cholesky factor where rounding would make L L^T - G S S^T G^T
indefinite.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genmod.gaussian.full import check_matrix, check_tril, check_vector, no_autocast
from genmod.gaussian.kernels import common_shape, in_float32


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """The linear-Gaussian model, probabilistic PCA and factor analysis among its special cases.

        z ~ N(mean, tril tril^T),    x | z ~ N(weight z + bias, noise_tril noise_tril^T)

    Args:
        mean: mean of z, ``(*batch, D)``; all batches broadcast.
        tril: Cholesky factor of the covariance of z, ``(*batch, D, D)``.
        weight: ``(*batch, K, D)``.
        bias: ``(*batch, K)``.
        noise_tril: Cholesky factor of the covariance of x given z, ``(*batch, K, K)``.

    Raises:
        ValueError: a factor is not lower-triangular with a positive diagonal, or shapes do not fit.

    Reference:
        Bishop (2006), Pattern recognition and machine learning, eqs 2.113 to 2.117;
        Kaminski, Bryson, Schmidt (1971), Discrete square root filtering, for the square roots.

    >>> one = torch.ones(1, 1)
    >>> model = LinearGaussian(torch.zeros(1), one, one, torch.zeros(1), one)
    >>> mean, tril = model.posterior(torch.ones(1))
    >>> mean, tril.square()
    (tensor([0.5000]), tensor([[0.5000]]))
    """

    mean: Tensor
    tril: Tensor
    weight: Tensor
    bias: Tensor
    noise_tril: Tensor

    def __post_init__(self) -> None:
        check_tril(self.tril, "tril")
        check_tril(self.noise_tril, "noise_tril")
        inputs, outputs = self.tril.shape[-1], self.noise_tril.shape[-1]
        check_vector(self.mean, inputs, "mean")
        check_matrix(self.weight, outputs, inputs, "weight")
        check_vector(self.bias, outputs, "bias")
        for name in ("mean", "tril", "weight", "bias", "noise_tril"):
            object.__setattr__(self, name, in_float32(getattr(self, name)))
        self._batch()

    def marginal(self) -> tuple[Tensor, Tensor]:
        """Mean ``(*batch, K)`` and factor ``(*batch, K, K)`` of x: N(A mean + b, S S^T)."""
        with no_autocast(self.mean):
            above = (self._shared(self.weight @ self.tril), self._shared(self.noise_tril))
            return self._expected(), lower_root(torch.cat(above, -1))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and Cholesky factor of z given x: N(mean + G (x - A mean - b), P P^T).

        Args:
            x: ``(*batch, K)``.

        Returns:
            Mean ``(*batch, D)`` and factor ``(*batch, D, D)``; the factor does not depend on x.

        Raises:
            ValueError: x is not ``(*batch, K)``.
        """
        x = in_float32(x)
        check_vector(x, self.noise_tril.shape[-1], "x")
        common_shape(tuple(x.shape[:-1]), self._batch())
        _, gain, tril = self._roots()
        with no_autocast(self.mean):
            return self.mean + _apply(gain, x - self._expected()), tril

    def reverse(self) -> LinearGaussian:
        """The same joint law with x first: x from its marginal, then z given x, which is affine in x.

        Its ``mean`` and ``tril`` are the marginal of x; its ``weight``, ``bias`` and ``noise_tril``
        are gain, offset and factor of the posterior: z | x ~ N(gain x + offset, P P^T).
        """
        marginal_tril, gain, tril = self._roots()
        with no_autocast(self.mean):
            expected = self._expected()
            return LinearGaussian(
                expected, marginal_tril, gain, self.mean - _apply(gain, expected), tril
            )

    def joint(self) -> tuple[Tensor, Tensor]:
        """Mean ``(*batch, D + K)`` and Cholesky factor of (z, x): [[L, 0], [A L, R]]."""
        with no_autocast(self.mean):
            tril, noise = self._shared(self.tril), self._shared(self.noise_tril)
            mean = self.mean.expand(*self._batch(), -1)
            top = torch.cat([tril, tril.new_zeros(*tril.shape[:-1], noise.shape[-1])], -1)
            below = torch.cat([self._shared(self.weight @ self.tril), noise], -1)
            return torch.cat([mean, self._expected()], -1), torch.cat([top, below], -2)

    def _roots(self) -> tuple[Tensor, Tensor, Tensor]:
        """Cholesky factor S of the marginal, gain G, Cholesky factor P of the posterior."""
        with no_autocast(self.mean):
            tril, noise = self._shared(self.tril), self._shared(self.noise_tril)
            outputs = noise.shape[-1]
            above = torch.cat([self._shared(self.weight @ self.tril), noise], -1)
            below = torch.cat([tril, tril.new_zeros(*tril.shape[:-1], outputs)], -1)
            root = lower_root(torch.cat([above, below], -2))
            marginal, cross = root[..., :outputs, :outputs], root[..., outputs:, :outputs]
            gain = torch.linalg.solve_triangular(marginal, cross, upper=False, left=False)
            return marginal, gain, root[..., outputs:, outputs:]

    def _expected(self) -> Tensor:
        """A mean + b, the mean of x."""
        return (_apply(self.weight, self.mean) + self.bias).expand(*self._batch(), -1)

    def _batch(self) -> tuple[int, ...]:
        vectors = (self.mean, self.bias)
        matrices = (self.tril, self.weight, self.noise_tril)
        return common_shape(
            *(tuple(vector.shape[:-1]) for vector in vectors),
            *(tuple(matrix.shape[:-2]) for matrix in matrices),
        )

    def _shared(self, matrix: Tensor) -> Tensor:
        """The matrix, expanded to the whole batch."""
        return matrix.expand(*self._batch(), *matrix.shape[-2:])


def lower_root(root: Tensor) -> Tensor:
    """The Cholesky factor of ``root root^T``, without forming that product.

    Args:
        root: ``(*batch, N, M)`` with N <= M and full row rank.

    Returns:
        Lower-triangular ``(*batch, N, N)`` with a positive diagonal.

    >>> lower_root(torch.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """
    rows = root.mT
    # Large rows first, which does not change the factor. With noise_tril = 1e-6 and tril = 1e6 in
    # float32, another order rounds the posterior's std of 1e-6 to zero.
    order = rows.abs().amax(-1, keepdim=True).argsort(-2, descending=True)
    triangle: Tensor = torch.linalg.qr(torch.take_along_dim(rows, order, -2)).R
    signs = torch.where(triangle.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(root.dtype)
    return (triangle * signs.unsqueeze(-1)).mT.tril()


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
