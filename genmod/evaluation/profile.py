r"""What each noise level of a diffusion costs, and how well ``x`` is known there.

Symbols: :math:`\lambda` the log-SNR, ``t`` in [0, 1] from clean (0) to noise (1), ``L`` intervals of
``t`` of one length. A reverse chain walks them from noise to data and pays, on its way,

.. math:: \frac{d\,\text{nats}}{d\lambda}
    = \tfrac{1}{2}\,\mathbb{E}\|\varepsilon - \hat\varepsilon\|^2
    = \tfrac{1}{2}\,e^{\lambda}\,\mathbb{E}\|x - \hat x(z_t)\|^2

in continuous time, and its Riemann sum in ``T`` steps. The bound itself is asked: a sample visits one
level in each stratum of ``t``, so the nats of an interval are unbiased for what the bound has there.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), eqs. 13-18; Ho, Jain,
Abbeel, "Denoising Diffusion Probabilistic Models" (2020), section 4.3, for rate and distortion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genmod import random
from genmod.checks import require, trusted
from genmod.diffusion import DiffusionPrior
from genmod.elbo import ELBO, Rate
from genmod.evaluation.scoring import evaluating
from genmod.model import LatentModel
from genmod.models import find_diffusion
from genmod.nn import check_context
from genmod.shapes import size

STATES = 1024
"""States that go through the network together: as many rows as that is at all their levels."""


@dataclass(frozen=True, eq=False)
class Profile:
    """A diffusion's bound, spread over its noise levels; means over samples, in nats.

    Args:
        t: the ends of the intervals, from clean (0) to noise (1), ``(L + 1,)``.
        log_snr: the log-SNR at each of them, decreasing, ``(L + 1,)``.
        nats: what the denoising steps inside each interval cost, ``(L,)``.
        error: its standard error over samples, ``(L,)``.
        rmse: the root mean square of ``x - x_hat(z_t)`` per dimension inside each interval, ``(L,)``,
            in the units of what is noised: [-1, 1] for integer data.
        prior: what is paid before the first step: the noisiest latent.
        left: what is paid after the last: minus ``log p(x | z_0)`` (and, where the diffusion is
            nested, the log-ratio of the latent it models).
        dims: how many numbers one sample of the data holds.
        samples: how many samples were averaged.
    """

    t: Tensor
    log_snr: Tensor
    nats: Tensor
    error: Tensor
    rmse: Tensor
    prior: float
    left: float
    dims: int
    samples: int

    @property
    def middle(self) -> Tensor:
        """The log-SNR half-way through each interval, ``(L,)``."""
        return (self.log_snr[1:] + self.log_snr[:-1]) / 2

    @property
    def width(self) -> Tensor:
        """How much log-SNR each interval spans, positive, ``(L,)``."""
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
    def paid(self) -> Tensor:
        """Nats paid by a chain that has come from noise to each end, ``(L + 1,)``."""
        steps = self.nats.flip(0).cumsum(0).flip(0)
        return self.prior + torch.cat([steps, steps.new_zeros(1)])

    @property
    def rest(self) -> Tensor:
        """Nats still to pay at each end until ``x`` is told exactly, ``(L + 1,)``."""
        steps = self.nats.cumsum(0)
        return self.left + torch.cat([steps.new_zeros(1), steps])

    def bits_per_dim(self, nats: Tensor) -> Tensor:
        """Nats per sample as bits per dimension of the data: a code length, for integer data."""
        return nats / (self.dims * math.log(2))


def profile(
    model: LatentModel,
    x: Tensor,
    levels: int = 64,
    seed: int = 0,
    context: Tensor | None = None,
) -> Profile:
    """Measure what each noise level of a diffusion costs.

    Args:
        model: a diffusion, in ``T`` steps or in continuous time, or a model with one for a prior.
        x: data, ``(N, *event)``, on any device.
        levels: how many intervals ``t`` is cut into. With at most as many steps in the chain, each
            step is an interval of its own, and every one is visited.
        seed: the key of the noise.
        context: what the model is told beside each sample.

    Raises:
        ValueError: a model without denoising steps; fewer than one level; data that the model cannot
            score.

    >>> from genmod.models import Diffusion
    >>> found = profile(Diffusion(2, steps=9), torch.randn(32, 2))
    >>> found.nats.shape, bool(torch.isclose(found.paid[0] + found.rest[0], found.paid[4] + found.rest[4]))
    (torch.Size([8]), True)
    """
    require(levels >= 1, f"levels={levels}", "at least one", "64 draw a smooth curve")
    require(len(x) >= 1, "no data", "at least one sample", "check the split")
    prior = _require_steps(model)
    count = levels if prior.steps is None else min(levels, prior.steps - 1)
    model.decoder.check(x)
    check_context(model, context)
    bound, steps = _visit(model, x, count, seed, context)
    nats = (steps.weight * steps.nats).cpu().double()
    noise = steps.noise
    assert noise is not None
    square = (noise.error.double() * (-noise.log_snr.double()).exp()).mean(0).cpu()
    others = {name: rate for name, rate in bound.rates.items() if rate is not steps}
    first = float(others.pop("prior").total.double().mean())
    left = sum((rate.total for rate in others.values()), -bound.reconstruction)
    t = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    spread = nats.std(0) if len(x) > 1 else torch.full_like(nats[0], torch.nan)
    return Profile(
        t=t,
        log_snr=_log_snr(prior, t),
        nats=nats.mean(0),
        error=spread / math.sqrt(len(x)),
        rmse=(square / size(prior.shape)).sqrt(),
        prior=first,
        left=float(left.double().mean()),
        dims=size(model.decoder.shape),
        samples=len(x),
    )


def _require_steps(model: LatentModel) -> DiffusionPrior:
    prior = find_diffusion(model)
    if prior.steps == 1:
        raise ValueError(
            f"got a model without denoising steps (its prior is {type(model.prior).__name__}); "
            "expected a diffusion of at least two latents; use evaluation.score for other models"
        )
    return prior


def _visit(
    model: LatentModel, x: Tensor, count: int, seed: int, context: Tensor | None
) -> tuple[ELBO, Rate]:
    """The bound of every row, one level in each of ``count`` strata of time, and its steps."""
    device = model.device
    block = max(1, STATES // count)
    pieces: list[ELBO] = []
    with evaluating(model), trusted():
        for start in range(0, len(x), block):
            rows = slice(start, start + block)
            told = None if context is None else context[rows].to(device)
            with random.keyed(seed, start=start, block=block):
                pieces.append(model.elbo(x[rows].to(device), count, told))
    bound = ELBO.join(pieces)
    return bound, next(rate for rate in bound.rates.values() if rate.noise is not None)


def _log_snr(prior: DiffusionPrior, t: Tensor) -> Tensor:
    """The log-SNR at each time; between two latents of a chain on the straight line."""
    if prior.steps is None:
        return prior.schedule.log_snr(t.to(prior.times().device)).detach().cpu()
    nodes = prior.schedule.log_snr(prior.times()).detach().cpu()
    place = t * (prior.steps - 1)
    left = place.floor().clamp(max=prior.steps - 2)
    index = left.long()
    return torch.lerp(nodes[index], nodes[index + 1], (place - left).to(nodes.dtype))
