r"""Posterior denoisers: the mean of ``x`` given :math:`z_t` and a measurement :math:`y = Ax + sn`.

All are one formula, the measurement's correction of a Gaussian belief about ``x``:

.. math:: \mathbb{E}[x|z,y] \approx \hat x + V A^T (s^2 I + A C A^T)^{-1} (y - A\hat x), \qquad
    V = \mathrm{Cov}[x|z] = \frac{\sigma^2}{\alpha} J, \quad J = \frac{d\hat x}{dz}

(the second identity is Tweedie's, for the optimal denoiser). They differ in the covariance ``C`` that
they assume of ``x`` given ``z`` when they judge how much of the residual the belief explains.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genmod.checks import check_positive, require
from genmod.denoisers import Denoised, Denoiser
from genmod.denoisers.targets import NOISIEST, scales_of
from genmod.inverse.operators import Operator, check_measurement, check_rows
from genmod.schedules import Schedule
from genmod.shapes import PerSample, Real, event_sum, expand_like


class PosteriorDenoiser(Denoiser):
    """A denoiser conditioned on a measurement, for any sampler and any bound; it needs no training.

    Args:
        denoiser: of ``x`` given ``z`` alone; guided or not.
        operator: ``A``.
        y: the measurement, ``(B, *outputs)``, one a row, or one row for all. On the scale of the
            diffusion's real data: integers lie on [-1, 1] (:meth:`genmod.spec.DataSpec.center`). A bound
            that visits several levels of a row repeats its measurement, as do several joint draws.
        std: ``s``, of the measurement's noise; zero where it has none.
        iterations: products with the covariance that conjugate gradients may take, a backward pass of
            the network each. As many as ``y`` has entries solve exactly, up to rounding, if the Jacobian is
            that of an optimal denoiser; rows that are solved stop before. A blur with little noise needs
            the most. A trained network's Jacobian is no covariance, and many iterations may do harm.

    Raises:
        ValueError: a measurement of a wrong shape, a negative std, no iteration.
    """

    y: Tensor

    def __init__(
        self, denoiser: Denoiser, operator: Operator, y: Tensor, std: float, iterations: int = 20
    ) -> None:
        super().__init__()
        check_measurement(operator, y)
        require(
            0 <= std < float("inf"), f"std={std}", "std >= 0", "0 is a measurement without noise"
        )
        require(iterations >= 1, f"iterations={iterations}", "at least one", "20 are the default")
        self.denoiser, self.operator = denoiser, operator
        self.std, self.iterations = std, iterations
        self.register_buffer("y", y, persistent=False)

    @abstractmethod
    def assumed(self, u: Tensor, covariance: Linear, variance: Tensor) -> Tensor:
        r"""``C u``.

        Args:
            u: ``(B, *event)``.
            covariance: the product with the denoiser's own ``Cov[x|z]``.
            variance: :math:`\sigma^2` of the variance-preserving state, broadcast against ``u``.
        """

    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        """The mean of ``x`` given ``z`` and ``y``. No gradient flows through it.

        Its variance is the denoiser's own, of ``x`` given ``z`` alone: no less, in the mean, than the
        variance once ``y`` is known.
        """
        y = rows_of(self.operator, self.y, z, log_snr).to(z)
        denoised, pull = pullback(self._function(log_snr, context), z)
        x_hat = denoised.x_hat
        alpha, sigma = scales_of(log_snr, z)
        variance = sigma.square()

        def covariance(u: Tensor) -> Tensor:
            return variance / alpha * pull(u)

        def expected(v: Tensor) -> Tensor:
            inside = self.assumed(self.operator.adjoint(v), covariance, variance)
            return self.std**2 * v + self.operator(inside)

        residual = y - self.operator(x_hat)
        solved = conjugate_gradients(expected, residual, self.iterations, self.std**2)
        return denoised._replace(x_hat=x_hat + covariance(self.operator.adjoint(solved)))

    def _function(self, log_snr: Tensor, context: Tensor | None) -> Callable[[Tensor], Denoised]:
        """The denoiser as a function of the state, free of tensors made in inference mode."""

        def denoise(z: Tensor) -> Denoised:
            given = None if context is None else context.clone()
            return self.denoiser(z, log_snr.detach().clone(), given)

        return denoise

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that ends noisier than a covariance can be read from a Jacobian at."""
        self.denoiser.check(schedule)
        noisy = schedule.log_snr_range()[1]
        require(
            noisy >= NOISIEST,
            f"{type(self).__name__} under a schedule that ends at log-SNR {noisy:g}",
            f"an end of {NOISIEST:g} or above",
            "its covariance divides by alpha, which is nothing there: sample from a later time, or "
            "with inverse.DPS or inverse.RePaint",
        )

    def extra_repr(self) -> str:
        """The settings."""
        return f"std={self.std}, iterations={self.iterations}"


