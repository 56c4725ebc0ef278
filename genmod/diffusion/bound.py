r"""The bound of a diffusion, from top to bottom.

.. math:: \log p(x) \ge \mathbb{E}_q\Big[\log p(x | z_0)
    - \mathrm{KL}(q(z_1|x) \,\|\, p(z_1))
    - \sum_{s < t} \mathrm{KL}(q(z_s | z_t, x) \,\|\, p(z_s | z_t))\Big]

``q`` is fixed, linear and Gaussian, so each KL has a closed form. With :math:`v_q` the variance of
:math:`q(z_s | z_t, x)`, :math:`v_p` that of the reverse step and :math:`r = v_q / v_p`, the KL of a step is

.. math:: \sum_{\text{entries}} \Big[\tfrac{r}{2}\,\text{gap}\,(\varepsilon-\hat\varepsilon)^2
    + \tfrac{1}{2}(r - 1 - \log r)\Big],
    \qquad \text{gap} = \frac{\mathrm{SNR}_s}{\mathrm{SNR}_t} - 1

In continuous time gap is :math:`-d\lambda/dt`, :math:`r` is one, and the sum is an integral over time.
The marginals :math:`q(z_t|x)` are closed too: levels are visited in any order, and the sum can be
estimated from a few of them. The first term is the decoder's (:mod:`genmod.diffusion.last_step`).

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), eqs. 11-18.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genmod import random
from genmod.chunks import rows_per_chunk
from genmod.denoisers import Denoised
from genmod.denoisers.base import denoise
from genmod.diffusion.noising import NoisingPosterior
from genmod.diffusion.reverse import ReverseProcess
from genmod.diffusion.timesteps import bin_index
from genmod.diffusion.variances import FixedSmall
from genmod.distributions import rate
from genmod.elbo import Kind, NoiseLevels, Rate, Stamp
from genmod.gaussian.kernels import kl_standard_log_std
from genmod.path import TimestepSampler
from genmod.random import replayable
from genmod.schedules.base import Point, time_dtype
from genmod.tensors import PerLevel, event_sum, expand_like, repeat


def diffusion_rates(
    q: NoisingPosterior,
    p: ReverseProcess,
    steps: int | None,
    timesteps: TimestepSampler | None,
    context: Tensor | None = None,
) -> tuple[Tensor, Mapping[str, Rate]]:
    """The bound of a diffusion: a draw of ``z_0``, and the rates of all latents.

    Args:
        q: the data, noised to any time.
        p: the reverse process.
        steps: ``T`` latents, at ``t = 0, 1 / (T - 1), ..., 1``; ``None``: continuous time.
        timesteps: which levels each row visits; ``None``: all of them.
        context: what the denoiser is conditioned on, ``(B, ...)``.

    Returns:
        ``z_0`` for the decoder, and the rates ``"prior"`` (the noisiest latent) and ``"steps"`` (the
        denoising steps).
    """
    # All rows begin at one time and end at one time: one number each, broadcast.
    t_0 = torch.zeros(1, dtype=time_dtype(q.x.device), device=q.x.device)
    t_1 = t_0 if steps == 1 else torch.ones_like(t_0)
    # Prior matching.
    rates = {"prior": rate(q.at(t_1), p.top(q.x, t_1), q.x)}
    # Denoising matching: all visited steps, as many at a time as fit in memory.
    if steps != 1:
        visits = visited_steps(q, steps, timesteps)
        rates["steps"] = Rate.join([step_rate(q, p, visit, context) for visit in visits], dim=1)
    return q.at(t_0).rsample(), rates


class Steps(NamedTuple):
    """Steps of the chain, from ``t`` down to ``s``; each field is ``(B, L)``."""

    t: PerLevel
    s: PerLevel | None
    """``None``: infinitesimal steps, in continuous time."""
    weight: PerLevel
    """One over the expected number of visits to the level."""
    complete: bool
    """Whether all steps are visited: then the sum is not an estimate."""


def visited_steps(
    q: NoisingPosterior, steps: int | None, timesteps: TimestepSampler | None
) -> Iterator[Steps]:
    """The steps that each row visits: all of them in chunks, or those that ``timesteps`` draws."""
    rows, device, kind = q.rows, q.x.device, time_dtype(q.x.device)
    if timesteps is None:
        assert steps is not None
        times = torch.linspace(0, 1, steps, dtype=kind, device=device).expand(rows, -1)
        width = max(1, rows_per_chunk(tuple(q.x.shape[1:]), device) // max(rows, 1))
        pairs = zip(times[:, 1:].split(width, 1), times[:, :-1].split(width, 1), strict=True)
        yield from (Steps(t, s, torch.ones_like(t), True) for t, s in pairs)
        return
    u, weight = timesteps(rows, kind, device)
    if steps is None:
        yield Steps(u, None, weight, False)
        return
    count = steps - 1
    index = bin_index(u, count)
    yield Steps((index + 1) / count, index / count, weight * count, False)


def step_rate(
    q: NoisingPosterior, p: ReverseProcess, steps: Steps, context: Tensor | None = None
) -> Rate:
    """The rate of the visited steps: the closed KL of each, for any reverse variance."""
    t, s, weight, complete = steps
    point = p.schedule.at(t.reshape(-1))
    denoised, squares = _squared_errors(q, p, point, t.shape[1], complete, context)
    error = event_sum(squares)
    if s is None:
        gap = -p.schedule.slope(point.t).to(error.dtype)
    else:
        gap = torch.expm1(p.schedule.log_snr(s.reshape(-1)) - point.log_snr).to(error.dtype)
    variance_nats = None
    if s is None or isinstance(p.variance, FixedSmall):
        nats = 0.5 * gap * error
    else:
        bridge = p.schedule.bridge(s.reshape(-1), point.t)
        log_std_ratio = p.variance.log_std_ratio(bridge, denoised)
        nats = _kl(gap, squares, log_std_ratio)
        if p.variance.learned:
            variance_nats = _kl(gap, squares.detach(), log_std_ratio)

    kind, shape = error.dtype, t.shape
    return Rate(
        nats=nats.view(shape),
        weight=weight.to(kind),
        level=t.to(kind),
        kind=Kind.ANALYTIC,
        claim=Stamp.BOUND if complete else Stamp.ESTIMATE,
        noise=NoiseLevels(
            log_snr=point.log_snr.to(kind).view(shape),
            gap=gap.view(shape),
            error=error.view(shape),
            dt=torch.ones_like(t, dtype=kind) if s is None else (t - s).to(kind),
            variance_nats=None if variance_nats is None else variance_nats.view(shape),
        ),
    )


def _squared_errors(
    q: NoisingPosterior,
    p: ReverseProcess,
    point: Point,
    levels: int,
    recompute: bool,
    context: Tensor | None,
) -> tuple[Denoised, Tensor]:
    r"""The denoiser's output at each visited level, and :math:`(\varepsilon - \hat\varepsilon)^2`."""
    # Level by level: the keyed noise of a level must not depend on how many levels share a chunk.
    noise = [random.normal_like(q.x) for _ in range(levels)]
    eps = noise[0] if levels == 1 else torch.stack(noise, 1).flatten(0, 1)
    x = repeat(q.x, levels)
    z = expand_like(point.alpha, x) * x + expand_like(point.sigma, x) * eps
    if context is not None:
        context = repeat(context, levels)
    if recompute and torch.is_grad_enabled():
        # The activations of all levels would not fit in memory. They are computed again, with the same
        # noise, in the backward pass.
        call = replayable(denoise)
        denoised = checkpoint(call, p.denoiser, z, point, context, use_reentrant=False)
    else:
        denoised = denoise(p.denoiser, z, point, context)
    # SNR |x - x_hat|^2 is |eps - eps_hat|^2.
    return denoised, expand_like(point.log_snr.exp(), x) * (x - denoised.x_hat).square()


def _kl(gap: Tensor, squares: Tensor, log_std_ratio: Tensor) -> Tensor:
    """The KL of each step under a variance of ``exp(2 log_std_ratio)`` times the posterior's."""
    spread = kl_standard_log_std(torch.zeros_like(log_std_ratio), -log_std_ratio)
    apart = 0.5 * expand_like(gap, squares) * (-2 * log_std_ratio).exp() * squares
    return event_sum(apart + spread)
