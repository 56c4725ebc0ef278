"""Editing data with a diffusion: noise them part of the way and back, or interpolate between two."""

from __future__ import annotations

import torch
from torch import Tensor

from genmod.arrays import Context, Rows, as_context, as_tensor
from genmod.checks import require
from genmod.diffusion import DiffusionPrior
from genmod.diffusion.noising import NoisingPosterior
from genmod.encoders.base import require_distribution
from genmod.model import LatentModel
from genmod.priors import NestedPrior
from genmod.samplers import Ancestral, Sampler
from genmod.shapes import LatentTensors, Real, event_sum, expand_like


@torch.no_grad()
def sdedit(
    model: LatentModel,
    x: Rows,
    t: float,
    *,
    steps: int = 50,
    sampler: Sampler | None = None,
    context: Context = None,
) -> Tensor:
    r"""SDEdit: noise data to time ``t`` and denoise them again, so that a drawn stroke becomes a digit.

    .. math:: z_t = \alpha_t x + \sigma_t \varepsilon, \qquad z_t \to z_0, \qquad p(x | z_0)

    At ``t = 0`` the data come back unchanged, except for the decoder's noise. At ``t = 1`` the result is
    a sample that does not depend on them.

    Args:
        model: a diffusion; or a latent one, whose latents are then edited.
        x: data as the model takes them, ``(B, *event)``.
        t: how far to noise them, in [0, 1].
        steps: the number of denoising steps.
        sampler: any of :mod:`genmod.samplers`; the chain's own steps by default.
        context: what the model is conditioned on, ``(B, ...)``.

    Returns:
        Data of the same shape.

    Raises:
        ValueError: a model that is no diffusion, a time outside [0, 1], or no steps; a sampler bound to
            another schedule.

    Reference: Meng et al., "SDEdit: guided image synthesis and editing with stochastic differential
    equations" (2022), algorithm 1.

    >>> from genmod.models import Diffusion
    >>> sdedit(Diffusion((1, 8, 8), bins=17), torch.zeros(2, 1, 8, 8).long(), 0.5, steps=2).shape
    torch.Size([2, 1, 8, 8])
    """
    require(0 <= t <= 1, f"t={t}", "a time in [0, 1]", "0 is clean, 1 is noise")
    require(steps >= 1, f"steps={steps}", "at least one", "50 is common")
    x, prior = as_tensor(x), model.prior
    context = as_context(context, len(x))
    posterior = model.posterior(x, context)
    if isinstance(prior, NestedPrior):
        q = require_distribution(posterior, prior.shape)
        inside = prior.inside(q.mean)
        edited = sdedit(prior.model, inside, t, steps=steps, sampler=sampler, context=context)
        state = prior.outside(edited)
    else:
        denoising = _diffusion(model)
        assert isinstance(posterior, NoisingPosterior)
        times = t * denoising.times(steps + 1).flip(0)
        z = posterior.at(times[:1].expand(len(x))).sample()
        bound = (sampler or Ancestral(variance=denoising.variance)).bind_missing(
            denoising.denoiser, denoising.schedule
        )
        state = bound.run(z, times, context) if t > 0 else z
    return model.draw(state, context)


@torch.no_grad()
def interpolate(
    model: LatentModel, a: Rows, b: Rows, count: int, context: Context = None
) -> Tensor:
    """Interpolate between data: encode both, go from code to code along a great circle, decode.

    The codes of a diffusion are the noise that its probability flow maps data to, so the two ends are
    reconstructed up to the solver's error. Any model with roughly normal codes works (VAE, hierarchy).

    Args:
        model: the model.
        a: data as the model takes them, ``(B, *event)``.
        b: data of the same shape: row ``i`` of ``a`` is joined to row ``i`` of ``b``.
        count: the number of points on each path, the two ends among them.
        context: what the model is conditioned on, ``(B, ...)``.

    Returns:
        The decoder's means, ``(B, count, *event)``.

    Raises:
        ValueError: fewer than two points, or data of different shapes.

    Reference: Song, Meng, Ermon, "Denoising diffusion implicit models" (2021), section 5.3 and appendix
    D.5; Shoemake, "Animating rotation with quaternion curves" (1985).
    """
    require(count >= 2, f"count={count}", "at least 2", "the two ends are among them")
    a, b = as_tensor(a, "a"), as_tensor(b, "b")
    require(
        a.shape == b.shape,
        f"data of shapes {tuple(a.shape)} and {tuple(b.shape)}",
        "two batches of one shape",
        "row i of one is joined to row i of the other",
    )
    ends = [_tuple(model.encode(x, context)) for x in (a, b)]
    means = []
    for weight in torch.linspace(0, 1, count).tolist():
        code = tuple(slerp(start, end, weight) for start, end in zip(*ends, strict=True))
        means.append(model.decode(code[0] if len(code) == 1 else code, context).mean)
    return torch.stack(means, 1)


def slerp(a: Real, b: Real, weight: float) -> Tensor:
    r"""The point between ``a`` (0) and ``b`` (1) on the great circle through both, row by row.

    .. math:: \frac{\sin((1 - w)\theta)}{\sin\theta} a + \frac{\sin(w\theta)}{\sin\theta} b,
        \qquad \cos\theta = \frac{\langle a, b\rangle}{\|a\|\,\|b\|}

    Between points of equal norm the norm stays the same. Noise lies near a sphere of radius
    :math:`\sqrt D`; half-way on a straight line the norm would be smaller by :math:`\sqrt 2`.

    >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
    tensor([[0.7071, 0.7071]])
    """
    # The angle by atan2 of sum and difference: acos(1 - 1e-8) in float32 is 0, where the angle is 1.4e-4.
    tiny = torch.finfo(a.dtype).tiny
    u, v = (x / expand_like(_norm(x).clamp(min=tiny), x) for x in (a, b))
    angle = 2 * torch.atan2(_norm(u - v), _norm(u + v))
    sine = angle.sin()
    # Directions that are equal (or opposite, where no circle is the shortest): a straight line.
    straight = sine.abs() < 10 * torch.finfo(a.dtype).eps
    left = torch.where(straight, 1 - weight, ((1 - weight) * angle).sin() / sine)
    right = torch.where(straight, weight, (weight * angle).sin() / sine)
    return expand_like(left, a) * a + expand_like(right, b) * b


def _norm(x: Tensor) -> Tensor:
    return event_sum(x.square()).sqrt()


def _tuple(code: LatentTensors) -> tuple[Tensor, ...]:
    return (code,) if isinstance(code, Tensor) else code


def _diffusion(model: LatentModel) -> DiffusionPrior:
    if not isinstance(model.prior, DiffusionPrior):
        raise ValueError(
            f"got a {type(model).__name__}; expected a diffusion; only a prior that denoises can noise "
            "data part of the way: pass a Diffusion or a LatentDiffusion"
        )
    return model.prior
