r"""The likelihood as an integral over log-SNR of the denoising error: I-MMSE.

Symbols: :math:`\lambda` the log-SNR, :math:`v = e^\lambda`, ``D`` dimensions, and the weighted error of a
denoiser :math:`e(\lambda) = v\,\mathbb{E}\|x - \hat x\|^2 = \mathbb{E}\|\varepsilon -
\hat\varepsilon\|^2`. The derivative of mutual information by the signal-to-noise ratio is half the
minimum mean square error. Hence

.. math:: -\log P(x) = \tfrac12 \int_0^\infty \mathrm{mmse}(x, v)\, dv
    = \tfrac12 \int_{-\infty}^{\infty} e(\lambda)\, d\lambda \qquad \text{(a mass)},

.. math:: -\log p(x) = \tfrac{D}{2} \log 2 \pi e - \tfrac12 \int_0^\infty
    \Big(\frac{D}{1 + v} - \mathrm{mmse}(x, v)\Big)\, dv \qquad \text{(a density)}.

The model's denoiser is used between the ends of its schedule. Beyond them the integral has a closed form,
which on average is never less than that of the best denoiser:

* noisier than the noisy end: the best denoiser of N(0, I) data, :math:`\hat x = \alpha z_t`. It gives
  :math:`\mathrm{KL}(q(z_1|x) \| N(0, I)) = \tfrac12[S \|x\|^2 - D S + D \log(1 + e^\lambda)]` with
  :math:`S = \mathrm{sigmoid}(\lambda)` at that end: the prior term of the bound;
* cleaner than the clean end: a :class:`Tail`. It takes the place of the decoder in the bound.

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
from genmod.checks import check_at_least, check_positive, invalid
from genmod.chunks import chunks, rows_per_chunk
from genmod.denoisers import Denoiser
from genmod.diffusion import DiffusionPrior, NoisingEncoder
from genmod.diffusion.noising import NoisingPosterior
from genmod.elbo import Measure, Stamp
from genmod.evaluation.batching import Ids, RowSet, in_chunks, require_finite
from genmod.evaluation.report import Report
from genmod.evaluation.scoring import Estimate, Scores
from genmod.model import LatentModel
from genmod.random.streams import stratified
from genmod.schedules.base import time_dtype
from genmod.signatures import checked
from genmod.tensors import event_sum, expand_like, repeat

PILOT = 64
"""Rows, and noise levels, of the pilot: a short run that finds where the integrand is large."""
EVEN = 0.2
"""The share of levels that is spread evenly over log-SNR, in case the pilot missed a peak."""


@checked
def immse(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    timesteps: int = 64,
    tail: Tail | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    name: str | None = None,
    progress: bool = False,
) -> Report:
    r"""Estimate ``log p(x)`` from the errors of a diffusion's denoiser: the I-MMSE integral.

    .. math:: -\log P(x) = \tfrac12 \int e^\lambda\, \mathbb{E}\|x - \hat x(z_\lambda)\|^2\, d\lambda

    With the best denoiser the mean is ``log p(x)``. With any other denoiser it is a lower bound.

    Two things keep the noise small. The log-SNRs are drawn, stratified, where a pilot run found the
    integrand large. The integrand of a density has a control variate: that of the best denoiser of N(0, I)
    data under the same noise, whose integral is known.

    Args:
        model: a diffusion with any number of steps. Only its denoiser and the ends of its schedule count.
        data: a data set, whose test part is scored, or rows ``(N, *event)``.
        context: what the denoiser is conditioned on, one row per sample.
        timesteps: the number of log-SNRs that each row visits.
        tail: the integral beyond the clean end. By default integers are rounded to the nearest value, and
            real data have a density that is flat over the remaining noise. :class:`NoTail` is for points
            that are far apart.
        seed: the seed of the noise.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its noise depends.
        name: the name in the report.
        progress: whether to show a progress bar.

    Returns:
        A report, stamped an estimate, with the terms of a diffusion's bound: ``steps`` is the integral
        between the ends, ``prior`` that beyond the noisy end, ``reconstruction`` minus that beyond the
        clean end.

    Raises:
        ValueError: a model that is not a diffusion of the data, or data that it cannot score.

    Reference: Kong, Brekelmans, Ver Steeg, "Information-theoretic diffusion" (2023), eqs. 8 and 10.

    >>> from genmod.models import Diffusion
    >>> report = immse(Diffusion(2, width=8), torch.randn(20, 2), timesteps=8)
    >>> report.stamp.value, list(report.terms)
    ('estimate', ['reconstruction', 'prior', 'steps'])
    """
    prior = _require_diffusion(model)
    check_at_least(timesteps, 1, "timesteps", "16 to 256 are common")
    rows, spec = RowSet.of(model, data, context, ids=ids), model.spec
    tail = tail or (IntegerTail(spec.width) if spec.is_integer else GaussianTail())
    clean, noisy = prior.schedule.log_snr_range()
    integrand = _Integrand(model, prior.denoiser, tail.measure is Measure.DENSITY)
    cells = _pilot(integrand, rows, (noisy, clean), seed, batch_size)

    def run(x: Tensor, context: Tensor | None) -> dict[str, Tensor]:
        steps, real = _integrate(integrand, x, context, cells, timesteps), integrand.real(x)
        at_noise = _standard(real, noisy)
        if integrand.relative:
            steps = steps + _standard(real, clean) - at_noise
        return {"prior": at_noise.double().cpu(), "steps": steps.double().cpu()}

    label = "I-MMSE" if progress else None
    pieces = in_chunks(model, rows, run, seed=seed, batch_size=batch_size, progress=label)
    terms = ("prior", "steps")
    nats = {term: rows.restore_order(torch.cat([each[term] for each in pieces])) for term in terms}
    rest = float(spec.standardize.log_det()) - tail.nats(clean, spec.size)
    beyond = torch.full((len(rows),), rest, dtype=torch.float64)
    scores = Scores(beyond, nats, {}, None, Stamp.ESTIMATE, tail.measure)
    require_finite(scores.terms)
    return Report(
        name=name or f"{type(model).__name__}, I-MMSE", dims=spec.size, samples=len(rows),
        value=Estimate.of(scores.value), stamp=scores.stamp, measure=scores.measure,
        terms={key: Estimate.of(each) for key, each in scores.terms.items()}, scores=scores,
        parameters=sum(p.numel() for p in prior.denoiser.parameters()),
    )  # fmt: skip


@dataclass(frozen=True)
class _Integrand:
    """Half the error of a denoiser; ``relative`` to the best denoiser of N(0, I) on the same noise."""

    model: LatentModel
    denoiser: Denoiser
    relative: bool

    def real(self, x: Tensor) -> Tensor:
        """The data on the scale on which they are noised."""
        posterior = self.model.posterior(x)
        assert isinstance(posterior, NoisingPosterior)
        return posterior.x

    def __call__(self, x: Tensor, log_snr: Tensor, context: Tensor | None) -> Tensor:
        """Nats per unit of log-SNR of each row at each of its levels, ``(B, L)``."""
        x = self.real(x)
        together = max(1, rows_per_chunk(tuple(x.shape[1:]), x.device) // len(x))
        parts = chunks(log_snr.shape[1], together)
        return torch.cat([self._some(x, log_snr[:, part], context) for part in parts], 1)

    def _some(self, x: Tensor, log_snr: Tensor, context: Tensor | None) -> Tensor:
        rows, levels = log_snr.shape
        # One draw per level, so that the noise does not depend on how many levels go through at once.
        eps = torch.stack([random.normal_like(x) for _ in range(levels)], 1).flatten(0, 1)
        x, flat = repeat(x, levels), log_snr.reshape(-1)
        alpha = expand_like(flat.sigmoid().sqrt(), x)
        z = alpha * x + expand_like((-flat).sigmoid().sqrt(), x) * eps
        context = None if context is None else repeat(context, levels)
        square = event_sum((x - self.denoiser(z, flat.to(x.dtype), context).x_hat).square())
        if self.relative:
            square = square - event_sum((x - alpha * z).square())
        return (0.5 * flat.exp() * square).reshape(rows, levels)


def _integrate(
    integrand: _Integrand,
    x: Tensor,
    context: Tensor | None,
    cells: tuple[Tensor, Tensor],
    timesteps: int,
) -> Tensor:
    """The integral over log-SNR of each row, ``(B,)``."""
    edges, mass = (each.to(x.device) for each in cells)
    reached = torch.cat([mass.new_zeros(1), mass.cumsum(0)])
    u = stratified(len(x), timesteps, edges.dtype, x.device)
    cell = (torch.searchsorted(reached, u, right=True) - 1).clamp(0, len(mass) - 1)
    width = edges[cell + 1] - edges[cell]
    level = edges[cell] + width * ((u - reached[cell]) / mass[cell]).clamp(0, 1)
    return (integrand(x, level, context) * width / mass[cell]).mean(1)


def _pilot(
    integrand: _Integrand,
    rows: RowSet,
    ends: tuple[float, float],
    seed: int,
    batch_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Equal cells of log-SNR, and the share of levels in each, proportional to its integrand."""
    device = integrand.model.device
    edges = torch.linspace(*ends, PILOT + 1, dtype=time_dtype(device), device=device)

    def run(x: Tensor, context: Tensor | None) -> Tensor:
        u = random.uniform((len(x), PILOT), edges.dtype, x.device)
        return integrand(x, edges[:-1] + u * edges.diff(), context).square().double()

    seed = random.streams.mix(seed, PILOT)
    some = rows.sample(PILOT, seed)
    pieces = in_chunks(integrand.model, some, run, seed=seed, batch_size=batch_size)
    size = torch.cat(pieces).mean(0).sqrt().to(edges.dtype)
    even, total = torch.full_like(size, 1 / PILOT), float(size.sum())
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
        got = f"a model with a {type(prior).__name__} as its prior"
        advice = "pass the nested diffusion and latents, or use evaluation.evaluate"
        raise invalid(got, "a diffusion of the data", advice)
    return prior


