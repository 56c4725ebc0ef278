"""What tests of samplers share: data whose probability flow is known, and every sampler."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genmod.denoisers import Denoiser, EmpiricalDenoiser
from genmod.diffusion import FixedLarge
from genmod.samplers import (
    DDIM,
    IPNDM,
    Ancestral,
    DPMSolver,
    Euler,
    Heun,
    Sampler,
    StochasticHeun,
    UniPC,
)
from genmod.schedules import Schedule
from tests.oracles import GaussianData, real

FLOWS: list[Sampler] = [
    Euler(),
    Heun(),
    DDIM(),
    DPMSolver(order=1),
    DPMSolver(order=2),
    DPMSolver(order=3),
    DPMSolver(order=3, published=True),
    UniPC(order=1),
    UniPC(order=2),
    UniPC(order=3, scale="bh1"),
    IPNDM(order=2),
    IPNDM(order=4),
]
"""Without noise of their own: they go either way."""
CHAINS: list[Sampler] = [
    Ancestral(),
    Ancestral(variance=FixedLarge()),
    DDIM(eta=0.5),
    StochasticHeun(churn=4.0, noise=1.01),
    DPMSolver(order=1, sde=True),
    DPMSolver(order=2, sde=True),
]
EVERY = [*FLOWS, *CHAINS]
DEFAULTS: list[Sampler] = [
    Ancestral(),
    Euler(),
    DDIM(),
    DDIM(eta=1.0),
    DPMSolver(),
    DPMSolver(order=3),
    DPMSolver(sde=True),
    UniPC(),
    UniPC(order=3),
    IPNDM(),
    Heun(),
    StochasticHeun(),
]
"""Each sampler as it comes, and the orders that are its own."""


def flowed(data: GaussianData, z: Tensor, schedule: Schedule, t: float, s: float) -> Tensor:
    r"""The exact flow of Gaussian data: along each axis, in units of the marginal's std

    :math:`\sqrt{\alpha^2 l_i + \sigma^2}` around its mean, nothing moves.
    """

    def spread(time: float) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule.scales(real(time))
        return alpha, (alpha.square() * data.values + sigma.square()).sqrt()

    (alpha_t, std_t), (alpha_s, std_s) = spread(t), spread(s)
    along = (z - alpha_t * data.mean) @ data.vectors
    return alpha_s * data.mean + (along * std_s / std_t) @ data.vectors.T


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of Gaussians of one spread on the line."""

    points: Tensor
    weights: Tensor
    std: float

    @cached_property
    def denoiser(self) -> Denoiser:
        """The optimal one."""
        return EmpiricalDenoiser(self.points[:, None], self.weights.log(), self.std)

    def cdf(self, z: Tensor, schedule: Schedule, t: float) -> Tensor:
        """The probability of less than ``z``, ``(N, 1)``, of the data noised to a time."""
        alpha, sigma = schedule.scales(real(t))
        spread = (alpha.square() * self.std**2 + sigma.square()).sqrt()
        return torch.special.ndtr((z - alpha * self.points) / spread) @ self.weights[:, None]

    def flowed(self, z: Tensor, schedule: Schedule, t: float, s: float) -> Tensor:
        """The exact flow: on the line it keeps quantiles; by bisection."""
        wanted = self.cdf(z, schedule, t)
        low, high = torch.full_like(z, -20), torch.full_like(z, 20)
        for _ in range(70):
            middle = (low + high) / 2
            below = self.cdf(middle, schedule, s) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


MIXTURE = Mixture(real(-1.0, 1.5), real(0.5, 0.5), 0.4)
UNEVEN = Mixture(real(-1.0, 1.5), real(0.3, 0.7), 0.3)
