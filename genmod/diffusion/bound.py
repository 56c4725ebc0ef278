r"""What the visited steps of a diffusion cost: the closed KL of each, under any reverse variance.

With :math:`v_q` the variance of :math:`q(z_s | z_t, x)` and :math:`v_p` that of the reverse step, for
each entry with :math:`r = v_q / v_p`

.. math:: \mathrm{KL} = \tfrac{r}{2}\,\text{gap}\,(\varepsilon-\hat\varepsilon)^2
    + \tfrac{1}{2}(r - 1 - \log r),
    \qquad \text{gap} = \frac{\mathrm{SNR}_s}{\mathrm{SNR}_t} - 1

In continuous time gap is :math:`-d\lambda/dt` and r is one.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models" (2021), eqs. 13-18.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from genmod import random
from genmod.denoisers import Denoised, denoise
from genmod.diffusion import FixedSmall, NoisingPosterior
from genmod.elbo import Kind, Rate
from genmod.gaussian import kl_standard_log_std
from genmod.samplers import Ancestral
from genmod.schedules import Point
from genmod.shapes import event_sum, expand_like, repeat
from genmod.types import PerLevel


def step_rate(
    chain: Ancestral,
    q: NoisingPosterior,
    t: PerLevel,
    s: PerLevel | None,
    context: Tensor | None = None,
    weight: PerLevel | None = None,
    lean: bool = False,
) -> Rate:
    """What the steps from ``t`` cost: down to ``s``, or (``None``) infinitesimal ones.

    Args:
        chain: the reverse steps.
        q: the data, noised.
        t: where each visited step starts, ``(B, L)``.
        s: where it ends.
        context: what the denoiser is told beside the state.
        weight: the inverse rate at which each level is visited; one by default.
        lean: recompute the network's activations in the backward pass instead of keeping them.
    """
    rows, levels = t.shape
    point = chain.schedule.at(t.reshape(-1))
    # Level by level: keyed noise must not change with how many levels go through at once.
    drawn = [random.normal(tuple(q.x.shape), q.x.dtype, q.x.device) for _ in range(levels)]
    noise = drawn[0][:, None] if levels == 1 else torch.stack(drawn, 1)
    denoised, squares = _squares(chain, q, point, noise, context, lean)
    error = event_sum(squares)
    if s is None:
        gap = -chain.schedule.slope(point.t)
    else:
        gap = torch.expm1(chain.schedule.log_snr(s.reshape(-1)) - point.log_snr)
    gap, variance_nats = gap.to(error.dtype), None
    if s is None or isinstance(chain.variance, FixedSmall):
        nats = 0.5 * gap * error
    else:
        bridge = chain.schedule.bridge(s.reshape(-1), point.t)
        excess = chain.variance.log_std_ratio(bridge, denoised)
        nats = _nats(gap, squares, excess)
        if chain.variance.learned:
            variance_nats = _nats(gap, squares.detach(), excess)

    def columns(values: Tensor) -> Tensor:
        return values.to(error.dtype).reshape(rows, levels)

    return Rate(
        nats=columns(nats),
        weight=error.new_ones(rows, levels) if weight is None else weight.to(error.dtype),
        level=columns(point.t),
        kind=Kind.ANALYTIC,
        log_snr=columns(point.log_snr),
        gap=columns(gap),
        error=columns(error),
        share=error.new_ones(rows, levels) if s is None else columns(t - s),
        variance_nats=None if variance_nats is None else columns(variance_nats),
    )


def _squares(
    chain: Ancestral,
    q: NoisingPosterior,
    point: Point,
    noise: Tensor,
    context: Tensor | None,
    lean: bool,
) -> tuple[Denoised, Tensor]:
    r"""What is said of each visited level, and :math:`(\varepsilon - \hat\varepsilon)^2` of each entry."""
    levels = noise.shape[1]
    x, eps = repeat(q.x, levels), noise.flatten(0, 1)
    told = None if context is None else repeat(context, levels)
    z = expand_like(point.alpha, x) * x + expand_like(point.sigma, x) * eps
    if lean and torch.is_grad_enabled():
        denoised = checkpoint(denoise, chain.denoiser, z, point, told, use_reentrant=False)
    else:
        denoised = denoise(chain.denoiser, z, point, told)
    # SNR |x - x_hat|^2 is |eps - eps_hat|^2.
    return denoised, expand_like(point.log_snr.exp(), x) * (x - denoised.x_hat).square()


def _nats(gap: Tensor, squares: Tensor, excess: Tensor) -> Tensor:
    """The KL of each step under a variance of ``exp(2 excess)`` times the posterior's."""
    spread = kl_standard_log_std(torch.zeros_like(excess), -excess)
    apart = 0.5 * expand_like(gap, squares) * (-2 * excess).exp() * squares
    return event_sum(apart + spread)
