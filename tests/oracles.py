r"""Exact answers that tests of diffusions share: Gaussian data, noise without chance.

Every term of a diffusion's bound is quadratic in its noise when the denoiser is linear, and then
its expectation is a mean over the two signs of one noise: :func:`over_signs` is an exact integral.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from genmod import random
from genmod.decoders import Decoder, GaussianDecoder, Identity
from genmod.denoisers import Denoised, Denoiser, GaussianDenoiser
from genmod.denoisers.base import denoise
from genmod.diffusion import DiffusionPrior, FixedLarge, NoisingEncoder
from genmod.diffusion import LastStepDecoder as DenoisedDecoder
from genmod.diffusion.variances import ReverseVariance
from genmod.elbo import Rate
from genmod.model import LatentModel
from genmod.models import Diffusion
from genmod.schedules import LinearLogSNR, Schedule
from genmod.tensors import expand_like

F64 = torch.float64


def real(*values: float) -> Tensor:
    """A vector in float64."""
    return torch.tensor(values, dtype=F64)


# ---------------------------------------------------------------------- noise without chance


@contextmanager
def constant_noise(event: Tensor) -> Iterator[None]:
    """Inside, every row of every standard normal draw is ``event``."""

    def normal(
        shape: tuple[int, ...],
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return event.to(dtype=dtype, device=device).expand(shape)

    with patch.object(random, "normal", normal), patch.object(random.streams, "normal", normal):
        yield


def over_signs(event: Tensor, term: Callable[[], Tensor]) -> Tensor:
    """The mean of ``term`` under the noises ``event`` and ``-event``.

    The expectation over N(0, I), exactly, where ``term`` is quadratic in each single noise and its
    square terms are those of a basis in which ``event`` has entries of size one.
    """
    with constant_noise(event):
        above = term()
    with constant_noise(-event):
        return 0.5 * (above + term())


# ---------------------------------------------------------------------- Gaussian data


@dataclass(frozen=True, eq=False)
class GaussianData:
    """``N(mean, covariance)`` in float64."""

    mean: Tensor
    covariance: Tensor

    @cached_property
    def values(self) -> Tensor:
        """The covariance's eigenvalues."""
        return torch.linalg.eigh(self.covariance).eigenvalues

    @cached_property
    def vectors(self) -> Tensor:
        """The covariance's eigenvectors, in columns."""
        return torch.linalg.eigh(self.covariance).eigenvectors

    @cached_property
    def law(self) -> MultivariateNormal:
        """The distribution."""
        return MultivariateNormal(self.mean, self.covariance)

    def denoiser(self) -> GaussianDenoiser:
        """The optimal denoiser."""
        return GaussianDenoiser(self.mean, self.covariance)

    def mmse(self, log_snr: Tensor) -> Tensor:
        r""":math:`E|x - E[x|z]|^2 = \sum_i l_i / (1 + v l_i)`, for each log-SNR."""
        return (self.values / (1 + log_snr.exp()[:, None] * self.values)).sum(-1)

    def steps(self, schedule: Schedule, count: int) -> float:
        r""":math:`L_T = \tfrac12\sum_i (v_{i-1} - v_i)\,\mathrm{mmse}(v_i)`, a Riemann sum."""
        log_snr = schedule.log_snr(torch.linspace(0, 1, count, dtype=F64))
        falls = log_snr[:-1].exp() - log_snr[1:].exp()
        return 0.5 * float((falls * self.mmse(log_snr[1:])).sum())

    def steps_limit(self, clean: float, noisy: float) -> float:
        r""":math:`L_\infty = \tfrac12\sum_i \log\frac{1 + v_0 l_i}{1 + v_1 l_i}`: its ends."""
        ends = (torch.log1p(math.exp(end) * self.values).sum() for end in (clean, noisy))
        return 0.5 * float(next(ends) - next(ends))

    def prior_nats(self, schedule: Schedule) -> float:
        """The mean over data of ``KL(q(z_1 | x) || N(0, I))``, variance preserving."""
        alpha, sigma = schedule.scales(real(1.0))
        second = alpha.square() * (self.values + (self.vectors.T @ self.mean).square())
        return 0.5 * float((second + sigma.square() - 1 - 2 * sigma.log()).sum())

    def mismatch(self, schedule: Schedule) -> float:
        """``KL(q(z_1) || N(0, I))``: what a chain of endlessly many steps still loses."""
        alpha, sigma = schedule.scales(real(1.0))
        variance = alpha.square() * self.values + sigma.square()
        mean = alpha * self.mean
        return 0.5 * float((variance - 1 - variance.log()).sum() + mean.square().sum())

    def axis_points(self) -> Tensor:
        """Two points whose mean of a quadratic (without mixed terms of axes) is the data's."""
        spread = self.vectors @ self.values.sqrt()
        return torch.stack([self.mean + spread, self.mean - spread])

    def mean_over_all(self, term: Callable[[Tensor], Tensor]) -> float:
        """The mean over data and noise of a quadratic without mixed terms of the axes."""
        points = self.axis_points()
        return float(over_signs(self.vectors.sum(1), lambda: term(points)).detach().mean())


