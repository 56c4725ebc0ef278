r"""Likelihood as an integral over log-SNR of the error with which ``x`` is predicted from ``z``.

Symbols: :math:`\lambda` the log-SNR, :math:`v = e^\lambda`, ``D`` dimensions, and the error of a denoiser
:math:`e(\lambda) = v\,\mathbb{E}\|x - \hat x\|^2 = \mathbb{E}\|\varepsilon - \hat\varepsilon\|^2`. Mutual
information grows with the signal-to-noise ratio at half the least mean square error, hence

.. math:: -\log P(x) = \tfrac12 \int_0^\infty \mathrm{mmse}(x, v)\, dv
    = \tfrac12 \int_{-\infty}^{\infty} e(\lambda)\, d\lambda \qquad \text{(discrete)},

.. math:: -\log p(x) = \tfrac{D}{2} \log 2 \pi e - \tfrac12 \int_0^\infty
    \Big(\frac{D}{1 + v} - \mathrm{mmse}(x, v)\Big)\, dv \qquad \text{(density)}.

A denoiser is used between the ends of its schedule. Beyond them stand closed forms, each no less in the
mean than the cost of the best denoiser:

* noisier, the best denoiser of N(0, I), :math:`\hat x = \alpha z_t`, whose integral is
  :math:`\mathrm{KL}(q(z_1|x) \| N(0, I)) = \tfrac12[S \|x\|^2 - D S + D \log(1 + e^\lambda)]` at that
  end, :math:`S = \mathrm{sigmoid}(\lambda)`: the prior term of the bound;
* cleaner, a :class:`~genmod.evaluation.tails.Tail`.

The integral is therefore the continuous-time variational bound without a decoder.

Reference: Guo, Shamai, Verdu, "Mutual information and minimum mean-square error in Gaussian channels"
(2005), theorem 1; Kong, Brekelmans, Ver Steeg, "Information-theoretic diffusion" (2023), eqs. 8 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from genmod import random
from genmod.checks import require
from genmod.chunks import chunks, rows_per_chunk
from genmod.denoisers import Denoiser
from genmod.diffusion import DiffusionPrior, NoisingEncoder, NoisingPosterior
from genmod.elbo import Measure, Stamp
from genmod.evaluation.batching import Ids, RowSet, in_chunks
from genmod.evaluation.report import Report
from genmod.evaluation.scoring import Estimate, Scores
from genmod.evaluation.tails import GaussianTail, IntegerTail, Tail
from genmod.model import LatentModel
from genmod.random.streams import mix
from genmod.schedules import time_dtype
from genmod.shapes import event_sum, expand_like, repeat

PILOT = 64
"""RowSet, and levels, of the pilot that finds out where the integrand is large."""
EVEN = 0.2
"""The share of visits that is spread evenly, in case the pilot missed something."""


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
    r"""Estimate ``log p(x)`` by the I-MMSE integral of a diffusion's denoiser.

    Each row visits log-SNRs in strata, where a pilot (the first rows, under other noise) found the
    integrand large. A density's integrand is taken relative to that of the best denoiser of N(0, I)
    under the same noise, whose integral is known: the difference is small wherever the two agree.

    With the optimal denoiser the mean is ``log p(x)``; with any other it is a bound, as for the
    variational bound.

    Args:
        model: a diffusion in any number of steps; only its denoiser and its schedule's ends are used.
        data: a data set, whose test part is scored, or rows ``(N, *event)``.
        context: what the denoiser is conditioned on, one row a sample.
        timesteps: how many log-SNRs each row visits.
        tail: the rest beyond the clean end; by default :class:`~genmod.evaluation.IntegerTail` for
            integers and :class:`~genmod.evaluation.GaussianTail` for real data;
            :class:`~genmod.evaluation.NoTail` for points far apart.
        seed: the key of the noise.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its noise depends.
        name: what the report calls it.
        progress: whether a bar is shown.

    Returns:
        An estimate with the terms of a diffusion's bound: ``reconstruction`` is minus the cost beyond the
        clean end, ``prior`` the cost beyond the noisy one, ``steps`` the integral.

    Raises:
        ValueError: a model that is no diffusion of the data themselves, or data that it cannot score.

    >>> from genmod.models import Diffusion
    >>> report = immse(Diffusion(2, width=8), torch.randn(20, 2), timesteps=8)
    >>> report.stamp.value, list(report.terms)
    ('estimate', ['reconstruction', 'prior', 'steps'])
    """
    prior = _require_diffusion(model)
    require(timesteps >= 1, f"timesteps={timesteps}", "at least one", "16 to 256 are common")
    rows, spec = RowSet.of(model, data, context, ids=ids), model.spec
    tail = tail or (IntegerTail(spec.width) if spec.is_integer else GaussianTail())
    clean, noisy = prior.schedule.log_snr_range()
    integrand = _Integrand(model, prior.denoiser, tail.measure is Measure.DENSITY)
    cells = _pilot(integrand, rows, (noisy, clean), seed, batch_size)

    def run(x: Tensor, given: Tensor | None) -> dict[str, Tensor]:
        steps, real = _integrate(integrand, x, given, cells, timesteps), integrand.real(x)
        at_noise = _standard(real, noisy)
        if integrand.relative:
            steps = steps + _standard(real, clean) - at_noise
        return {"prior": at_noise.double().cpu(), "steps": steps.double().cpu()}

    pieces = in_chunks(
        model, rows, run, seed=seed, batch_size=batch_size,
        progress="I-MMSE" if progress else None,
    )  # fmt: skip
    nats = {
        term: rows.given(torch.cat([piece[term] for piece in pieces]))
        for term in ("prior", "steps")
    }
    left = torch.full((len(rows),), -tail.nats(clean, spec.size), dtype=torch.float64)
    scores = Scores(left, nats, {}, None, Stamp.ESTIMATE, tail.measure)
    scores.check_finite()
    return Report(
        name=name or f"{type(model).__name__}, I-MMSE",
        value=Estimate.of(scores.value),
        stamp=scores.stamp,
        measure=scores.measure,
        dims=spec.size,
        samples=len(rows),
        terms={key: Estimate.of(each) for key, each in scores.terms.items()},
        parameters=sum(p.numel() for p in prior.denoiser.parameters()),
        scores=scores,
    )


@dataclass(frozen=True)
class _Integrand:
    """Half the error of a denoiser; ``relative`` to the best denoiser of N(0, I) on the same noise."""

    model: LatentModel
    denoiser: Denoiser
    relative: bool

    def real(self, x: Tensor) -> Tensor:
        """The data as the denoiser estimates them."""
        posterior = self.model.posterior(x)
        assert isinstance(posterior, NoisingPosterior)
        return posterior.x

    def __call__(self, x: Tensor, log_snr: Tensor, context: Tensor | None) -> Tensor:
        """Nats per unit of log-SNR of each row at each of its levels, ``(B, L)``."""
        x = self.real(x)
        together = max(1, rows_per_chunk(tuple(x.shape[1:]), x.device) // len(x))
        parts = [
            self._some(x, log_snr[:, part], context) for part in chunks(log_snr.shape[1], together)
        ]
        return torch.cat(parts, 1)

    def _some(self, x: Tensor, log_snr: Tensor, context: Tensor | None) -> Tensor:
        rows, levels = log_snr.shape
        # Level by level: keyed noise must not change with how many levels go through at once.
        eps = torch.stack([random.normal_like(x) for _ in range(levels)], 1).flatten(0, 1)
        x, flat = repeat(x, levels), log_snr.reshape(-1)
        alpha = expand_like(flat.sigmoid().sqrt(), x)
        z = alpha * x + expand_like((-flat).sigmoid().sqrt(), x) * eps
        given = None if context is None else repeat(context, levels)
        square = event_sum((x - self.denoiser(z, flat.to(x.dtype), given).x_hat).square())
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
    u = random.stratified(len(x), timesteps, edges.dtype, x.device)
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
    """Equal cells of log-SNR, and the share of the visits for each: as its integrand is large."""
    device = integrand.model.device
    edges = torch.linspace(*ends, PILOT + 1, dtype=time_dtype(device), device=device)

    def run(x: Tensor, given: Tensor | None) -> Tensor:
        u = random.uniform((len(x), PILOT), edges.dtype, x.device)
        return integrand(x, edges[:-1] + u * edges.diff(), given).square().double()

    seed = mix(seed, PILOT)
    pieces = in_chunks(integrand.model, rows.first(PILOT), run, seed=seed, batch_size=batch_size)
    size = torch.cat(pieces).mean(0).sqrt().to(edges.dtype)
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
