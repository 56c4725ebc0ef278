r"""Posterior denoisers: the mean of ``x`` given :math:`z_t` and a measurement :math:`y = Ax + sn`.

All use one formula, a linear-Gaussian update of ``x`` by the measurement:

.. math:: \mathbb{E}[x|z,y] \approx \hat x + V A^T (s^2 I + A C A^T)^{-1} (y - A\hat x), \qquad
    V = \mathrm{Cov}[x|z] = \frac{\sigma^2}{\alpha} J, \quad J = \frac{d\hat x}{dz}

(the identity for ``V`` is Tweedie's, for the optimal denoiser). They differ in ``C``, the covariance of
``x`` given ``z`` that they assume for the residual.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genmod.arrays import Rows
from genmod.checks import check_at_least, check_positive, invalid, whole_number
from genmod.denoisers import Denoised, Denoiser
from genmod.denoisers.targets import NOISIEST, scales_of
from genmod.inverse.operators import Operator, as_measurement, measurements_of
from genmod.nn.jacobian import Linear, pullback
from genmod.schedules import Schedule
from genmod.tensors import PerSample, Real, event_sum, expand_like


class PosteriorDenoiser(Denoiser):
    """The base class of posterior denoisers: a denoiser conditioned on a measurement, without training.

    It works with any sampler and any bound.

    Args:
        denoiser: the denoiser of ``x`` given ``z``; guided or not.
        operator: ``A``.
        y: the measurement, ``(B, *outputs)``, one for each row, or one for all. It is on the scale of the
            diffusion's real data: integers lie on [-1, 1] (:meth:`genmod.spec.DataSpec.center`). Where a
            row is denoised at several levels, its measurement is repeated. For several joint draws of a
            batch, repeat ``y`` as the rows are.
        std: ``s``, the standard deviation of the measurement's noise; 0 for none.
        iterations: the largest number of iterations of conjugate gradients, each with one backward pass of
            the network. For an optimal denoiser, as many as ``y`` has entries give the exact solution; a
            row that is solved stops earlier. A blur with little noise needs the most. The Jacobian of a
            trained network is not exactly a covariance, and too many iterations can make results worse.

    Raises:
        ValueError: a measurement of a wrong shape, a negative std, no iteration.
    """

    y: Tensor

    def __init__(
        self, denoiser: Denoiser, operator: Operator, y: Rows, std: float, iterations: int = 20
    ) -> None:
        super().__init__()
        y = as_measurement(operator, y)
        if not 0 <= std < float("inf"):
            raise invalid(f"std={std}", "std >= 0", "pass 0 for a measurement without noise")
        iterations = whole_number(iterations, "iterations")
        check_at_least(iterations, 1, "iterations", "20 are the default")
        self.denoiser, self.operator = denoiser, operator
        self.std, self.iterations = std, iterations
        self.register_buffer("y", y, persistent=False)

    @abstractmethod
    def assumed(self, u: Tensor, covariance: Linear, variance: Tensor) -> Tensor:
        r"""The product ``C u`` with the assumed covariance.

        Args:
            u: ``(B, *event)``.
            covariance: the product with ``Cov[x|z]`` by the denoiser's Jacobian.
            variance: :math:`\sigma^2` of the variance-preserving state, broadcast against ``u``.
        """

    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        """The mean of ``x`` given ``z`` and ``y``, without gradients.

        The variance in the result is the denoiser's, of ``x`` given ``z``. On average it is not smaller
        than the variance given ``y`` too.
        """
        y = rows_of(self.operator, self.y, z, log_snr).to(z)
        x_hat, others, pull = pullback(self._function(log_snr, context), z)
        alpha, sigma = scales_of(log_snr, z)
        variance = sigma.square()

        def covariance(u: Tensor) -> Tensor:
            return variance / alpha * pull(u)

        def expected(v: Tensor) -> Tensor:
            inside = self.assumed(self.operator.adjoint(v), covariance, variance)
            return self.std**2 * v + self.operator(inside)

        residual = y - self.operator(x_hat)
        solved = conjugate_gradients(expected, residual, self.iterations, self.std**2)
        return Denoised(x_hat + covariance(self.operator.adjoint(solved)), *others)

    def _function(self, log_snr: Tensor, context: Tensor | None) -> Callable[[Tensor], Denoised]:
        """The denoiser as a function of the state. Clones replace tensors made in inference mode."""

        def denoise(z: Tensor) -> Denoised:
            given = None if context is None else context.clone()
            return self.denoiser(z, log_snr.detach().clone(), given)

        return denoise

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule whose noisy end is too noisy to compute a covariance from a Jacobian."""
        self.denoiser.check(schedule)
        noisy = schedule.log_snr_range()[1]
        if not noisy >= NOISIEST:
            raise invalid(
                f"{type(self).__name__} under a schedule that ends at log-SNR {noisy:g}",
                f"an end of {NOISIEST:g} or above",
                "its covariance divides by alpha, about 0 there: take a schedule with a cleaner "
                "noisy end, or sample with inverse.DPS or inverse.RePaint",
            )

    def extra_repr(self) -> str:
        return f"std={self.std}, iterations={self.iterations}"