class MMPS(PosteriorDenoiser):
    r"""Moment matching posterior sampling: :math:`C = \mathrm{Cov}[x|z]`, the denoiser's own.

    Exact for Gaussian data, whatever their covariance and the operator. Each iteration of conjugate
    gradients is one backward pass.

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
        """The denoiser's own covariance."""
        return covariance(u)


class PiGDM(PosteriorDenoiser):
    r"""Pseudoinverse-guided diffusion: a multiple of the identity for ``C``.

    .. math:: C = r^2 I, \qquad r^2 = \frac{d^2\sigma^2}{d^2\alpha^2 + \sigma^2}

    That is ``Cov[x|z]`` of data :math:`\mathcal{N}(m, d^2 I)`, and for them the result is exact. It takes
    two passes of the network a step, whatever the operator. This is the paper's conditional score, with
    any sampler; the further weight that its algorithm 1 puts on the guidance is left out.

    Args:
        denoiser, operator, y, std, iterations: as for every posterior denoiser. Iterations need no
            passes here, and one is enough where :math:`A A^T` is a multiple of the identity.
        data_std: ``d``; the paper's is 1.

    Reference: Song, Vahdat, Mardani, Kautz, "Pseudoinverse-guided diffusion models for inverse problems"
    (2023), eqs. 6-8.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        y: Tensor,
        std: float,
        iterations: int = 50,
        data_std: float = 1.0,
    ) -> None:
        super().__init__(denoiser, operator, y, std, iterations)
        check_positive(data_std, "data_std")
        self.data_std = data_std

    def assumed(self, u: Tensor, covariance: Linear, variance: Tensor) -> Tensor:
        """A multiple of the identity."""
        spread = self.data_std**2
        return spread * variance / (spread * (1 - variance) + variance) * u


def rows_of(operator: Operator, y: Tensor, z: Tensor, log_snr: Tensor) -> Tensor:
    """The measurement of each row of ``z``: one for all as it is, one a row, or one a row of the data.

    A bound visits several levels of each row, one after another, so that the noise level changes from row
    to row of ``z``: each measurement is then repeated in place. Several joint draws of a batch are at one
    noise level, batch after batch: the measurements are then repeated as a whole.
    """
    check_rows(operator, y, z, repeated=True)
    if len(y) in (1, len(z)):
        return y
    count = len(z) // len(y)
    if bool((log_snr == log_snr[0]).all()):
        return y.repeat(count, *[1] * (y.ndim - 1))
    return y.repeat_interleave(count, 0)


Linear = Callable[[Tensor], Tensor]
_TINY = 1e-30
"""A length that no residual has: rows that are solved have one of zero."""


def pullback(denoise: Callable[[Tensor], Denoised], z: Tensor) -> tuple[Denoised, Linear]:
    r"""The denoiser's result for ``z``, and the product :math:`u \mapsto J^T u`, :math:`J = d\hat x / dz`.

    Gradients are taken whatever mode the caller is in (``no_grad``, ``inference_mode``), and none flow
    out: the network runs once, and each product costs one backward pass through it.

    Args:
        denoise: the denoiser as a function of the state alone, without tensors made in inference mode.
        z: the state, ``(B, *event)``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # A clone: a tensor made in inference mode cannot be saved for a backward pass.
        leaf = z.detach().clone().requires_grad_()
        denoised = denoise(leaf)

    def pull(u: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(denoised.x_hat, leaf, u, retain_graph=True)
        return product

    x_hat, *others = denoised
    kept = (None if part is None else part.detach() for part in others)
    return Denoised(x_hat.detach(), *kept), pull


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
