r"""The bound of a diffusion by noise level: nats, and the error of ``x_hat``, at each log-SNR.

Symbols: :math:`\lambda` the log-SNR, ``t`` in [0, 1] from clean (0) to noise (1), ``L`` intervals of
``t`` of equal length. The denoising steps of a reverse chain add to the bound, in continuous time,

.. math:: \frac{d\,\text{nats}}{d\lambda}
    = \tfrac{1}{2}\,\mathbb{E}\|\varepsilon - \hat\varepsilon\|^2
    = \tfrac{1}{2}\,e^{\lambda}\,\mathbb{E}\|x - \hat x(z_t)\|^2,

and in ``T`` steps the Riemann sum of this. Each row visits one noise level in each interval, drawn at
random. So the nats of an interval are an unbiased estimate of its part of the bound.

**Rate and distortion.** Read the chain as a code that is sent from noise to data. After the states down
to :math:`z_t` the receiver has got the *rate* (nats so far), and knows ``x`` up to the *distortion*, the
error of :math:`\hat x(z_t)`. The decoder's masses can be sent from coarse to fine as well. Let
:math:`C_w(x)` be the cell of ``w`` neighboring values that holds ``x``, entry by entry. Then

.. math:: -\log p(x \mid z) = -\log P(C_w(x) \mid z) - \log P(x \mid C_w(x), z).

After the first term the receiver knows the cell, and its best guess is the mean of :math:`p(x \mid
C_w(x), z)`. This gives points of rate and distortion between :math:`z_0` and ``x`` itself.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), eqs. 13-18; Ho, Jain,
Abbeel, "Denoising Diffusion Probabilistic Models" (2020), section 4.3, for rate and distortion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from genmod.checks import check_at_least, invalid
from genmod.chunks import rows_per_chunk
from genmod.diffusion import DiffusionPrior
from genmod.distributions.base import elementwise
from genmod.evaluation.batching import Ids, RowSet, in_chunks, require_finite
from genmod.model import LatentModel, Request
from genmod.models.replace import find_diffusion, has_diffusion
from genmod.path import AutoTimesteps
from genmod.signatures import checked
from genmod.spec import DataSpec
from genmod.tensors import size


@dataclass(frozen=True, eq=False)
class Profile:
    """A diffusion's bound by noise level; means over samples, in nats.

    Args:
        t: the ends of the intervals, from clean (0) to noise (1), ``(L + 1,)``.
        log_snr: the log-SNR at each end, decreasing, ``(L + 1,)``.
        nats: the nats of the denoising steps inside each interval, ``(L,)``.
        error: their standard error over samples, ``(L,)``.
        rmse: the root mean square error of ``x_hat(z_t)`` per dimension in each interval, ``(L,)``, on the
            scale of the noised data: [-1, 1] for integers.
        prior: the nats of the noisiest latent, before the first denoising step.
        decoder: the nats after the last step, ``-log p(x | z_0)``. A nested diffusion adds the log-ratio of
            the latent that it models.
        dims: the number of entries of one sample.
        samples: how many samples were averaged.
    """

    t: Tensor
    log_snr: Tensor
    nats: Tensor
    error: Tensor
    rmse: Tensor
    prior: float
    decoder: float
    dims: int
    samples: int

    @property
    def middle(self) -> Tensor:
        """The log-SNR at the middle of each interval, ``(L,)``."""
        return (self.log_snr[1:] + self.log_snr[:-1]) / 2

    @property
    def width(self) -> Tensor:
        """The length of each interval in log-SNR, positive, ``(L,)``."""
        return self.log_snr[:-1] - self.log_snr[1:]

    @property
    def density(self) -> Tensor:
        """Nats per unit of log-SNR in each interval, ``(L,)``."""
        return self.nats / self.width

    @property
    def density_error(self) -> Tensor:
        """The standard error of :attr:`density`, ``(L,)``."""
        return self.error / self.width

    @property
    def rate(self) -> Tensor:
        """The nats of the chain from noise down to each end of an interval, ``(L + 1,)``."""
        steps = self.nats.flip(0).cumsum(0).flip(0)
        return self.prior + torch.cat([steps, steps.new_zeros(1)])

    @property
    def remaining(self) -> Tensor:
        """The nats from each end of an interval on, until ``x`` is known exactly, ``(L + 1,)``."""
        steps = self.nats.cumsum(0)
        return self.decoder + torch.cat([steps.new_zeros(1), steps])

    def bits_per_dim(self, nats: Tensor) -> Tensor:
        """Convert nats per sample to bits per dimension of the data (a code length, for integers)."""
        return nats / (self.dims * math.log(2))


@checked
def profile(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    timesteps: int = 64,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    progress: bool = False,
) -> Profile:
    """Measure a diffusion's bound by noise level: nats and the error of ``x_hat`` at each log-SNR.

    Args:
        model: a diffusion, in ``T`` steps or in continuous time; or a model with a diffusion as its prior.
        data: a data set, whose test part is used, or rows ``(N, *event)``.
        context: what the model is conditioned on, one row per sample.
        timesteps: the number of intervals of ``t``; each row visits one level in each. A chain of fewer
            steps has one interval per step.
        seed: the seed of the noise.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its noise depends.
        progress: whether to show a progress bar.

    Returns:
        A :class:`Profile`: ``.nats``, ``.density`` and ``.rmse`` of each interval, ``.rate`` at its ends.

    Raises:
        ValueError: a model without denoising steps; no interval; data that it cannot score.

    >>> from genmod.models import Diffusion
    >>> found = profile(Diffusion(2, steps=9), torch.randn(32, 2))
    >>> whole = found.rate + found.remaining  # the negative bound, wherever the chain is cut
    >>> found.nats.shape, bool(torch.allclose(whole, whole[0]))
    (torch.Size([8]), True)
    """
    check_at_least(timesteps, 1, "timesteps", "64 give a smooth curve")
    prior = _require_steps(model)
    count = timesteps if prior.steps is None else min(timesteps, prior.steps - 1)
    rows = RowSet.of(model, data, context, ids=ids)
    together = max(1, rows_per_chunk(prior.shape, model.device) // count)
    pieces = in_chunks(
        model, rows, lambda x, context: _visit(model, x, count, context), seed=seed,
        batch_size=together if batch_size is None else batch_size, progress="profile" if progress else None,
    )  # fmt: skip
    nats, square, first, last = (torch.cat(each) for each in zip(*pieces, strict=True))
    require_finite({"steps": nats, "prior": first, "decoder": last})
    t = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    spread = nats.std(0) if len(rows) > 1 else torch.full_like(nats[0], torch.nan)
    return Profile(
        t=t,
        log_snr=_log_snr(prior, t, model.device),
        nats=nats.mean(0),
        error=spread / math.sqrt(len(rows)),
        rmse=(square.mean(0) / size(prior.shape)).sqrt(),
        prior=float(first.mean()),
        decoder=float(last.mean()),
        dims=model.spec.size,
        samples=len(rows),
    )


def _require_steps(model: LatentModel) -> DiffusionPrior:
    if not has_diffusion(model) or find_diffusion(model).steps == 1:
        got = f"a model without denoising steps (its prior is {type(model.prior).__name__})"
        advice = "use evaluation.score for other models"
        raise invalid(got, "a diffusion of at least two latents", advice)
    return find_diffusion(model)


def _visit(
    model: LatentModel, x: Tensor, count: int, context: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each row: nats and squared errors in each interval; nats before the steps and after them."""
    bound = model(x, Request(context, timesteps=count))[0]
    others = dict(bound.rates)
    steps = next(others.pop(name) for name, rate in bound.rates.items() if rate.noise is not None)
    first = others.pop("prior").total
    last = sum((rate.total for rate in others.values()), -bound.reconstruction)
    square = steps.noise.error.double() * (-steps.noise.log_snr.double()).exp()
    found = steps.weight * steps.nats, square, first, last
    nats, square, first, last = (each.double().cpu() for each in found)
    return nats, square, first, last


