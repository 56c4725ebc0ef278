r"""Optimal denoisers in closed form: what a network is trained to approximate.

The optimal denoiser is :math:`\mathbb{E}[x | z_t]`, an average over *all* data, each weighted by its
probability given :math:`z_t`. That is why :math:`q(x_{t-1} | x_t)` depends on the entire data set, while
:math:`q(x_{t-1} | x_t, x_0)` does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.checks import check_at_least, check_real, invalid
from genmod.denoisers.base import Denoised, Denoiser
from genmod.denoisers.targets import scales_of
from genmod.gaussian.full import no_autocast
from genmod.schedules.base import time_dtype
from genmod.tensors import PerSample, Real


class GaussianDenoiser(Denoiser):
    r"""The optimal denoiser of :math:`x \sim \mathcal{N}(\mu, \Sigma)`.

    .. math:: \mathbb{E}[x|z] = \mu + \alpha\Sigma(\alpha^2\Sigma + \sigma^2 I)^{-1}(z - \alpha\mu),
        \qquad \mathrm{Cov}[x|z] = \sigma^2\Sigma(\alpha^2\Sigma + \sigma^2 I)^{-1}

    Args:
        mean: ``(d,)``.
        covariance: ``(d, d)``, positive semi-definite.
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        dims = mean.shape[0] if mean.ndim == 1 else -1
        if covariance.shape != (dims, dims) or not mean.is_floating_point():
            raise invalid(
                f"a mean of type {mean.dtype} and shape {tuple(mean.shape)}, a covariance of "
                f"shape {tuple(covariance.shape)}",
                "real numbers of shapes (d,) and (d, d)",
                "flatten the events, and convert integers with .double()",
            )
        check_real(mean, name="the mean")
        check_real(covariance, name="the covariance")
        # Autograd could not use buffers that were made in inference mode.
        with torch.inference_mode(False):
            values, vectors = torch.linalg.eigh(covariance.clone())
            # An eigenvalue of zero is computed as about +-1e-7 of the largest one in float32.
            rounding = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
            if not values[0] >= -rounding:
                raise invalid(
                    f"a covariance with eigenvalue {float(values[0]):g}",
                    "a positive semi-definite one",
                    "symmetrize it, or add a ridge",
                )
            self.register_buffer("mean", mean.clone())
            self.register_buffer("values", values.clamp(min=0))
            self.register_buffer("vectors", vectors)

    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        """The posterior mean of each row, and its variance per entry (the covariance's diagonal)."""
        # In the type of the state, also where the model is in half precision: that is for networks.
        with no_autocast(z):
            center, values, vectors = (
                t.to(z.dtype) for t in (self.mean, self.values, self.vectors)
            )
            alpha, sigma = scales_of(log_snr, z)
            share = values / (alpha.square() * values + sigma.square())
            along = (z - alpha * center) @ vectors
            mean = center + (alpha * share * along) @ vectors.T
            return Denoised(mean, (sigma.square() * share) @ vectors.square().T)


class EmpiricalDenoiser(Denoiser):
    r"""The optimal denoiser of the uniform distribution over ``N`` points.

    .. math:: \mathbb{E}[x|z] = \sum_n w_n x_n, \qquad
        w = \mathrm{softmax}_n\left(-\frac{\|z - \alpha x_n\|^2}{2\sigma^2}\right)

    Args:
        points: ``(N, *event)``: the entire data set.
        log_weights: the logarithms of the points' probabilities, ``(N,)``, up to a constant; equal by
            default.
        std: the standard deviation around each point, for a mixture of isotropic Gaussians; 0 by default.
    """

    center: Tensor
    points: Tensor
    log_weights: Tensor

    def __init__(self, points: Tensor, log_weights: Tensor | None = None, std: float = 0.0) -> None:
        super().__init__()
        check_at_least(std, 0, "std", "pass 0 for bare points")
        if not points.is_floating_point() or points.ndim < 2 or len(points) == 0:
            raise invalid(
                f"points of type {points.dtype} and shape {tuple(points.shape)}",
                "at least one point of real numbers, (N, *event)",
                "integers become real by model.encoder.real(x), or by .double()",
            )
        check_real(points, name="points")
        if log_weights is None:
            log_weights = torch.zeros(len(points), dtype=points.dtype, device=points.device)
        with torch.inference_mode(False):
            self.register_buffer("center", points.clone().mean(0))
            self.register_buffer("points", points.clone())
            self.register_buffer("log_weights", log_weights.clone())
        self.std = std

    def forward(self, z: Real, log_snr: PerSample, context: Tensor | None = None) -> Denoised:
        # Around their mean, and in float64 where there is one: squares of large numbers drown the
        # distances between them.
        wide = time_dtype(z.device)
        center = self.center.flatten().to(wide)
        points = self.points.flatten(1).to(wide) - center
        alpha, sigma = scales_of(log_snr.to(wide), points)
        flat = z.flatten(1).to(wide) - alpha * center
        spread = (alpha * self.std).square() + sigma.square()
        # |z - alpha x|^2 without |z|^2, which is the same for every point.
        explains = alpha * (flat @ points.T) - 0.5 * alpha.square() * points.square().sum(1)
        weights = (explains / spread + self.log_weights).softmax(-1)
        shrink = alpha * self.std**2 / spread
        keep = 1 - alpha * shrink
        mean = keep * (weights @ points) + shrink * flat
        among = weights @ points.square() - (weights @ points).square()
        # The difference of squares can round below zero where one point has all the weight.
        second = keep.square() * among.clamp(min=0)
        within = self.std**2 * sigma.square() / spread
        x_hat = center + mean
        return Denoised(x_hat.reshape(z.shape).to(z), (second + within).reshape(z.shape).to(z))
