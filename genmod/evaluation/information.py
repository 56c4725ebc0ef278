r"""Likelihood as an integral over log-SNR of how well ``x`` can be told from its noised self.

Symbols: :math:`\lambda` the log-SNR, :math:`v = e^\lambda`, ``D`` dimensions, and the error of a denoiser
:math:`e(\lambda) = v\,\mathbb{E}\|x - \hat x\|^2 = \mathbb{E}\|\varepsilon - \hat\varepsilon\|^2`. Mutual
information grows with the signal-to-noise ratio at half the least mean square error, hence

.. math:: -\log P(x) = \tfrac12 \int_0^\infty \mathrm{mmse}(x, v)\, dv
    = \tfrac12 \int_{-\infty}^{\infty} e(\lambda)\, d\lambda \qquad \text{(discrete)},

.. math:: -\log p(x) = \tfrac{D}{2} \log 2 \pi e - \tfrac12 \int_0^\infty
    \Big(\frac{D}{1 + v} - \mathrm{mmse}(x, v)\Big)\, dv \qquad \text{(density)}.

A denoiser is trusted between the ends of its schedule; beyond them stand closed forms, each no less in
the mean than what the best denoiser would pay:

* noisier, the best denoiser of N(0, I), :math:`\hat x = \alpha z_t`, whose integral is
  :math:`\mathrm{KL}(q(z_1|x) \| N(0, I)) = \tfrac12[S \|x\|^2 - D S + D \log(1 + e^\lambda)]` at that
  end, :math:`S = \mathrm{sigmoid}(\lambda)`: the prior term of the bound;
* cleaner, an :class:`Tail`.

The integral is therefore the continuous-time variational bound, read without a decoder.

Reference: Guo, Shamai, Verdu, "Mutual information and minimum mean-square error in Gaussian channels"
(2005), theorem 1; Kong, Brekelmans, Ver Steeg, "Information-theoretic diffusion" (2023), eqs. 8 and 10.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genmod import random
from genmod.checks import check_positive, require, trusted
from genmod.denoisers import Denoiser
from genmod.diffusion import DiffusionPrior, NoisingEncoder
from genmod.elbo import Measure, Stamp
from genmod.evaluation.report import Estimate, Report
from genmod.evaluation.scoring import Scores, evaluating
from genmod.model import LatentModel
from genmod.schedules import time_dtype
from genmod.shapes import event_sum, expand_like, repeat, size

STATES = 8192
"""Noised states that go through the network together."""
PILOT = 64
"""Rows, and levels, that are spent on finding out where the integral is."""
EVEN = 0.2
"""The part of the visits that is spread evenly, in case the pilot has missed something."""


class Tail(ABC):
    """What ``x`` still costs once it is known up to the noise of the clean end."""

    measure: Measure
    """What the integral is with this ending."""

    @abstractmethod
    def nats(self, log_snr: float, dims: int) -> float:
        """Nats a sample beyond a log-SNR."""


@dataclass(frozen=True)
class GaussianTail(Tail):
    r"""Data with a density: beyond the end, the noised state is taken for ``x``, :math:`e = D`.

    .. math:: \tfrac{D}{2} \log \frac{2 \pi e}{v}

    The true remainder differs from it by about :math:`\tfrac{D}{2 v}` where the density is flat over the
    noise that is left.
    """

    measure = Measure.DENSITY

    def nats(self, log_snr: float, dims: int) -> float:
        """Nats a sample beyond a log-SNR."""
        return 0.5 * dims * (math.log(2 * math.pi) + 1 - log_snr)


@dataclass(frozen=True)
class NoTail(Tail):
    """Points that the clean end tells apart without error: nothing is left."""

    measure = Measure.MASS

    def nats(self, log_snr: float, dims: int) -> float:
        """Nats a sample beyond a log-SNR."""
        return 0.0


@dataclass(frozen=True)
class IntegerTail(Tail):
    r"""Entries on a grid: beyond the end, each is rounded to the nearest level.

    With ``Q`` the upper tail of N(0, 1), :math:`\phi` its density, and
    :math:`w_k = (k - \tfrac12) \cdot \text{width} \cdot \sqrt{v}`, rounding costs an entry

    .. math:: \sum_{k \ge 1} \frac{2}{k - 1/2}
        \left[(1 - w_k^2)\, Q(w_k) + w_k\, \phi(w_k)\right].

    Args:
        width: the distance between neighboring levels, in the units of what is noised.
    """

    width: float
    measure = Measure.MASS

    def __post_init__(self) -> None:
        check_positive(self.width, "width")

    def nats(self, log_snr: float, dims: int) -> float:
        """Nats a sample beyond a log-SNR."""
        # Until w passes 40 standard deviations, where the tail is below the smallest number.
        count = max(1, math.ceil(40 / (self.width * math.exp(log_snr / 2)) + 0.5))
        middle = torch.arange(1, count + 1, dtype=torch.float64) - 0.5
        w = middle * self.width * math.exp(log_snr / 2)
        density = torch.exp(-0.5 * w.square()) / math.sqrt(2 * math.pi)
        # Not ndtr(-w), which is zero from w = 9 on: the density beside it is not.
        upper = 0.5 * torch.special.erfc(w * math.sqrt(0.5))
        left = (1 - w.square()) * upper + w * density
        return dims * float((2 / middle * left).sum())


def immse(
    model: LatentModel,
    x: Tensor,
    context: Tensor | None = None,
    *,
    draws: int = 64,
    left: Tail | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    r"""Estimate ``log p(x)`` by the I-MMSE integral of a diffusion's denoiser.

    Each row visits ``draws`` log-SNRs in strata, where a pilot on other noise found the integrand
    large. A density's integrand is taken relative to that of the best denoiser of N(0, I) under the
    same noise, whose integral is known; what is integrated is then small wherever the two agree.

    With the optimal denoiser it is ``log p(x)`` of each row; with any other, its mean over data is a
    bound on theirs, as for the variational bound.

    Args:
        model: a diffusion in any number of steps; only its denoiser and its schedule's ends are used.
        x: data, ``(N, *event)``.
        context: what the denoiser is told beside each row.
        draws: log-SNRs that each row visits.
        left: what is taken for the rest beyond the clean end: by default :class:`IntegerTail` for integer
            data and :class:`GaussianTail` for real; :class:`NoTail` for points far apart.
        seed: the key of the noise.
        name: what the report calls it.

    Returns:
        An estimate, its terms those of a diffusion's bound: ``reconstruction`` is minus what is left
        beyond the clean end, ``prior`` what is paid beyond the noisy one, ``steps`` the integral.

    Raises:
        ValueError: a model that is no diffusion of the data themselves, or data that it cannot score.

    >>> from genmod.models import Diffusion
    >>> report = immse(Diffusion(2, width=8), torch.randn(20, 2), draws=8)
    >>> report.stamp.value, list(report.terms)
    ('estimate', ['reconstruction', 'prior', 'steps'])
    """
    prior = _require_diffusion(model)
    require(draws >= 1, f"draws={draws}", "at least one", "16 to 256 are customary")
    require(len(x) >= 1, "no data", "at least one sample", "check the split")
    model.decoder.check(x)
    spec = model.spec
    left = left or (IntegerTail(spec.width) if spec.is_integer else GaussianTail())
    clean, noisy = prior.schedule.log_snr_range()
    with evaluating(model), trusted():
        real = model.encoder.real(x.to(model.device))
        integrand = _Integrand(prior.denoiser, left.measure is Measure.DENSITY)
        steps = _integrate(integrand, real, context, (noisy, clean), draws, seed)
        if integrand.relative:
            steps = steps + _standard(real, clean) - _standard(real, noisy)
        nats = {"prior": _standard(real, noisy).cpu(), "steps": steps.cpu()}
    dims = size(prior.shape)
    reconstruction = torch.full((len(x),), -left.nats(clean, dims), dtype=torch.float64)
    scores = Scores(reconstruction, nats, {}, None, False, left.measure)
    terms = {"reconstruction": reconstruction, **nats}
    return Report(
        name=name or f"{type(model).__name__}, I-MMSE",
        value=Estimate.of(scores.value),
        stamp=Stamp.ESTIMATE,
        measure=left.measure,
        dims=dims,
        samples=len(x),
        terms={key: Estimate.of(each) for key, each in terms.items()},
        parameters=sum(p.numel() for p in prior.denoiser.parameters()),
        scores=scores,
    )


@dataclass(frozen=True)
class _Integrand:
    """Half the error of a denoiser; ``relative`` to the best denoiser of N(0, I) on the same noise."""

    denoiser: Denoiser
    relative: bool

    def __call__(self, x: Tensor, log_snr: Tensor, context: Tensor | None) -> Tensor:
        """Nats per unit of log-SNR of each row at each of its levels, ``(B, L)``."""
        rows, levels = log_snr.shape
        eps = random.normal((rows, levels, *x.shape[1:]), x.dtype, x.device).flatten(0, 1)
        x, flat = repeat(x, levels), log_snr.reshape(-1)
        alpha = expand_like(flat.sigmoid().sqrt(), x)
        z = alpha * x + expand_like((-flat).sigmoid().sqrt(), x) * eps
        told = None if context is None else repeat(context, levels)
        square = event_sum((x - self.denoiser(z, flat.to(x.dtype), told).x_hat).square())
        if self.relative:
            square = square - event_sum((x - alpha * z).square())
        return (0.5 * flat.exp() * square).reshape(rows, levels)


def _integrate(
    integrand: _Integrand,
    x: Tensor,
    context: Tensor | None,
    ends: tuple[float, float],
    draws: int,
    seed: int,
) -> Tensor:
    """The integral over log-SNR of each row, ``(N,)``."""
    told = None if context is None else context.to(x.device)
    edges, mass = _pilot(integrand, x[:PILOT], None if told is None else told[:PILOT], ends, seed)
    reached = torch.cat([mass.new_zeros(1), mass.cumsum(0)])
    block, found = max(1, STATES // draws), []
    for start in range(0, len(x), block):
        rows = slice(start, start + block)
        with random.keyed(seed, start=start, block=block):
            u = random.stratified(len(x[rows]), draws, edges.dtype, x.device)
            cell = (torch.searchsorted(reached, u, right=True) - 1).clamp(0, len(mass) - 1)
            width = edges[cell + 1] - edges[cell]
            level = edges[cell] + width * ((u - reached[cell]) / mass[cell]).clamp(0, 1)
            nats = integrand(x[rows], level, None if told is None else told[rows])
        found.append((nats * width / mass[cell]).mean(1))
    return torch.cat(found)


def _pilot(
    integrand: _Integrand,
    x: Tensor,
    context: Tensor | None,
    ends: tuple[float, float],
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Equal cells of log-SNR, and the part of the visits for each: as its integrand is large."""
    edges = torch.linspace(*ends, PILOT + 1, dtype=time_dtype(x.device), device=x.device)
    with random.keyed(random.mix(seed, PILOT)):
        u = random.uniform((len(x), PILOT), edges.dtype, x.device)
        size = integrand(x, edges[:-1] + u * edges.diff(), context).square().mean(0).sqrt()
    even = torch.full_like(size, 1 / PILOT)
    total = float(size.sum())
    return edges, even if total == 0 else EVEN * even + (1 - EVEN) * size / total


def _standard(x: Tensor, log_snr: float) -> Tensor:
    """The integral up to a log-SNR of the best denoiser of N(0, I): ``KL(q(z | x) || N(0, I))``."""
    level = torch.tensor(log_snr, dtype=time_dtype(x.device), device=x.device)
    signal, dims = level.sigmoid(), x[0].numel()
    square = event_sum(x.to(level.dtype).square())
    return 0.5 * (signal * (square - dims) + dims * F.softplus(level))


def _require_diffusion(model: LatentModel) -> DiffusionPrior:
    prior = model.prior
    if not isinstance(prior, DiffusionPrior) or not isinstance(model.encoder, NoisingEncoder):
        raise ValueError(
            f"got a model with a {type(prior).__name__} prior; expected a diffusion of the data "
            "themselves; pass the nested diffusion and latents, or use evaluation.evaluate"
        )
    return prior