def correlated(seed: int = 0, dims: int = 3) -> GaussianData:
    """Gaussian data with a mean and a full covariance, its eigenvalues from 0.2 to 3."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(dims, dims, generator=generator, dtype=F64))
    values = torch.linspace(0.2, 3.0, dims, dtype=F64)
    mean = torch.randn(dims, generator=generator, dtype=F64)
    covariance = (basis * values) @ basis.T
    return GaussianData(mean, 0.5 * (covariance + covariance.T))


def standard(dims: int) -> GaussianData:
    """N(0, I)."""
    return GaussianData(torch.zeros(dims, dtype=F64), torch.eye(dims, dtype=F64))


class ExactDecoder(Decoder):
    """The true ``p(x | z_0)`` of Gaussian data: the posterior's mean and covariance."""

    schedule: Schedule

    def __init__(self, data: GaussianData, schedule: Schedule) -> None:
        super().__init__(tuple(data.mean.shape))
        self.denoiser, self.schedule = data.denoiser(), schedule
        left = data.values / (1 + schedule.log_snr(real(0.0)).exp() * data.values)
        self.tril = torch.linalg.cholesky((data.vectors * left) @ data.vectors.T)

    def forward(self, state: Tensor, context: Tensor | None = None) -> MultivariateNormal:
        """The distribution of each row."""
        point = self.schedule.at(torch.zeros(len(state), dtype=F64))
        x_hat = denoise(self.denoiser, state, point).x_hat
        return MultivariateNormal(x_hat, scale_tril=self.tril, validate_args=False)

    def formula(self) -> str:
        """The decoder as it would stand on paper."""
        return "p(x | z_0) = q(x | z_0)"


def exact_diffusion(
    data: GaussianData, schedule: Schedule, steps: int | None, resolution: int = 256
) -> Diffusion:
    """The optimal denoiser and the exact decoder: only the steps' own law can be wrong."""
    model = Diffusion(
        denoiser=data.denoiser(),
        schedule=schedule,
        steps=steps,
        decoder=ExactDecoder(data, schedule),
    )
    model.diffusion.resolution = resolution
    return model.double()


def standard_diffusion(dims: int, schedule: Schedule, steps: int) -> LatentModel:
    """The diffusion of N(0, I) that is exact at every number of steps."""
    data, shape = standard(dims), (dims,)
    denoiser = data.denoiser()
    sigma = float(schedule.scales(real(0.0))[1])
    last = DenoisedDecoder(denoiser, schedule, GaussianDecoder(Identity(), shape, sigma))
    prior = DiffusionPrior(denoiser, schedule, shape, steps, FixedLarge())
    return LatentModel(NoisingEncoder(schedule), last, prior).double()