class Tail(ABC):
    """The I-MMSE integral beyond the clean end of a schedule: the nats from there to ``x`` itself."""

    measure: Measure
    """Whether the whole integral is then a log-mass or a log-density."""

    @abstractmethod
    def nats(self, log_snr: float, dims: int) -> float:
        """Nats per sample beyond a log-SNR."""


@dataclass(frozen=True)
class GaussianTail(Tail):
    r"""For real data: :math:`\hat x = z / \alpha` beyond the end, whose error is :math:`e(\lambda) = D`.

    .. math:: \tfrac{D}{2} \log \frac{2 \pi e}{v}

    The true integral differs by about :math:`D / 2v` if the density is flat over the clean end's noise.
    """

    measure = Measure.DENSITY

    def nats(self, log_snr: float, dims: int) -> float:
        return 0.5 * dims * (math.log(2 * math.pi) + 1 - log_snr)


@dataclass(frozen=True)
class NoTail(Tail):
    """For points so far apart that the clean end determines them without error: 0 nats."""

    measure = Measure.MASS

    def nats(self, log_snr: float, dims: int) -> float:
        return 0.0


@dataclass(frozen=True)
class IntegerTail(Tail):
    r"""For integers: beyond the end, the estimate of each entry is the nearest value.

    With ``Q`` the upper tail of N(0, 1), :math:`\phi` its density, and
    :math:`w_k = (k - \tfrac12) \cdot \text{width} \cdot \sqrt{v}`, the nats of an entry are

    .. math:: \sum_{k \ge 1} \frac{2}{k - 1/2}
        \left[(1 - w_k^2)\, Q(w_k) + w_k\, \phi(w_k)\right].

    Args:
        width: the distance between neighboring values, on the scale on which the data are noised.
    """

    width: float
    measure = Measure.MASS

    def __post_init__(self) -> None:
        check_positive(self.width, "width")

    def nats(self, log_snr: float, dims: int) -> float:
        # Terms with w > 40 are below the smallest float64.
        count = max(1, math.ceil(40 / (self.width * math.exp(log_snr / 2)) + 0.5))
        middle = torch.arange(1, count + 1, dtype=torch.float64) - 0.5
        w = middle * self.width * math.exp(log_snr / 2)
        density = torch.exp(-0.5 * w.square()) / math.sqrt(2 * math.pi)
        # Not ndtr(-w): it rounds to zero for w > 9, where the density beside it is still positive.
        upper = 0.5 * torch.special.erfc(w * math.sqrt(0.5))
        nats = (1 - w.square()) * upper + w * density
        return dims * float((2 / middle * nats).sum())