class MMPS(PosteriorDenoiser):
    r"""Moment matching posterior sampling: :math:`C = \mathrm{Cov}[x|z]`, the denoiser's own.

    It is exact for Gaussian data of any covariance, and any operator. Each iteration of conjugate
    gradients takes one backward pass.

    Reference: Rozet, Andry, Lanusse, Louppe, "Learning diffusion priors from observations by expectation
    maximization" (2024), eqs. 16-19.

    >>> import torch
    >>> from genmod.denoisers import GaussianDenoiser
    >>> from genmod.inverse import Mask
    >>> prior = GaussianDenoiser(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    >>> first = Mask(torch.tensor([True, False]))
    >>> posterior = MMPS(prior, first, y=torch.tensor([[1.0]]), std=0.0)
    >>> posterior(torch.zeros(1, 2), torch.tensor([-20.0])).x_hat
    tensor([[1.0000, 0.8000]])
    """

    def assumed(self, u: Tensor, covariance: Linear, variance: Tensor) -> Tensor:
        return covariance(u)


class PiGDM(PosteriorDenoiser):
    r"""Pseudoinverse-guided diffusion: a multiple of the identity for ``C``.

    .. math:: C = r^2 I, \qquad r^2 = \frac{d^2\sigma^2}{d^2\alpha^2 + \sigma^2}

    That is ``Cov[x|z]`` of data :math:`\mathcal{N}(m, d^2 I)`, for which the result is exact. A step takes
    one forward and one backward pass of the network, for any operator. It is the paper's conditional
    score, for any sampler. The additional weight of the guidance in its algorithm 1 is left out.

    Args:
        denoiser, operator, y, std, iterations: as for every posterior denoiser. Iterations take no passes
            of the network here. One is enough where :math:`A A^T` is a multiple of the identity.
        data_std: ``d``; 1 in the paper.

    Reference: Song, Vahdat, Mardani, Kautz, "Pseudoinverse-guided diffusion models for inverse problems"
    (2023), eqs. 6-8.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        y: Rows,
        std: float,
        iterations: int = 50,
        data_std: float = 1.0,
    ) -> None:
        super().__init__(denoiser, operator, y, std, iterations)
        check_positive(data_std, "data_std")
        self.data_std = data_std

    def assumed(self, u: Tensor, covariance: Linear, variance: Tensor) -> Tensor:
        spread = self.data_std**2
        return spread * variance / (spread * (1 - variance) + variance) * u


def rows_of(operator: Operator, y: Tensor, z: Tensor, log_snr: Tensor) -> Tensor:
    """The measurement of each row of ``z``, repeated where ``z`` has several rows for a row of the data.

    A bound visits several levels of each row: ``z`` then has all levels of the first row, then those of the
    second, and the noise level changes from row to row. Each measurement is repeated in place. Rows at one
    noise level may be that, or joint draws: copies of the batch, one after another. They are refused.

    Raises:
        ValueError: more rows than measurements at one noise level, or other numbers of them.
    """
    y = measurements_of(operator, y, z, repeated=True)
    if len(y) in (1, len(z)):
        return y
    count = len(z) // len(y)
    if bool((log_snr == log_snr[0]).all()):
        raise invalid(
            f"{len(z)} rows at one noise level for {len(y)} measurements",
            "one measurement for each row, or one for all",
            f"repeat them in the order of the rows: y.repeat({count}, ...) for joint draws, batch "
            f"after batch; y.repeat_interleave({count}, 0) for several visits to one level of "
            "each row",
        )
    return y.repeat_interleave(count, 0)


_TINY = 1e-30
"""A lower limit for the length of a residual, which is zero in rows that are solved."""


def conjugate_gradients(matrix: Linear, b: Tensor, iterations: int, least: float = 0.0) -> Tensor:
    """The solution of ``matrix(v) = b``, row by row, for a symmetric positive definite matrix.

    Each residual is made orthogonal to all earlier ones. In exact arithmetic it already is, and as many
    iterations as ``b`` has entries give the solution. In floating point it is not, and without this step
    ill-conditioned equations need several times as many.

    A row stops at the precision of its type. It takes no step along a direction whose curvature is below
    ``least / 2``: the Jacobian of a network is neither symmetric nor positive, and one step along such a
    direction goes so far that later steps do not correct it. The result is the last iterate whose residual
    is at most twice the smallest one, so that it is never worse than twice no step at all.

    Args:
        matrix: the product with a batch of vectors.
        b: ``(B, *event)``.
        iterations: the largest number of products.
        least: a lower bound on the eigenvalues of the matrix.

    Returns:
        The solution, ``(B, *event)``.

    Reference: Hestenes, Stiefel, "Methods of conjugate gradients for solving linear systems" (1952).

    >>> conjugate_gradients(lambda v: 2 * v, torch.tensor([[1.0, 4.0]]), iterations=1)
    tensor([[0.5000, 2.0000]])
    """
    v, rest, direction = torch.zeros_like(b), b, b
    square = event_sum(b * b)
    found, left, smallest = v, b, square
    enough = (10 * torch.finfo(b.dtype).eps) ** 2 * square
    earlier: list[Tensor] = []
    for _ in range(iterations):
        active = square > enough
        if not bool(active.any()):
            break
        image = matrix(direction)
        curvature = event_sum(direction * image)
        # Half: where the matrix is least * I, the curvature equals the bound up to rounding.
        active = active & (curvature > 0.5 * least * event_sum(direction * direction))
        step = expand_like(torch.where(active, square / curvature, 0.0), b)
        earlier.append(rest / expand_like(square.sqrt().clamp(min=_TINY), b))
        v, left = v + step * direction, left - step * image
        remaining = event_sum(left * left)
        # The residual itself; NaN compares as false. ``rest`` has lost what was not orthogonal.
        kept = expand_like(remaining <= 4 * smallest, b) > 0
        found = torch.where(kept, v, found)
        smallest = torch.fmin(smallest, remaining)
        rest = _orthogonal(rest - step * image, earlier)
        before, square = square, event_sum(rest * rest)
        direction = rest + expand_like(torch.where(active, square / before, 0.0), b) * direction
    return found


def _orthogonal(rest: Tensor, earlier: Sequence[Tensor]) -> Tensor:
    """A residual without its components along earlier residuals, each of length one."""
    for unit in earlier:
        rest = rest - expand_like(event_sum(rest * unit), rest) * unit
    return rest
