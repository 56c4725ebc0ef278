"""Gaussian inverse problems, whose posterior is known, and the exact law of an affine chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genmod.denoisers import Denoiser
from genmod.gaussian import kl_full
from genmod.inverse import Matrix, Operator
from genmod.schedules import Schedule
from tests.oracles import F64, GaussianData, condition, correlated, real


@dataclass(frozen=True, eq=False)
class Problem:
    """Gaussian data, an operator, a measurement of one row and its noise."""

    data: GaussianData
    operator: Operator
    y: Tensor
    std: float

    def matrix(self) -> Tensor:
        """The operator, entry by entry."""
        return self.operator(torch.eye(len(self.data.mean), dtype=F64)).T

    def posterior(self) -> GaussianData:
        """``p(x | y)``, by conditioning the joint Gaussian of ``(x, y)`` in NumPy."""
        a, covariance = self.matrix().numpy(), self.data.covariance.numpy()
        seen = a @ covariance @ a.T + self.std**2 * np.eye(len(a))
        joint = np.block([[covariance, covariance @ a.T], [a @ covariance, seen]])
        mean = self.data.mean.numpy()
        found = condition(np.concatenate([mean, a @ mean]), joint, self.y[0].numpy(), len(mean))
        left = torch.from_numpy(found[1])
        return GaussianData(torch.from_numpy(found[0]), 0.5 * (left + left.T))


def mixing(data: GaussianData | None = None, std: float = 0.3) -> Problem:
    """Two noisy mixtures of three correlated entries."""
    operator = Matrix(real(1.0, -0.5, 0.7, 0.2, 1.1, -0.4).reshape(2, 3)).double()
    return Problem(data or correlated(), operator, real(1.5, -0.8)[None], std)


def affine_law(
    denoiser: Denoiser, schedule: Schedule, steps: int, dims: int
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the ancestral chain's last state, for a denoiser affine in ``z``.

    The denoiser's matrix and shift at each step are read off ``dims + 1`` points: no draws.
    """
    eye, origin = torch.eye(dims, dtype=F64), torch.zeros(1, dims, dtype=F64)
    mean, covariance = torch.zeros(dims, dtype=F64), eye
    times = torch.linspace(0, 1, steps, dtype=F64)
    for i in range(steps - 1, 0, -1):
        s, t = times[i - 1 : i], times[i : i + 1]
        log_snr = schedule.log_snr(t).expand(dims + 1)
        said = denoiser(torch.cat([origin, eye]), log_snr).x_hat
        gain, shift = (said[1:] - said[:1]).T, said[0]
        bridge = schedule.bridge(s, t)
        move = bridge.coef_z * eye + bridge.coef_x * gain
        mean = move @ mean + bridge.coef_x * shift
        covariance = move @ covariance @ move.T + (2 * bridge.log_std).exp() * eye
    return mean, covariance


def nats_off(mean: Tensor, covariance: Tensor, exact: GaussianData) -> float:
    """``KL(found || exact)`` of two Gaussians."""
    trils = (torch.linalg.cholesky(c) for c in (covariance, exact.covariance))
    return float(kl_full(mean, next(trils), exact.mean, next(trils)))