def log_weight_at(model: LatentModel, x: Tensor, latents: dict[str, Tensor]) -> Tensor:
    """``log p(x, z) - log q(z | x)`` at given latents, whatever order the prior draws them in."""
    path = model.prior.infer(model.encoder(x))
    total = torch.zeros(len(x), dtype=x.dtype)
    try:
        level = next(path)
        while True:
            z = latents[level.name]
            if level.q is not None:
                total = total - level.q.log_prob(z)
            if level.p is not None:
                total = total + level.p.log_prob(z)
            level = path.send(z)
    except StopIteration as end:
        return total + model.decoder(end.value).log_prob(x)


def condition(
    mean: np.ndarray, covariance: np.ndarray, given: np.ndarray, split: int
) -> tuple[np.ndarray, np.ndarray]:
    """The law of the first ``split`` entries of a joint Gaussian, given the others."""
    gain = np.linalg.solve(covariance[split:, split:], covariance[split:, :split]).T
    left = covariance[:split, :split] - gain @ covariance[split:, :split]
    return mean[:split] + gain @ (given - mean[split:]), left


# ---------------------------------------------------------------------- the finite chain's own law


def ancestral_law(
    data: GaussianData, schedule: Schedule, steps: int, variance: ReverseVariance
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the chain's last state under the optimal denoiser, step by step."""
    dims = len(data.mean)
    eye = torch.eye(dims, dtype=F64)
    mean, covariance = torch.zeros(dims, dtype=F64), eye
    times = torch.linspace(0, 1, steps, dtype=F64)
    denoiser = data.denoiser()
    for i in range(steps - 1, 0, -1):
        s, t = times[i - 1 : i], times[i : i + 1]
        alpha, sigma = schedule.scales(t)
        bridge = schedule.bridge(s, t)
        inner = alpha.square() * data.covariance + sigma.square() * eye
        gain = alpha * data.covariance @ torch.linalg.inv(inner)
        move = bridge.coef_z * eye + bridge.coef_x * gain
        mean = move @ mean + bridge.coef_x * (data.mean - alpha * gain @ data.mean)
        # A Gaussian's variance does not depend on the state: any will do.
        said = denoise(denoiser, data.mean[None], schedule.at(t))
        noise = (2 * (bridge.log_std + variance.log_std_ratio(bridge, said)[0])).exp()
        covariance = move @ covariance @ move.T + noise * eye
    return mean, covariance


# ---------------------------------------------------------------------- schedules of other scales


class VarianceExploding(Schedule):
    """A log-SNR of another schedule with ``alpha = 1``: the state grows as noise is added."""

    variance_preserving = False

    def __init__(self, inner: Schedule) -> None:
        super().__init__()
        self.inner = inner

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    def log_snr(self, t: Tensor) -> Tensor:
        """The other schedule's."""
        return self.inner.log_snr(t)

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(log_snr), (-0.5 * log_snr).exp()


class RectifiedFlow(VarianceExploding):
    """A log-SNR of another schedule with ``alpha + sigma = 1``."""

    def _scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return (0.5 * log_snr).sigmoid(), (-0.5 * log_snr).sigmoid()


class Bent(Denoiser):
    """A denoiser neither linear nor optimal: what holds for any denoiser must hold for it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(real(0.8)[0])

    def forward(self, z: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Denoised:
        """A squashed state, less of it the noisier it is."""
        kept = expand_like(log_snr.sigmoid(), z)
        return Denoised(self.scale * kept * torch.tanh(z + 0.3) + 0.1 * z.roll(1, -1))


MILD = LinearLogSNR(4.0, -4.0)


def bent(steps: int | None, schedule: Schedule = MILD) -> LatentModel:
    """A diffusion of two dimensions with a :class:`Bent` denoiser."""
    prior = DiffusionPrior(Bent(), schedule, (2,), steps)
    return LatentModel(
        NoisingEncoder(schedule), GaussianDecoder(Identity(), (2,), 0.5), prior
    ).double()


def steps_of(model: LatentModel, x: Tensor, timesteps: int | None = None) -> Rate:
    """The rate of the denoising steps."""
    return model.elbo(x, timesteps).rates["steps"]