def _log_snr(prior: DiffusionPrior, t: Tensor, device: torch.device) -> Tensor:
    """The log-SNR at each time, linearly interpolated between the latents of a chain."""
    if prior.steps is None:
        return prior.schedule.log_snr(t.to(device)).detach().cpu()
    nodes = prior.schedule.log_snr(prior.times()).detach().cpu()
    place = t * (prior.steps - 1)
    index = place.long().clamp(max=prior.steps - 2)
    return torch.lerp(nodes[index], nodes[index + 1], (place - index).to(nodes.dtype))


@dataclass(frozen=True, eq=False)
class Refinement:
    """Rate and distortion inside a decoder, whose values are sent from coarse to fine; means over samples.

    Args:
        width: the number of values in a cell, from all of them down to 1, ``(C,)``.
        nats: the nats of sending the cell, ``(C,)``: from 0 to ``-log p(x | z)``.
        rmse: the root mean square error per dimension of the best guess given the cell, ``(C,)``.
            It is on the scale [-1, 1].
    """

    width: Tensor
    nats: Tensor
    rmse: Tensor


@checked
def refinement(
    model: LatentModel,
    data: object,
    context: object = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    ids: Ids = None,
    progress: bool = False,
) -> Refinement:
    """Measure the rate and the distortion of a decoder's values, sent from coarse to fine.

    Args:
        model: any model of integers whose decoder factorizes over the entries.
        data: a data set, whose test part is used, or rows ``(N, *event)``.
        context: what the model is conditioned on, one row per sample.
        seed: the seed of the noise.
        batch_size: rows computed together; by default as many as fit.
        ids: the id of each row, on which its noise depends.
        progress: whether to show a progress bar.

    Returns:
        A :class:`Refinement`: ``.width`` of the cells, ``.nats`` and ``.rmse``, one entry per width.

    Raises:
        ValueError: a model of real data.

    >>> from genmod.models import Diffusion
    >>> found = refinement(Diffusion((4,), bins=17, width=8), torch.randint(0, 17, (32, 4)))
    >>> found.width.tolist(), bool((found.nats.diff() > 0).all()), float(found.rmse[-1])
    ([32, 16, 8, 4, 2, 1], True, 0.0)
    """
    spec = model.spec
    if spec.bins is None:
        raise invalid(
            "a decoder of real numbers",
            "a decoder of integers, whose values can be sent exactly",
            "use evaluation.profile for the error at each noise level",
        )
    rows = RowSet.of(model, data, context, ids=ids)
    widths = [2**power for power in reversed(range((spec.bins - 1).bit_length() + 1))]

    def run(x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        posterior = model.posterior(x, context)
        state, _ = model.prior.rates(posterior, AutoTimesteps.TRAINING, context)
        return _cells(model.decoder(state, context), x, spec, widths)

    pieces = in_chunks(
        model, rows, run, seed=seed, batch_size=batch_size, copies=4 * spec.bins,
        progress="refinement" if progress else None,
    )  # fmt: skip
    nats, square = (torch.cat(each, 1) for each in zip(*pieces, strict=True))
    require_finite({"decoder": nats.T})
    return Refinement(torch.tensor(widths), nats.mean(1), (square.mean(1) / spec.size).sqrt())


def _cells(
    law: Distribution, x: Tensor, spec: DataSpec, widths: list[int]
) -> tuple[Tensor, Tensor]:
    """Nats and squared errors of each row, for cells of each width, ``(C, B)``, on the CPU."""
    count = spec.bins or 0
    # To int64 first: uint8 would wrap 256 to 0 without an error.
    x, values = x.long(), torch.arange(count, device=x.device)
    masses = torch.stack([elementwise(law, torch.full_like(x, k)) for k in range(count)])
    masses, real = masses.flatten(2), spec.center(x).flatten(1)
    nats, square, centers = [], [], spec.center(values).to(masses.dtype)
    for width in widths:
        inside = (values // width)[:, None, None] == (x // width).flatten(1)
        kept = masses.masked_fill(~inside, -torch.inf)
        log_mass = kept.logsumexp(0)
        mean = torch.einsum("kbd,k->bd", (kept - log_mass).exp(), centers)
        nats.append(-log_mass.double().sum(1).cpu())
        square.append((mean - real).double().square().sum(1).cpu())
    return torch.stack(nats), torch.stack(square)
